from dataclasses import replace
from ipaddress import ip_network

import pytest

from ipam.cluster import Block, BlockState, Node, NodeState
from ipam.reclaim import Patience, Step, is_fenced, is_forgettable, step

BLOCK = Block(cidr=ip_network("10.0.0.0/26"), pool="p", node="a", uid="u", epoch=1, nonce="n")
NODE = Node(name="a", uid="u", epoch=1, boot_id="b")
FENCED = replace(NODE, epoch=2, state=NodeState.FENCED)
LEAVING = replace(NODE, state=NodeState.DRAINING)
DRAINING = replace(BLOCK, state=BlockState.DRAINING)
QUARANTINED = replace(BLOCK, state=BlockState.QUARANTINED)


@pytest.mark.parametrize(
    ("block", "node", "unwanted", "state"),
    [
        (BLOCK, NODE, True, BlockState.DRAINING),
        (BLOCK, LEAVING, False, BlockState.DRAINING),
        (BLOCK, FENCED, False, BlockState.DRAINING),
        (DRAINING, NODE, False, BlockState.ACTIVE),
        (DRAINING, FENCED, False, BlockState.QUARANTINED),
        (DRAINING, replace(NODE, epoch=2), False, BlockState.QUARANTINED),
    ],
)
def test_next_step(block: Block, node: Node, unwanted: bool, state: BlockState) -> None:
    assert step(block, node, unwanted=unwanted, rested=False) == Step(block, state)


@pytest.mark.parametrize(
    ("block", "node", "unwanted"),
    [
        (BLOCK, NODE, False),
        (DRAINING, NODE, True),
        (DRAINING, LEAVING, True),
        (replace(BLOCK, epoch=2), FENCED, False),
        (QUARANTINED, FENCED, True),
        (BLOCK, None, True),
        (QUARANTINED, None, True),
    ],
)
def test_no_step_without_the_nodes_word_or_a_fence(
    block: Block, node: Node | None, unwanted: bool
) -> None:
    assert step(block, node, unwanted=unwanted, rested=False) is None


def test_quarantined_block_is_freed_once_it_has_rested() -> None:
    assert step(QUARANTINED, NODE, unwanted=False, rested=True) == Step(QUARANTINED, None)


def test_only_a_fenced_and_wiped_node_without_blocks_is_forgotten() -> None:
    wiped = replace(FENCED, wiped=True)

    assert is_forgettable(wiped, ())
    assert not is_forgettable(wiped, (BLOCK,))
    assert not is_forgettable(FENCED, ())
    assert not is_forgettable(replace(NODE, wiped=True), ())


def test_patience_begins_anew_for_what_was_away() -> None:
    patience = Patience()

    patience.watch(["a"], 10.0)
    waited = dict(patience.watch(["a", "b"], 15.0))
    patience.watch([], 20.0)

    assert waited == {"a": 5.0, "b": 0.0}
    assert patience.watch(["a"], 30.0) == {"a": 0.0}


def test_pinned_block_waits_for_its_node_whatever_epoch_that_is_in() -> None:
    pinned = replace(BLOCK, uid="", epoch=0)

    assert not is_fenced(pinned, FENCED)
    assert step(pinned, NODE, unwanted=False, rested=True) is None
