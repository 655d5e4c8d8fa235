"""The twin passes the contract, and its faults are what they say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ipam.kv import KV, Ambiguous, Denied, Identity, KVUnavailable, OutOfSpace, Put, Replaced
from ipam.memory_kv import Faults, MemoryCluster, MemoryKV
from tests.unit.ipam.kv_contract import PREFIX, KVContract, events, key


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestContract(KVContract):
    def setup_method(self) -> None:
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[KV]:
        kv = MemoryKV(self.cluster)
        yield kv
        await kv.close()

    async def compact(self, kv: KV, revision: int) -> None:
        self.cluster.compact(revision)

    async def let_leases_run_out(self, kv: KV) -> None:
        self.clock.now += 1.0


def test_unavailable_denied_and_full_write_nothing() -> None:
    async def run() -> None:
        cluster = MemoryCluster()
        kv = MemoryKV(cluster)
        for faults, error in [
            (Faults(unavailable="gone"), KVUnavailable),
            (Faults(denied="who?"), Denied),
            (Faults(full=True), OutOfSpace),
        ]:
            kv.faults = faults
            with pytest.raises(error):
                await kv.commit([], [Put(key("a"), b"")])

        assert cluster.entries == {}
        assert await kv.get(key("a")) is None

    asyncio.run(run())


def test_lost_answers_are_of_commits_carried_out_or_not() -> None:
    async def run() -> None:
        cluster = MemoryCluster()
        kv = MemoryKV(cluster, Faults(lost=(False, True)))
        for name in ["never", "done"]:
            with pytest.raises(Ambiguous):
                await kv.commit([], [Put(key(name), b"")])
        await kv.commit([], [Put(key("last"), b"")])

        assert sorted(cluster.entries) == [key("done"), key("last")]

    asyncio.run(run())


def test_one_clients_faults_are_not_anothers() -> None:
    async def run() -> None:
        cluster = MemoryCluster()
        cut_off, well = MemoryKV(cluster), MemoryKV(cluster)
        await well.commit([], [Put(key("a"), b"1")])
        watch = cut_off.watch(PREFIX, after=1)
        first = await anext(watch)
        cut_off.faults = Faults(unavailable="gone")
        with pytest.raises(KVUnavailable, match="gone"):
            await anext(watch)
        await well.commit([], [Put(key("a"), b"2")])
        cut_off.faults = Faults()
        [second] = await events(cut_off, first.revision, 1)

        assert second.entry is not None
        assert second.entry.value == b"2"

    asyncio.run(run())


def test_waiting_watch_is_told_of_new_faults() -> None:
    async def run() -> None:
        cluster = MemoryCluster()
        kv = MemoryKV(cluster)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(unavailable(kv))
            for _ in range(3):
                await asyncio.sleep(0)
            kv.faults = Faults(unavailable="gone")

        assert watch.result()

    asyncio.run(run())


async def unavailable(kv: KV) -> bool:
    with pytest.raises(KVUnavailable):
        await events(kv, 1, 1)
    return True


def test_held_watches_deliver_in_any_order_of_clients() -> None:
    async def run() -> None:
        cluster = MemoryCluster()
        clients = [MemoryKV(cluster, Faults(held=True)) for _ in range(2)]
        order: list[int] = []

        async def follow(number: int) -> None:
            await events(clients[number], 1, 1)
            order.append(number)

        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(follow(number)) for number in range(2)]
            await clients[0].commit([], [Put(key("a"), b"1")])
            for number in (1, 0):
                clients[number].faults = Faults()
                await followers[number]

        assert order == [1, 0]

    asyncio.run(run())


def test_gate_holds_a_call_before_the_store_sees_it() -> None:
    async def run() -> None:
        cluster = MemoryCluster()
        reached, opened = asyncio.Event(), asyncio.Event()
        called: list[str] = []

        async def gate(method: str) -> None:
            called.append(method)
            reached.set()
            await opened.wait()

        kv = MemoryKV(cluster, Faults(gate=gate))
        async with asyncio.TaskGroup() as group:
            group.create_task(kv.commit([], [Put(key("a"), b"")]))
            await reached.wait()
            assert cluster.entries == {}
            opened.set()

        assert list(cluster.entries) == [key("a")]
        assert called == ["commit"]

    asyncio.run(run())


def test_restore_goes_back_in_keys_revision_and_leases_and_ends_watches() -> None:
    async def run() -> None:
        clock = Clock()
        cluster = MemoryCluster(clock)
        kv = MemoryKV(cluster)
        lease = await kv.grant(10)
        await kv.commit([], [Put(key("a"), b"1", lease)])
        snapshot = cluster.snapshot()
        newest = await kv.commit([], [Put(key("a"), b"2"), Put(key("b"), b"2")])
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(refused(kv, newest.revision))
            for _ in range(3):
                await asyncio.sleep(0)
            cluster.restore(snapshot, bump=100)
        restored = await kv.get(key("a"))

        assert restored is not None
        assert (restored.value, restored.version) == (b"1", 1)
        assert watch.result()
        assert await kv.identity() == Identity(1, snapshot.revision + 100)
        clock.now += 10
        assert (await kv.list(PREFIX)).entries == ()

    asyncio.run(run())


async def refused(kv: KV, after: int) -> bool:
    with pytest.raises(Replaced):
        await events(kv, after, 1)
    return True


def test_wiped_store_is_another_at_its_first_revision() -> None:
    async def run() -> None:
        cluster = MemoryCluster()
        kv = MemoryKV(cluster)
        await kv.commit([], [Put(key("a"), b"1")])
        cluster.wipe(cluster_id=2)

        assert await kv.identity() == Identity(2, 1)
        assert await kv.get(key("a")) is None

    asyncio.run(run())
