"""The records of cluster IPAM as values, and what they are when nothing is said."""

import dataclasses
from ipaddress import ip_network

import pytest

from ipam.cluster import BlockState, Config, Meta, Node, NodeState, Pool, PoolState


def test_a_new_cluster_has_no_pools_and_lets_nobody_serve_unconfirmed() -> None:
    settings = Config().settings

    assert Config().pools == ()
    assert not settings.unconfirmed_boots
    assert not settings.node_deletion_fences
    assert settings.silence_s == 0


def test_states_are_spelled_as_they_are_stored() -> None:
    assert [state.value for state in BlockState] == ["active", "draining", "quarantined"]
    assert [state.value for state in NodeState] == ["active", "draining", "fenced"]
    assert [state.value for state in PoolState] == ["active", "disabled", "draining"]


def test_records_cannot_be_changed_in_place() -> None:
    pool = Pool(name="a", cidr=ip_network("10.0.0.0/16"), block_length=26)
    node = Node(name="n1", uid="u", epoch=1, boot_id="b")

    for record, name in ((pool, "state"), (node, "epoch"), (Meta(generation="g"), "generation")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)
