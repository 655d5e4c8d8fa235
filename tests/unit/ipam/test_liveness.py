import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipam.calls import Leave
from ipam.liveness import TTL_S
from ipam.memory_kv import Faults, MemoryKV
from ipam.refusals import SecondBoot
from tests.unit.ipam.ipamd_cases import KEYS, Site, node, site


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin()
        yield made


def alive(cluster: Site, name: str = "a") -> bool:
    cluster.store.expire()
    cluster.follow()
    return cluster.replicas[1].replica.view.alive(name) is not None


def tick(cluster: Site, seconds: float, at: int = 0) -> None:
    cluster.now += seconds
    cluster.do(lambda a: a.tick(), at)


def test_registered_node_is_seen_alive_by_all_and_then_no_more(cluster: Site) -> None:
    cluster.register(node("a"))
    at_once = alive(cluster)
    tick(cluster, TTL_S - 1)
    soon = alive(cluster)
    tick(cluster, 2)

    assert (at_once, soon, alive(cluster)) == (True, True, False)


def test_nodes_that_come_at_once_share_one_lease(cluster: Site) -> None:
    asked: list[str] = []

    async def gate(method: str) -> None:
        asked.append(method)
        await asyncio.sleep(0)

    cluster.follow()
    kv = cluster.replicas[0].replica.kv
    assert isinstance(kv, MemoryKV)
    kv.faults = Faults(gate=gate)

    async def register() -> None:
        await asyncio.gather(*(cluster.replicas[0].register(node(name)) for name in "abcdef"))

    cluster.run(register())

    assert asked.count("grant") == 1


def test_node_that_leaves_is_seen_no_more_and_may_start_anew_at_once(cluster: Site) -> None:
    cluster.register(node("a"))
    leave = Leave(node="a", uid="uid-a", instance="1")
    cluster.do(lambda a: a.leave(leave), 1)
    after = alive(cluster)
    anew = cluster.register(node("a", boot_id="next", instance="2", epoch=1))
    cluster.do(lambda a: a.leave(leave), 1)

    assert not after
    assert anew.epoch == 1
    assert alive(cluster)


def test_node_that_left_by_another_replica_is_not_shown_again(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.do(lambda a: a.leave(Leave(node="a", uid="uid-a", instance="1")), 1)
    tick(cluster, 2)

    assert not alive(cluster)


def test_node_whose_stream_is_open_stays_alive(cluster: Site) -> None:
    cluster.register(node("a"))

    async def watched() -> None:
        stream = cluster.replicas[0].watch("a")
        await anext(stream)
        for _ in range(5):
            cluster.now += TTL_S - 1
            await cluster.replicas[0].tick()
        await stream.aclose()

    cluster.run(watched())
    during = alive(cluster)
    tick(cluster, TTL_S - 1)
    tick(cluster, 2)

    assert during
    assert not alive(cluster)


def test_node_is_alive_no_more_when_its_replica_is_gone(cluster: Site) -> None:
    cluster.register(node("a"))

    tick(cluster, TTL_S + 1, at=1)

    assert not alive(cluster)


def test_replica_whose_lease_ran_out_shows_its_nodes_again(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.now += TTL_S + 1
    lost = alive(cluster)

    async def heard() -> None:
        stream = cluster.replicas[0].watch("a")
        await anext(stream)
        await cluster.replicas[0].tick()
        await stream.aclose()

    cluster.run(heard())

    assert not lost
    assert alive(cluster)


@pytest.mark.parametrize("instance", ["1", "2"])
def test_node_that_moved_to_another_replica_is_not_dropped_by_the_first(
    cluster: Site, instance: str
) -> None:
    cluster.register(node("a"))
    cluster.now += TTL_S - 5
    cluster.register(node("a", instance=instance, epoch=1), at=1)

    tick(cluster, 6, at=0)

    assert alive(cluster)


def test_node_is_shown_with_the_lease_of_the_replica_that_heard_it_last(cluster: Site) -> None:
    leases = []
    for at in (0, 1, 0, 0):
        cluster.register(node("a", epoch=len(leases) and 1), at)
        leases.append(cluster.store.entries[KEYS.alive("a")].lease)

    first, second, third, again = leases
    assert first == third == again != second


@pytest.mark.parametrize("at", [0, 1])
def test_node_is_not_refused_for_a_former_boot_that_a_restored_store_shows_again(
    cluster: Site, at: int
) -> None:
    cluster.register(node("a"))
    cluster.register(node("b"), 1)
    old = cluster.store.snapshot()
    for _ in range(10):  # the leases go on, the node does not
        tick(cluster, 2)
        tick(cluster, 0, at=1)
    booted = node("a", boot_id="next", epoch=1)
    cluster.register(booted, at)
    cluster.store.restore(old, bump=1000)
    with pytest.raises(SecondBoot):
        cluster.register(booted, at)
    for _ in range(2):
        tick(cluster, 2)
        tick(cluster, 0, at=1)

    assert cluster.register(booted, at).epoch == 1
    assert alive(cluster)


def test_node_that_is_only_being_noted_is_shown(cluster: Site) -> None:
    replica = cluster.replicas[0].replica
    remember, seen = replica.keep_memory, []

    async def ticked() -> None:
        await remember()
        replica.keep_memory = remember  # type: ignore[method-assign]
        await cluster.replicas[0]._liveness.renew()
        seen.append(replica.view.alive("a"))

    replica.keep_memory = ticked  # type: ignore[assignment, method-assign]
    cluster.register(node("a"))

    assert None not in seen
    assert seen
