"""The three conversations together, as they go on beside each other."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from agent import cluster, talk
from agent.cluster import Cluster
from ipam.calls import Claim, Drain, Init, Leave, Mirror, Pin, Register, Registered, Update
from ipam.cluster import PoolState
from ipam.keys import Freeze, write
from ipam.kv import Put
from ipam.memory_kv import MemoryKV
from ipam.refusals import NotReady, Stale
from tests.unit.agent.talks import FOUR, SIX, Site, made_site, until


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("TICK_S", "TELL_S"):
        monkeypatch.setattr(cluster, name, 0.02)
    monkeypatch.setattr(talk, "SHORTEST_PAUSE_S", 0.01)
    monkeypatch.setattr(talk, "LONGEST_PAUSE_S", 0.05)
    with made_site(tmp_path) as site:
        yield site


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Cluster]:
    found = Cluster(site.talk)
    async with asyncio.TaskGroup() as tasks:
        ipamd = tasks.create_task(site.authority.run())
        await until(lambda: site.authority.replica.synced)
        talking = tasks.create_task(found.run())
        yield found
        talking.cancel()
        ipamd.cancel()


def test_a_node_has_blocks_follows_the_table_and_is_mirrored(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        async with running(site) as found:
            await until(lambda: site.states() == ["active", "active"])
            await until(lambda: len(site.talk.blocks.table) == 2)
            given = site.give(1)
            await until(lambda: site.ipamd.of(Mirror)[-1].leases)
            described = found.describe()

        assert described["connected"] is True
        assert (described["node"], described["epoch"], described["confirmed"]) == ("n1", 1, True)
        assert [block["used"] for block in described["blocks"]] == [1, 1]
        assert (described["trouble"], described["frozen"], described["table"]) == ("", "", 2)
        assert described["claims"] == 1
        assert found.problems() == []
        assert len(given) == 2
        assert site.ipamd.of(Leave) == [Leave(node="n1", uid="u1", instance="i1")]
        assert site.ipamd.closed

    asyncio.run(scene())


def test_a_block_of_a_pool_that_is_made_later_comes_at_once(site: Site) -> None:
    async def scene() -> None:
        await site.open(init=False)
        await site.authority.init(Init())
        async with running(site):
            await until(lambda: site.talk.condition.refusals)
            await site.pool("four", FOUR, 29)  # time stands still: no pause ends

            await until(lambda: site.states() == ["active"])

    asyncio.run(scene())


def test_while_nobody_answers_adds_go_on_and_say_what_is_wrong(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        async with running(site) as found:
            await until(lambda: site.states() == ["active", "active"])
            registered = len(site.ipamd.of(Register))
            site.ipamd.away = True
            await site.take_all()  # the table changes, and its stream ends
            site.give(1)
            await until(lambda: found.describe()["trouble"] == "nobody answers")
            await until(lambda: not found.describe()["connected"])
            await until(lambda: site.talk.blocks.waiting)
            site.give(2)
            site.ipamd.away = False
            await until(lambda: found.describe()["connected"])
            await until(lambda: not site.talk.blocks.waiting)

        assert len(site.ipamd.of(Register)) > registered

    asyncio.run(scene())


def test_what_the_table_says_of_our_own_blocks_is_asked_about_at_once(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        async with running(site):
            await until(lambda: site.states() == ["active", "active"])
            site.give(1)
            await until(lambda: len(site.talk.blocks.table) == 2)
            await site.authority.drain(Drain(node="n1"))
            await site.authority.tick()
            await until(lambda: site.states() == ["draining", "draining"])
            # So that they are not granted to us anew before we hear that they are gone.
            await site.pool("four", FOUR, 29, state=PoolState.DISABLED)
            await site.pool("six", SIX, 122, state=PoolState.DISABLED)
            await site.fence()
            await until(lambda: "lost" in site.states())
            await until(lambda: site.enforced[-1] == set(site.blocks()))

        assert site.states() == ["lost", "lost"]

    asyncio.run(scene())


def test_a_block_that_is_pinned_to_us_is_taken_at_once(site: Site) -> None:
    pinned = ip_network("10.9.0.0/29")

    async def scene() -> None:
        await site.open()
        async with running(site):
            await until(lambda: site.states() == ["active", "active"])
            await site.authority.pin(Pin(node="n1", cidr=pinned, pool="to-come"))
            await until(lambda: str(pinned) in site.blocks())

    asyncio.run(scene())


def test_a_table_that_has_lost_our_blocks_is_asked_about_at_once(site: Site) -> None:
    whole, register = site.ipamd.watch, site.ipamd.register
    known: list[int] = []

    async def away(asked: Register) -> Registered:
        raise NotReady("etcd takes no writes")

    async def watch(*, after: int, frozen: bool) -> AsyncGenerator[Update, None]:
        """The first stream ends with a table of nothing, as of a store that was wiped."""
        site.ipamd.watch = whole  # type: ignore[method-assign]
        async for update in whole(after=after, frozen=frozen):
            yield update
            if len(site.talk.blocks.table) == 2:
                break
        await until(lambda: len(site.states()) == 2)
        known.append(len(site.ipamd.of(Register)))
        site.ipamd.register = away  # type: ignore[method-assign]
        yield Update(revision=10**6, whole=True)
        await asyncio.Event().wait()

    async def scene() -> None:
        await site.open()
        site.ipamd.watch = watch  # type: ignore[method-assign]
        async with running(site) as found:
            assert not found.in_sync
            await until(lambda: found.in_sync and not found.doubt)
            await until(lambda: known)
            await until(lambda: found.doubt == "this node is not registered")
            site.ipamd.register = register  # type: ignore[method-assign]
            await until(lambda: len(site.ipamd.of(Register)) > known[0])
            await until(lambda: not found.doubt)

    asyncio.run(scene())


def test_of_a_store_that_went_back_the_whole_table_is_asked_for(site: Site) -> None:
    watch = site.ipamd.watch
    asked: list[int] = []

    async def noting(*, after: int, frozen: bool) -> AsyncGenerator[Update, None]:
        asked.append(after)
        async for update in watch(after=after, frozen=frozen):
            yield update
            if len(asked) == 1 and len(site.talk.blocks.table) == 2:
                return

    async def scene() -> None:
        await site.open()
        site.ipamd.watch = noting  # type: ignore[method-assign]
        async with running(site):
            await until(lambda: len(asked) == 2)
            site.kv.wipe(cluster_id=2)
            await site.authority.replica.resync()
            await until(lambda: len(asked) == 3)

    asyncio.run(scene())

    first, known, anew = asked
    assert (first, anew) == (0, 0)
    assert known > 0


def test_a_freeze_between_registering_and_the_stream_is_heard_of(site: Site) -> None:
    watch = site.ipamd.watch

    async def late(*, after: int, frozen: bool) -> AsyncGenerator[Update, None]:
        if not site.authority.replica.frozen:
            await freeze(site)
        async for update in watch(after=after, frozen=frozen):
            yield update

    async def scene() -> None:
        await site.open()
        site.ipamd.watch = late  # type: ignore[method-assign]
        async with running(site) as found:
            await until(lambda: found.describe()["frozen"] == "for a test")
            await until(lambda: found.describe()["connected"])

    asyncio.run(scene())


async def freeze(site: Site) -> None:
    key = site.authority.replica.keys.frozen
    await MemoryKV(site.kv).commit([], [Put(key, write(Freeze("for a test")))])
    await until(lambda: site.authority.replica.frozen)


def test_who_is_told_to_renew_registers_anew(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        async with running(site) as found:
            await until(lambda: len(site.states()) == 2)
            known = len(site.ipamd.of(Register))
            found.renew()
            await until(lambda: len(site.ipamd.of(Register)) > known)

    asyncio.run(scene())


def test_a_burst_is_answered_by_another_block(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        async with running(site):
            await until(lambda: site.states() == ["active", "active"])
            for number in range(5):
                site.give(number)
            await until(lambda: len(site.states()) == 3)
            site.give(6)

        assert [claim.families for claim in site.ipamd.of(Claim)] == [(4, 6), (4,)]

    asyncio.run(scene())


def test_a_conversation_that_pauses_goes_on_once_the_table_is_streamed_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk.Pause, "longer", lambda pause: 3600.0)
    heard = site.ipamd.mirror

    async def fail(asked: Mirror) -> int:
        site.ipamd.mirror = heard  # type: ignore[method-assign]
        raise NotReady("etcd is away")

    async def scene() -> None:
        await site.open()
        async with running(site):
            await until(lambda: site.ipamd.of(Mirror) and len(site.states()) == 2)
            site.ipamd.mirror = fail  # type: ignore[method-assign]
            site.give(1)
            await until(lambda: site.talk.condition.failures)
            site.authority.replica.feed.stir()
            await until(lambda: site.ipamd.of(Mirror)[-1].leases)

    asyncio.run(scene())


@pytest.mark.parametrize("brings", [False, True])
def test_a_stream_that_breaks_is_not_asked_for_at_once_because_registering_works(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, brings: bool
) -> None:
    monkeypatch.setattr(talk.Pause, "longer", lambda pause: 3600.0)
    streams: list[int] = []

    async def watch(*, after: int, frozen: bool) -> AsyncGenerator[Update, None]:
        streams.append(after)
        if brings:
            yield Update(revision=1)
        raise NotReady("no stream today")

    async def scene() -> None:
        await site.open()
        site.ipamd.watch = watch  # type: ignore[method-assign]
        async with running(site) as found:
            condition = found._talk.condition
            for number in range(1, 6):  # each works
                await until(lambda number=number: condition.registrations > number)  # type: ignore[misc]
                found.failed(Stale("register"))
            asked = len(streams)
            found.renew()
            await until(lambda: len(streams) > asked)

        assert asked == 1

    asyncio.run(scene())


def test_a_bug_in_one_conversation_does_not_end_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await site.open()
        found = site.ipamd.register

        async def once(asked: Register) -> object:
            monkeypatch.setattr(site.ipamd, "register", found)
            raise ZeroDivisionError

        monkeypatch.setattr(site.ipamd, "register", once)
        async with running(site):
            await until(lambda: site.states() == ["active", "active"])

        assert "talk with ipamd failed" in caplog.text

    asyncio.run(scene())
