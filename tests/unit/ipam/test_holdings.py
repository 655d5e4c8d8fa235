"""What a node makes of ipamd's answers."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from ipam.calls import Claimed, Held, Registered
from ipam.cluster import BlockState, NodeState
from ipam.holdings import Holdings, OwnBlock, OwnState, claimed, registered, returning, without

BOOT, AGAIN = "boot-1", "boot-2"
CIDR, OTHER, SIX = map(ip_network, ("10.0.0.0/26", "10.0.0.64/26", "fd00::/122"))


def own(*blocks: OwnBlock, **more: object) -> Holdings:
    usual: dict[str, object] = {"epoch": 1, "generation": "g", "counter": 5}
    return Holdings(uid="u", blocks=blocks, **(usual | more))  # type: ignore[arg-type]


def block(cidr: object = CIDR, **more: object) -> OwnBlock:
    usual: dict[str, object] = {"cidr": cidr, "pool": "p", "epoch": 1, "revision": 3}
    return OwnBlock(**(usual | more))  # type: ignore[arg-type]


def held(cidr: object = CIDR, **more: object) -> Held:
    usual: dict[str, object] = {"cidr": cidr, "pool": "p", "epoch": 1, "revision": 3}
    return Held(**(usual | more))  # type: ignore[arg-type]


def reply(*blocks: Held, **more: object) -> Registered:
    usual: dict[str, object] = {
        "epoch": 1,
        "generation": "g",
        "counter": 5,
        "node_state": NodeState.ACTIVE,
    }
    return Registered(blocks=blocks, **(usual | more))  # type: ignore[arg-type]


def states(found: Holdings) -> dict[str, str]:
    return {str(one.cidr): one.state.value for one in found.blocks}


def test_the_first_answer_makes_the_node_one_of_a_cluster() -> None:
    found = registered(Holdings(uid="u"), reply(counter=9, unconfirmed_boots=True), BOOT)

    assert found == Holdings(
        uid="u",
        epoch=1,
        generation="g",
        counter=9,
        confirmed_boot=BOOT,
        unconfirmed_boots=True,
    )


def test_a_block_that_is_listed_stays_and_one_that_is_not_is_lost() -> None:
    found = registered(own(block(), block(OTHER)), reply(held()), BOOT)

    assert states(found) == {str(CIDR): "active", str(OTHER): "lost"}
    assert found.find(OTHER) == block(OTHER, state=OwnState.LOST)
    assert found.find(SIX) is None


def test_a_block_whose_claim_was_never_answered_is_taken_up() -> None:
    found = registered(own(), reply(held(), held(SIX, pool="q")), BOOT)

    assert found.blocks == (block(), block(SIX, pool="q"))


@pytest.mark.parametrize(
    ("blocks", "pool", "default"),
    [
        ((), "p", True),
        ((block(OTHER),), "p", True),
        ((block(OTHER, default=False),), "p", False),
        ((block(OTHER),), "q", False),
        ((block(SIX),), "q", True),
    ],
)
def test_it_is_for_networks_without_a_pool_if_others_like_it_are(
    blocks: tuple[OwnBlock, ...], pool: str, default: bool
) -> None:
    listed = [held(one.cidr, pool=one.pool) for one in blocks]

    found = registered(own(*blocks), reply(*listed, held(pool=pool)), BOOT)

    taken = found.find(CIDR)
    assert taken is not None
    assert taken.default is default
    assert (taken.serves(""), taken.serves(pool), taken.serves("x")) == (default, True, False)


def test_a_block_being_given_back_stays_so_until_it_is_gone_or_granted_anew() -> None:
    going = own(block(state=OwnState.RETURNING))

    same = registered(going, reply(held()), BOOT)
    gone = registered(going, reply(), BOOT)
    quarantined = registered(going, reply(held(state=BlockState.QUARANTINED)), BOOT)
    anew = registered(going, reply(held(revision=8)), BOOT)

    assert same.blocks == going.blocks
    assert gone.blocks == quarantined.blocks == ()
    assert anew.blocks == (block(revision=8),)


def test_a_block_that_ipamd_wants_back_drains_and_may_be_left_again() -> None:
    drained = registered(own(block(default=False)), reply(held(state=BlockState.DRAINING)), BOOT)

    assert drained.blocks == (block(default=False, state=OwnState.DRAINING),)
    assert registered(drained, reply(held()), BOOT).blocks == (block(default=False),)


def test_a_frozen_answer_confirms_nothing_and_gives_nothing() -> None:
    before = own(block(), block(OTHER), confirmed_boot=BOOT)

    found = registered(before, reply(held(SIX), frozen="rolled back", counter=1), AGAIN)
    other = registered(before, reply(frozen="?", epoch=9, generation="other"), AGAIN)

    assert found == other == before


def test_what_an_answer_calls_lost_is_lost_even_of_a_frozen_store() -> None:
    before = own(block(), block(OTHER), block(SIX, state=OwnState.RETURNING), confirmed_boot=BOOT)

    found = registered(before, reply(frozen="rolled back", lost=(CIDR, SIX)), BOOT)

    assert states(found) == {str(CIDR): "lost", str(OTHER): "active"}
    assert (found.epoch, found.confirmed_boot) == (1, BOOT)


def test_a_fence_is_believed_even_of_a_frozen_store() -> None:
    before = own(block(), block(OTHER), block(SIX, state=OwnState.RETURNING), confirmed_boot=BOOT)

    found = registered(before, reply(held(OTHER, epoch=2), epoch=2, frozen="why"), BOOT)

    assert states(found) == {str(CIDR): "lost", str(OTHER): "active"}
    assert (found.epoch, found.confirmed_boot) == (2, "")


def test_a_lost_block_that_is_granted_again_is_a_block_again() -> None:
    lost = own(block(state=OwnState.LOST))

    assert registered(lost, reply(held(revision=9)), BOOT).blocks == (block(revision=9),)
    assert claimed(lost, Claimed(blocks=(held(revision=9),), counter=6), default=True) == own(
        block(revision=9), counter=6
    )


def test_the_counter_only_grows_within_a_generation() -> None:
    assert registered(own(counter=9), reply(counter=7), BOOT).counter == 9
    assert registered(own(counter=9), reply(counter=7, generation="h"), BOOT).counter == 7
    assert claimed(own(counter=9), Claimed(blocks=(), counter=7), default=True).counter == 9


def test_what_a_claim_got_is_kept_for_whom_it_was_asked() -> None:
    got = (held(reserved=(SIX,)), held(OTHER, state=BlockState.DRAINING))

    found = claimed(own(block(SIX)), Claimed(blocks=got, counter=6), default=False)

    assert found.blocks == (block(SIX), block(reserved=(SIX,), default=False))


def test_a_late_answer_to_a_claim_gives_nothing_of_another_epoch_or_on_its_way_back() -> None:
    before = own(block(state=OwnState.RETURNING), epoch=2)
    late = Claimed(blocks=(held(epoch=2), held(OTHER)), counter=6)

    assert claimed(before, late, default=True) == replace(before, counter=6)


def test_ipamd_is_told_all_but_what_is_lost() -> None:
    before = own(
        block(state=OwnState.DRAINING, reserved=(SIX,)),
        block(OTHER, state=OwnState.LOST),
        block(SIX, state=OwnState.RETURNING),
    )

    assert before.told() == (
        held(reserved=(SIX,)),
        held(SIX, state=BlockState.DRAINING),
    )


def test_returning_and_forgetting_are_of_one_grant() -> None:
    before = own(block(), block(OTHER))

    going = returning(before, {OTHER})
    late = replace(going, blocks=(block(), block(OTHER, revision=9)))

    assert states(going) == {str(CIDR): "active", str(OTHER): "returning"}
    assert without(going, going.of_state(OwnState.RETURNING)).blocks == (block(),)
    assert without(late, going.of_state(OwnState.RETURNING)) == late
