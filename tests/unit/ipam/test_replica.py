import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from ipam.authority import Authority
from ipam.calls import Update
from ipam.errors import StoreUnavailable
from ipam.keys import Freeze, write
from ipam.kv import Batch, Compacted, Delete, Identity, KVUnavailable, Outcome, Put, Unchanged
from ipam.memory import DaemonMemory, Remembered
from ipam.memory_kv import Faults, MemoryKV
from ipam.refusals import Contended, Frozen, NotReady, Unknown
from ipam.replica import AT_ONCE, SHORTEST_PAUSE_S, TRIES, Change
from tests.unit.ipam.ipamd_cases import KEYS, Site, node, site


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin()
        yield made


def kv_of(cluster: Site, which: int = 0) -> MemoryKV:
    kv = cluster.replicas[which].replica.kv
    assert isinstance(kv, MemoryKV)
    return kv


def test_refusal_on_an_old_view_is_looked_into_once(cluster: Site) -> None:
    cluster.follow()
    asked: list[int] = []

    def decide(attempt: int) -> Change:
        asked.append(attempt)
        raise Unknown("no such thing")

    with pytest.raises(Unknown):
        cluster.run(cluster.replicas[0].replica.transact([KEYS.meta], decide))

    assert asked == [0, 1]


def test_endless_conflicts_end_with_a_word(cluster: Site) -> None:
    cluster.follow()
    replica = cluster.replicas[0].replica

    def decide(attempt: int) -> Change:
        return Change([Unchanged(KEYS.meta, 999)], [Put(KEYS.meta, b"")])

    with pytest.raises(Contended, match="try again"):
        cluster.run(replica.transact([KEYS.meta], decide))

    assert replica.tally.conflicts == TRIES


def test_few_choose_at_once_so_that_a_choice_is_not_old_when_it_is_made(cluster: Site) -> None:
    cluster.follow()
    replica = cluster.replicas[0].replica
    may_commit, deciding = asyncio.Event(), list[int]()

    class Slow(MemoryKV):
        async def commit(self, *words: Any) -> Outcome:
            await may_commit.wait()
            return await super().commit(*words)

    replica.kv = Slow(cluster.store)

    def decide(attempt: int) -> Change:
        deciding.append(attempt)
        return Change([], [Put(KEYS.node("a"), b"")])

    async def crowd() -> list[int]:
        async with asyncio.TaskGroup() as group:
            for _ in range(3 * AT_ONCE):
                group.create_task(replica.transact([], decide))
            for _ in range(100):
                await asyncio.sleep(0)
            first = list(deciding)
            may_commit.set()
        return first

    first = cluster.run(crowd())

    assert len(first) == AT_ONCE
    assert len(deciding) == 3 * AT_ONCE


def test_answer_of_a_store_that_went_back_is_not_believed(cluster: Site) -> None:
    old = cluster.store.snapshot()
    for name in "abc":
        cluster.register(node(name))
    cluster.follow()
    cluster.store.restore(old)

    with pytest.raises(Frozen, match="revision went back"):
        cluster.run(cluster.replicas[0].register(node("d")))

    assert not cluster.replicas[0].replica.synced
    assert cluster.replicas[0].replica.frozen


def test_what_was_answered_is_in_the_memory_before(cluster: Site) -> None:
    cluster.register(node("a"))
    revision = cluster.claim("a").blocks[0].revision

    kept = DaemonMemory(cluster.folder / "memory-0").load()

    assert kept is not None
    assert kept.revision >= revision


def test_replica_that_cannot_remember_does_not_answer(cluster: Site) -> None:
    cluster.register(node("a"))

    class Full(DaemonMemory):
        def keep(self, remembered: Remembered) -> None:
            raise StoreUnavailable("no space left")

    replica = cluster.replicas[0].replica
    replica._memory = Full(cluster.folder / "memory-0")

    with pytest.raises(NotReady, match="no space left"):
        cluster.claim("a")


def test_restarted_replica_notices_what_happened_while_it_was_away(cluster: Site) -> None:
    old = cluster.store.snapshot()
    cluster.register(node("a"))
    cluster.claim("a")
    cluster.store.restore(old, bump=1000)
    cluster.replicas = [cluster.replica("0")]

    cluster.follow()

    assert "claim counter went back" in cluster.replicas[0].replica.frozen
    assert KEYS.frozen in cluster.store.entries


def test_restarted_replica_gives_a_node_the_whole_table_where_blocks_went_meanwhile(
    cluster: Site,
) -> None:
    cluster.register(node("a"))
    cluster.claim("a")
    cluster.follow()
    known = cluster.replicas[0].replica.view.revision
    (cidr, *_) = cluster.replicas[0].replica.view.blocks
    cluster.run(kv_of(cluster).commit([], [Delete(KEYS.block(cidr))]))
    cluster.register(node("b"))
    cluster.replicas = [cluster.replica("0")]
    cluster.follow()

    async def first() -> Update:
        async with aclosing(cluster.replicas[0].watch("a", after=known)) as updates:
            return await anext(updates)

    update = cluster.run(first())

    assert update.whole
    assert cidr not in {row.cidr for row in update.rows}


def test_another_cluster_of_etcd_is_noticed(cluster: Site) -> None:
    cluster.follow()
    cluster.store.restore(cluster.store.snapshot(), bump=10, cluster_id=0xBEEF)

    cluster.run(cluster.replicas[0].replica.resync())

    assert "etcd cluster beef" in cluster.replicas[0].replica.frozen


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


def running(cluster: Site, work: Callable[[Authority], object]) -> None:
    """Run *work*, a coroutine function, while the first replica follows the store by itself."""

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(cluster.replicas[0].run())
            await work(cluster.replicas[0])  # type: ignore[misc]
            follower.cancel()

    cluster.run(main())


def test_running_replica_sees_what_others_do_and_survives_a_compaction(cluster: Site) -> None:
    async def work(authority: Authority) -> None:
        view = authority.replica.view
        await until(lambda: authority.replica.synced)
        await cluster.replicas[1].register(node("a"))
        await until(lambda: "a" in view.nodes)
        kv_of(cluster).faults = Faults(held=True)
        await cluster.replicas[1].register(node("b"))
        await cluster.replicas[1].register(node("c"))
        cluster.store.compact(cluster.store.revision)
        kv_of(cluster).faults = Faults()
        await until(lambda: {"b", "c"} <= set(view.nodes))

    running(cluster, work)


def test_conflict_shows_all_that_others_put_though_the_watch_is_behind(cluster: Site) -> None:
    async def work(authority: Authority) -> None:
        replica = authority.replica
        await until(lambda: replica.synced)
        kv_of(cluster).faults = Faults(held=True)
        await cluster.replicas[1].register(node("seen"))
        await until(lambda: "seen" in replica.view.nodes)
        await cluster.replicas[1].register(node("a"))
        await cluster.replicas[1].register(node("b"))
        known: list[set[str]] = []

        def decide(attempt: int) -> Change:
            known.append(set(replica.view.nodes))
            key = KEYS.node("a")
            return Change([replica.view.unchanged(key)], [Put(key, b"")])

        await replica.transact([KEYS.node("a")], decide)

        assert known == [{"seen"}, {"seen", "a", "b"}]

    running(cluster, work)


def test_what_a_watch_never_brought_is_read_when_conflicts_do_not_end(cluster: Site) -> None:
    old = cluster.store.snapshot()
    cluster.run(kv_of(cluster).commit([], [Put(KEYS.node("a"), b"never to be seen again")]))
    cluster.follow()
    cluster.store.restore(old, bump=1000)
    replica = cluster.replicas[0].replica
    replica.view.caught_up(cluster.store.revision)

    def decide(attempt: int) -> Change:
        return Change([replica.view.unchanged(KEYS.node("a"))], [Put(KEYS.node("a"), b"there")])

    cluster.run(replica.transact([KEYS.node("a")], decide))

    assert cluster.store.entries[KEYS.node("a")].value == b"there"


def test_running_replica_waits_for_its_store_and_goes_on(cluster: Site) -> None:
    kv_of(cluster).faults = Faults(denied="wrong password")
    cluster.replicas[0].replica.synced = False

    async def work(authority: Authority) -> None:
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            await authority.register(node("a"))
        kv_of(cluster).faults = Faults()
        await until(lambda: authority.replica.synced)
        await authority.register(node("a"))

    running(cluster, work)


def test_streams_tell_nodes_that_the_store_is_there_again(cluster: Site) -> None:
    seen: list[Update] = []

    async def work(authority: Authority) -> None:
        async def follow() -> None:
            async for update in authority.watch("a"):
                seen.append(update)

        await until(lambda: authority.replica.synced)
        authority.replica.feed.flush()
        following = asyncio.create_task(follow())
        await until(lambda: bool(seen))
        authority.replica.synced = False
        await authority.replica.resync()
        await until(lambda: len(seen) == 2)
        following.cancel()

    running(cluster, work)

    assert seen[1] == Update(revision=seen[0].revision)


def test_streams_end_when_claims_freeze_so_that_nodes_tell_what_they_know(cluster: Site) -> None:
    old = cluster.store.snapshot()
    cluster.register(node("a"))
    cluster.claim("a")
    seen: list[int] = []

    async def work(authority: Authority) -> None:
        await until(lambda: authority.replica.synced and "a" in authority.replica.view.nodes)

        async def follow() -> None:
            async for update in authority.watch("a"):
                seen.append(len(update.rows))

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            await until(lambda: bool(seen))
            cluster.store.restore(old, bump=1000)

    running(cluster, work)

    assert seen[0] == 2


def test_stream_that_begins_when_claims_are_frozen_ends_unless_its_node_was_told(
    cluster: Site,
) -> None:
    cluster.follow()
    cluster.store.restore(cluster.store.snapshot(), cluster_id=2)
    cluster.run(cluster.replicas[0].replica.resync())

    async def brings(*, told: bool) -> bool:
        async with aclosing(cluster.replicas[0].watch("a", frozen=told)) as updates:
            return await anext(updates, None) is not None

    assert cluster.run(brings(told=True))
    assert not cluster.run(brings(told=False))


def test_stream_of_a_node_that_was_told_of_one_freeze_ends_at_the_next(cluster: Site) -> None:
    cluster.follow()
    replica = cluster.replicas[0].replica
    put = Put(KEYS.frozen, write(Freeze("for a test")))

    async def scene() -> Update | None:
        await replica.commit(Change([], [put]))
        async with aclosing(cluster.replicas[0].watch("a", frozen=True)) as updates:
            await anext(updates)
            await replica.commit(Change([], [Delete(KEYS.frozen)]))
            await replica.commit(Change([], [put]))
            return await anext(updates, None)

    assert cluster.run(scene()) is None


class Compacting(MemoryKV):
    """Every watch begins with a gap."""

    watches = 0

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        self.watches += 1
        raise Compacted(after)
        yield


def test_store_that_compacts_under_every_watch_is_listed_with_growing_pauses(
    cluster: Site,
) -> None:
    kv = Compacting(cluster.store)
    replica = cluster.replicas[0].replica
    replica.kv = kv

    async def work() -> None:
        follower = asyncio.create_task(replica.follow())
        await until(lambda: kv.watches == 3)
        follower.cancel()

    cluster.run(work())

    assert replica._pause == 4 * SHORTEST_PAUSE_S


class Away(MemoryKV):
    """Nothing of it is reached."""

    asked = 0

    async def identity(self) -> Identity:
        self.asked += 1
        raise KVUnavailable("no member answers")


def test_an_outage_is_logged_once_however_long_it_lasts(
    cluster: Site, caplog: pytest.LogCaptureFixture
) -> None:
    away = Away(cluster.store)
    replica = cluster.replicas[0].replica
    replica.kv = away

    async def work() -> None:
        follower = asyncio.create_task(replica.follow())
        await until(lambda: away.asked == 3)
        follower.cancel()

    cluster.run(work())

    assert caplog.text.count("no member answers") == 1


def test_running_replica_notices_a_rollback_and_tells_the_others(cluster: Site) -> None:
    old = cluster.store.snapshot()
    cluster.register(node("a"))
    cluster.claim("a")

    async def work(authority: Authority) -> None:
        await until(lambda: authority.replica.synced and "a" in authority.replica.view.nodes)
        cluster.store.restore(old)
        await until(lambda: KEYS.frozen in cluster.store.entries)

    running(cluster, work)
    cluster.replicas = [cluster.replica("1")]
    cluster.follow()

    assert "went back" in cluster.replicas[0].replica.frozen
