from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from ipam.calls import Drain
from ipam.cluster import BlockState, NodeState, PoolState
from ipam.refusals import (
    Forbidden,
)
from tests.unit.ipam.ipamd_cases import FOUR, Site, node, release, site


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin()
        yield made


def test_draining_pool_wants_its_blocks_back_and_a_node_gets_others(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.claim("a")
    other = replace(FOUR, name="other", cidr=ip_network("10.0.1.0/24"))
    cluster.do(lambda a: a.put_pool(other, create=True))
    cluster.do(lambda a: a.change_pool("four", state=PoolState.DRAINING))
    cluster.do(lambda a: a.tick())
    drained = cluster.register(node("a")).blocks
    fresh = cluster.claim("a", "y").blocks
    cluster.do(lambda a: a.change_pool("four", state=PoolState.ACTIVE))
    cluster.do(lambda a: a.tick())

    assert {b.pool: b.state for b in drained} == {
        "four": BlockState.DRAINING,
        "six": BlockState.ACTIVE,
    }
    assert [block.pool for block in fresh if block.cidr.version == 4] == ["other"]
    assert {block.state for block in cluster.register(node("a")).blocks} == {BlockState.ACTIVE}


def test_released_block_rests_and_is_then_free(cluster: Site) -> None:
    cluster.register(node("a"))
    held = cluster.claim("a").blocks

    cluster.do(lambda a: a.release(release(a, "a", *held)))
    cluster.do(lambda a: a.tick())
    resting = set(cluster.replicas[0].replica.view.blocks.values())
    cluster.rest()

    assert {block.state for block in resting} == {BlockState.QUARANTINED}
    assert not cluster.replicas[0].replica.view.blocks


def test_restart_begins_the_quarantine_anew(cluster: Site) -> None:
    cluster.register(node("a"))
    held = cluster.claim("a").blocks
    cluster.do(lambda a: a.release(release(a, "a", *held)))
    cluster.do(lambda a: a.tick())
    cluster.now += 59
    cluster.replicas[0] = cluster.replica("0")

    cluster.do(lambda a: a.tick())
    cluster.now += 59
    cluster.do(lambda a: a.tick())
    cluster.follow()

    assert len(cluster.replicas[0].replica.view.blocks) == 2


def test_draining_node_gets_no_blocks_and_undo_gives_them_back(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.claim("a", "1")

    drained = cluster.do(lambda a: a.drain(Drain(node="a")))
    cluster.do(lambda a: a.tick())
    with pytest.raises(Forbidden, match="draining"):
        cluster.claim("a", "2")
    draining = {block.state for block in cluster.replicas[0].replica.view.blocks.values()}
    cluster.do(lambda a: a.drain(Drain(node="a", undo=True)))
    cluster.do(lambda a: a.tick())

    assert drained.state is NodeState.DRAINING
    assert draining == {BlockState.DRAINING}
    states = {block.state for block in cluster.replicas[0].replica.view.blocks.values()}
    assert states == {BlockState.ACTIVE}


def test_silence_alone_never_frees(cluster: Site) -> None:
    cluster.do(lambda a: a.change_settings(silence_s=30.0))
    cluster.register(node("a"))
    cluster.claim("a")
    for _ in range(20):
        cluster.now += 100
        cluster.do(lambda a: a.tick())
    cluster.follow()

    states = {block.state for block in cluster.replicas[0].replica.view.blocks.values()}
    assert states == {BlockState.DRAINING}
    cluster.register(node("a", epoch=1))
    cluster.do(lambda a: a.tick())
    states = {block.state for block in cluster.replicas[0].replica.view.blocks.values()}
    assert states == {BlockState.ACTIVE}
