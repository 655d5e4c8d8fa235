from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from ipam.calls import Claim
from ipam.cluster import PoolState
from ipam.memory_kv import Faults
from ipam.refusals import (
    Exhausted,
    Invalid,
    Stale,
    Unknown,
)
from tests.unit.ipam.ipamd_cases import FOUR, SIX, Site, faults, node, release, site


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin()
        yield made


def test_claim_gives_one_block_of_each_family_in_one_transaction(cluster: Site) -> None:
    cluster.register(node("a"))
    before = cluster.replicas[0].counts().transactions

    got = cluster.claim("a")

    assert [held.pool for held in got.blocks] == ["four", "six"]
    assert cluster.replicas[0].counts().transactions == before + 1
    assert {held.revision for held in got.blocks} == {cluster.store.revision}


def test_repeated_claim_is_answered_with_the_same_blocks_by_any_replica(cluster: Site) -> None:
    cluster.register(node("a"))

    first = cluster.claim("a", "same")
    again = cluster.claim("a", "same", at=1)

    assert again.blocks == first.blocks


def test_replica_that_has_not_seen_a_claim_cannot_carry_it_out_again(cluster: Site) -> None:
    cluster.register(node("a"))
    call = Claim(node="a", uid="uid-a", epoch=1, nonce="same")
    cluster.follow()

    first = cluster.run(cluster.replicas[0].claim(call))
    again = cluster.run(cluster.replicas[1].claim(call))

    assert again.blocks == first.blocks


@pytest.mark.parametrize("applied", [True, False])
def test_claim_whose_answer_was_lost_is_read_back(cluster: Site, applied: bool) -> None:
    cluster.register(node("a"))
    faults(cluster, 0, Faults(lost=(applied,)))

    got = cluster.claim("a")
    cluster.follow()

    assert len(cluster.replicas[0].replica.view.blocks) == len(got.blocks) == 2


def test_two_nodes_never_share_and_the_last_block_goes_too(cluster: Site) -> None:
    got = []
    for number in range(4):
        cluster.register(node(f"n{number}"), number % 2)
        got += cluster.claim(f"n{number}", at=number % 2).blocks
    cluster.register(node("late"))

    assert len({held.cidr for held in got}) == 8
    with pytest.raises(Exhausted, match=r"no free block of IPv4 for node late in four \(10.0.0.0"):
        cluster.claim("late")


def test_node_cannot_have_more_blocks_than_the_limit(cluster: Site) -> None:
    cluster.do(lambda a: a.change_settings(blocks_per_node=1))
    cluster.register(node("a"))
    cluster.claim("a", "1")

    with pytest.raises(Exhausted, match="has 1 blocks of IPv4, the limit"):
        cluster.claim("a", "2", at=1)


def test_claim_of_an_unknown_node_or_epoch_says_to_register(cluster: Site) -> None:
    with pytest.raises(Stale, match="register"):
        cluster.claim("nobody")
    cluster.register(node("a"))
    with pytest.raises(Stale, match="epoch 1, not 7"):
        cluster.claim("a", epoch=7)


def test_pool_can_be_asked_for_by_name(cluster: Site) -> None:
    cluster.register(node("a"))
    wanted = Claim(node="a", uid="uid-a", epoch=1, nonce="x", families=(4,), pool="four")

    assert cluster.do(lambda a: a.claim(wanted)).blocks[0].pool == "four"
    with pytest.raises(Unknown, match="no pool eight"):
        cluster.do(lambda a: a.claim(replace(wanted, nonce="y", pool="eight")))
    with pytest.raises(Exhausted, match="pool six is not active, of IPv4"):
        cluster.do(lambda a: a.claim(replace(wanted, nonce="y", pool="six")))


def test_claim_without_nonce_or_family_is_invalid(cluster: Site) -> None:
    for wrong in ({"nonce": ""}, {"families": ()}, {"families": (5,)}):
        fields = {"node": "a", "uid": "u", "epoch": 1, "nonce": "x"} | wrong
        with pytest.raises(Invalid):
            cluster.do(lambda a, f=fields: a.claim(Claim(**f)))  # type: ignore[arg-type, misc]


def test_disabled_pool_gives_nothing(cluster: Site) -> None:
    cluster.do(lambda a: a.put_pool(replace(FOUR, state=PoolState.DISABLED)))
    cluster.register(node("a"))

    with pytest.raises(Exhausted, match="no pool is active"):
        cluster.claim("a")


def test_release_from_before_a_recovery_frees_nothing_after_it(cluster: Site) -> None:
    cluster.register(node("a"))
    held = cluster.claim("a", "1").blocks

    with pytest.raises(Stale, match="generation old is over"):
        cluster.do(lambda a: a.release(release(a, "a", *held, generation="old")))


def test_late_copy_of_a_release_does_not_free_the_same_nodes_next_grant(cluster: Site) -> None:
    cluster.register(node("a"))
    old = cluster.claim("a", "1").blocks
    cluster.do(lambda a: a.release(release(a, "a", *old)))
    cluster.rest()
    new = cluster.claim("a", "2").blocks

    cluster.do(lambda a: a.release(release(a, "a", *old)))
    cluster.follow()

    assert [held.cidr for held in new] == [held.cidr for held in old]
    assert {b.state for b in cluster.replicas[0].replica.view.blocks.values()} == {"active"}


def test_partly_reserved_block_is_given_with_what_is_reserved(tmp_path: Path) -> None:
    reserved = (ip_network("10.0.0.0/26"), ip_network("10.0.0.64/30"))
    pool = replace(FOUR, cidr=ip_network("10.0.0.0/25"), reservations=reserved)
    with site(tmp_path) as made:
        made.begin(pool, SIX)
        made.register(node("a"))

        held = made.claim("a").blocks[0]

        assert (held.cidr, held.reserved) == (ip_network("10.0.0.64/26"), reserved[1:])
