from dataclasses import replace
from ipaddress import ip_network

import pytest

from ipam.calls import Held, Register
from ipam.cluster import NODE_UID, Block, BlockState, Meta, Node, NodeState
from ipam.keys import Alive
from ipam.refusals import Forbidden, SecondBoot
from ipam.registration import Known, plan
from ipam.texts import fault_of

CIDR = ip_network("10.0.0.0/26")
BLOCK = Block(cidr=CIDR, pool="p", node="a", uid="u", epoch=1, nonce="n")
HELD = Held(cidr=CIDR, pool="p", epoch=1, revision=5)
NODE = Node(name="a", uid="u", epoch=1, boot_id="b")
ASKED = Register(
    node="a", uid="u", boot_id="b", instance="i", epoch=1, generation="g", blocks=(HELD,)
)


def known(node: Node | None = NODE, *blocks: Block, **fields: object) -> Known:
    base = Known(
        meta=Meta(generation="g"),
        node=node,
        alive=None,
        counter=10,
        blocks={block.cidr: block for block in blocks},
        unconfirmed_boots=False,
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def test_new_node_begins_with_epoch_one() -> None:
    new = replace(ASKED, epoch=0, generation="", blocks=())

    made = plan(new, known(None))

    assert (made.node.epoch, made.node.state, made.freeze) == (1, NodeState.ACTIVE, "")


@pytest.mark.parametrize(
    ("asked", "there", "handed_back"),
    [
        (replace(ASKED, blocks=()), NODE, True),
        (replace(ASKED, blocks=(replace(HELD, state=BlockState.DRAINING),)), NODE, True),
        (replace(ASKED, blocks=()), None, True),
        (ASKED, NODE, False),
        (replace(ASKED, epoch=0, generation="", blocks=()), None, False),
    ],
)
def test_what_others_remembered_as_the_nodes_is_handed_back_by_its_word(
    asked: Register, there: Node | None, handed_back: bool
) -> None:
    remembered = replace(BLOCK, uid="", pool="")

    made = plan(asked, known(there, remembered))

    quarantined = replace(remembered, uid="u", state=BlockState.QUARANTINED)
    assert (made.blocks == (quarantined,)) == handed_back


def test_name_whose_record_was_edited_is_not_given_to_a_new_node() -> None:
    with pytest.raises(Forbidden, match="the record of node a was edited"):
        plan(replace(ASKED, epoch=0, generation="", blocks=()), known(None, edited=True))


def test_node_that_is_as_it_was_changes_nothing() -> None:
    same = plan(ASKED, known(NODE, BLOCK))

    assert (same.node, same.blocks, same.lost, same.freeze) == (NODE, (), (), "")


@pytest.mark.parametrize(
    ("asked", "there", "why"),
    [
        (ASKED, known(None), "misses its own record"),
        (replace(ASKED, epoch=2), known(NODE, BLOCK), "has epoch 2, above the store's 1"),
        (ASKED, known(NODE), "misses its block 10.0.0.0/26"),
        (ASKED, known(NODE, replace(BLOCK, node="b")), "finds its block 10.0.0.0/26 with b"),
        (
            replace(ASKED, generation="h"),
            known(NODE, BLOCK),
            "remembers generation h, and the",
        ),
        (replace(ASKED, counter=11), known(NODE, BLOCK), "remembers 11 claims, and the store 10"),
    ],
)
def test_what_only_a_rollback_explains_freezes_claims(
    asked: Register, there: Known, why: str
) -> None:
    assert why in plan(asked, there).freeze


def test_whole_list_of_what_is_missing_is_told_in_one_text() -> None:
    cidrs = ip_network("10.0.0.0/20").subnets(new_prefix=26)
    asked = replace(ASKED, blocks=tuple(replace(HELD, cidr=cidr) for cidr in cidrs))

    made = plan(asked, known())

    assert len(made.blocks) == 64
    assert made.freeze.startswith("node a misses its block 10.0.0.0/26; misses")
    assert fault_of(made.freeze) == ""


def test_missing_block_is_written_again_and_never_over_another() -> None:
    missing = plan(ASKED, known(NODE))
    taken = plan(ASKED, known(NODE, replace(BLOCK, node="b")))
    wider = Block(cidr=ip_network("10.0.0.0/24"), pool="p", node="b", uid="v", epoch=1, nonce="m")
    across = plan(ASKED, known(NODE, wider))

    assert missing.blocks == (replace(BLOCK, nonce=""),)
    assert (taken.blocks, taken.lost) == ((), (CIDR,))
    assert (across.blocks, across.lost) == ((), (CIDR,))


def test_after_a_recovery_what_was_remembered_before_is_forgiven() -> None:
    recovered = known(None, meta=Meta(generation="h", previous=("g",)))

    found = plan(replace(ASKED, counter=99), recovered)

    assert found.freeze == ""
    assert [block.cidr for block in found.blocks] == [CIDR]


def test_fenced_node_that_comes_back_takes_up_what_was_not_freed() -> None:
    fenced = replace(NODE, epoch=2, state=NodeState.FENCED, fenced_by="op", wiped=True)
    rest = replace(BLOCK, state=BlockState.QUARANTINED)

    back = plan(ASKED, known(fenced, rest))
    late = plan(ASKED, known(fenced))

    assert (back.node.epoch, back.node.wiped) == (2, False)
    assert back.blocks == (replace(BLOCK, epoch=2),)
    assert (late.blocks, late.lost, late.freeze) == ((), (CIDR,), "")


def test_fence_is_over_once_the_nodes_own_store_has_the_new_epoch() -> None:
    fenced = replace(NODE, epoch=2, state=NodeState.FENCED, fenced_by="op")
    anew = replace(ASKED, uid="v", epoch=0, generation="", blocks=())

    told = [plan(replace(ASKED, epoch=epoch), known(fenced, BLOCK)).node for epoch in (1, 2)]
    first = plan(anew, known(fenced, BLOCK)).node
    second = plan(replace(anew, epoch=3), known(first, BLOCK)).node

    assert [(one.state, one.fenced_by) for one in told] == [
        (NodeState.FENCED, "op"),
        (NodeState.ACTIVE, ""),
    ]
    assert [(one.state, one.epoch) for one in (first, second)] == [
        (NodeState.FENCED, 3),
        (NodeState.ACTIVE, 3),
    ]


def test_block_that_is_being_given_back_is_lost_without_alarm() -> None:
    leaving = replace(ASKED, blocks=(replace(HELD, state=BlockState.DRAINING),))
    fenced = replace(NODE, epoch=2, state=NodeState.FENCED)

    for there in (known(NODE), known(NODE, replace(BLOCK, node="b")), known(fenced, BLOCK)):
        found = plan(leaving, there)
        assert (found.blocks, found.lost, found.freeze) == ((), (CIDR,), "")


def test_block_that_was_handed_back_is_not_served_again() -> None:
    given = replace(BLOCK, state=BlockState.QUARANTINED)

    assert plan(ASKED, known(NODE, given)).lost == (CIDR,)


def test_block_that_another_node_vouched_for_becomes_its_owners_again() -> None:
    vouched = replace(BLOCK, uid="", pool="")

    assert plan(ASKED, known(NODE, vouched)).blocks == (BLOCK,)


@pytest.mark.parametrize(
    "alive",
    [
        Alive(instance="j", boot_id="other", uid="u"),
        Alive(instance="j", boot_id="b", uid="other"),
    ],
)
def test_second_boot_or_store_that_is_alive_is_refused(alive: Alive) -> None:
    with pytest.raises(SecondBoot):
        plan(ASKED, known(NODE, BLOCK, alive=alive))


def test_another_instance_of_the_same_boot_is_a_restart() -> None:
    alive = Alive(instance="j", boot_id="b", uid="u")

    assert plan(ASKED, known(NODE, BLOCK, alive=alive)).freeze == ""


def test_another_store_gets_the_name_only_where_the_former_holds_nothing() -> None:
    anew = replace(ASKED, uid="v", epoch=0, generation="", blocks=())

    with pytest.raises(Forbidden, match=r"holds 10.0.0.0/26\. .*: isthmus ipam drain a --fenced"):
        plan(anew, known(NODE, BLOCK))
    assert plan(anew, known(NODE)).node.epoch == 2
    fenced = replace(NODE, epoch=2, state=NodeState.FENCED)
    assert plan(anew, known(fenced, BLOCK)).node.epoch == 3
    with pytest.raises(Forbidden, match="holds"):
        plan(anew, known(fenced, replace(BLOCK, epoch=2)))


def test_record_of_another_store_is_kept_where_the_store_is_not_trusted() -> None:
    back = replace(ASKED, uid="v", epoch=4, blocks=())

    found = plan(back, known(NODE))

    assert found.freeze
    assert found.keep


def test_node_once_told_of_unconfirmed_boots_stays_marked() -> None:
    told = plan(ASKED, known(NODE, BLOCK, unconfirmed_boots=True)).node

    assert told.unconfirmed
    assert plan(ASKED, known(told, BLOCK)).node.unconfirmed


@pytest.mark.parametrize(
    ("by", "uid", "state"),
    [
        ("Kubernetes: Node u-1 deleted", "u-2", NodeState.ACTIVE),
        ("Kubernetes: Node u-1 deleted", "u-1", NodeState.DRAINING),
        ("Kubernetes: Node u-1 deleted", "", NodeState.DRAINING),
        ("isthmus:admin:eva", "u-2", NodeState.DRAINING),
    ],
)
def test_a_drain_for_a_deleted_node_object_ends_with_another_one(
    by: str, uid: str, state: NodeState
) -> None:
    labels = {NODE_UID: "u-1"}
    drained = replace(NODE, state=NodeState.DRAINING, drained_by=by, labels=labels)
    asked = replace(ASKED, labels={NODE_UID: uid} if uid else {})

    found = plan(asked, known(drained, BLOCK)).node

    assert found.state is state
    assert found.drained_by == ("" if state is NodeState.ACTIVE else by)


@pytest.mark.parametrize("there", [None, replace(NODE, epoch=3)])
def test_what_is_pinned_to_the_node_is_its_own_once_it_registers(there: Node | None) -> None:
    pinned = replace(BLOCK, cidr=ip_network("10.0.1.0/26"), uid="", epoch=0)
    others = replace(pinned, cidr=ip_network("10.0.2.0/26"), node="b")

    made = plan(
        replace(ASKED, epoch=there.epoch if there else 0, blocks=()), known(there, pinned, others)
    )

    assert made.blocks == (replace(pinned, uid="u", epoch=made.node.epoch),)


def test_what_is_pinned_to_a_node_that_drains_goes_on_to_wait() -> None:
    pinned = replace(BLOCK, uid="", epoch=0)

    made = plan(replace(ASKED, blocks=()), known(replace(NODE, state=NodeState.DRAINING), pinned))

    assert made.blocks == ()
