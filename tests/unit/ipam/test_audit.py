from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ipam.audit import Whole, check, show, whole
from ipam.calls import FindingKind, MirroredLease
from ipam.cluster import Block, BlockState, Config, Meta, Node, NodeState, Pool
from ipam.keys import Alive, Keys, MirrorHead, Record, write
from ipam.kv import Entry, Listing
from ipam.refusals import Forbidden, Invalid

KEYS = Keys("c")
POOL = Pool(name="p", cidr=ip_network("10.0.0.0/22"), block_length=26)
NODE = Node(name="a", uid="u", epoch=1, boot_id="b")
BLOCK = Block(cidr=ip_network("10.0.0.0/26"), pool="p", node="a", uid="u", epoch=1, nonce="n")
LEASE = MirroredLease(
    network="net",
    container_id="c1",
    ifname="eth0",
    addresses=(ip_address("10.0.0.2"),),
    pod="ns/web-0",
)
WELL: dict[str, Record] = {
    KEYS.config: Config(pools=(POOL,)),
    KEYS.node("a"): NODE,
    KEYS.alive("a"): Alive(instance="i", boot_id="b", uid="u"),
    KEYS.block(BLOCK.cidr): BLOCK,
    KEYS.lease("a", LEASE): LEASE,
    KEYS.mirror("a"): MirrorHead("u", 1, 4),
}


def store(*without: str, raw: tuple[str, bytes] | None = None, **more: Record) -> Whole:
    """What is well, less some keys, with others by number."""
    records = {key: write(record) for key, record in WELL.items() if key not in without}
    for record in more.values():
        match record:
            case Block():
                records[KEYS.block(record.cidr)] = write(record)
            case Node():
                records[KEYS.node(record.name)] = write(record)
            case MirrorHead():
                records[KEYS.mirror("a")] = write(record)
            case MirroredLease():
                records[KEYS.lease("b", record)] = write(record)
    records |= dict([raw] if raw else [])
    entries = (
        Entry(key=key, value=value, create_revision=1, mod_revision=number, version=1, lease=1)
        for number, (key, value) in enumerate(sorted(records.items()), 1)
    )
    return whole(KEYS, Listing(tuple(entries), 100))


def kinds(all_: Whole) -> list[tuple[str, str]]:
    return [(found.kind.value, found.subject) for found in check(all_, "")]


def test_nothing_is_found_where_all_is_well() -> None:
    assert check(store(), "") == ()


def test_frozen_claims_are_a_finding() -> None:
    (found,) = check(store(), "went back")

    assert (found.kind, found.text) == (FindingKind.FROZEN, "went back")


def test_an_ipamd_that_cannot_remember_is_a_finding() -> None:
    (found,) = check(store(), "", "cannot write memory: no space left")

    assert (found.kind, found.subject) == (FindingKind.TROUBLE, "ipamd")
    assert "cannot write memory: no space left" in found.text


def test_the_generation_is_shown() -> None:
    begun = store(raw=(KEYS.meta, write(Meta(generation="f00d"))))

    assert show(begun, "generation", "") == "f00d"


@pytest.mark.parametrize("key", [KEYS.state + "tomato", KEYS.root + "tomato", KEYS.mirror("b")])
def test_foreign_key_is_named(key: str) -> None:
    assert kinds(store(raw=(key, b"\xff"))) == [("foreign", key)]


def test_address_held_twice_is_a_duplicate_on_both_counts() -> None:
    found = check(store(other=replace(LEASE, container_id="c2", pod="")), "")

    assert [(one.kind.value, one.subject) for one in found] == [("duplicate", "10.0.0.2")] * 2
    assert "ns/web-0 on a and by net/c2/eth0 on b" in found[0].text
    assert "in block 10.0.0.0/26 of a" in found[1].text


def test_lease_in_no_block_is_an_orphan_and_one_in_no_pool_is_not_ours() -> None:
    inside = replace(LEASE, container_id="c2", addresses=(ip_address("10.0.1.9"),))
    outside = replace(LEASE, container_id="c3", addresses=(ip_address("192.0.2.9"),))

    assert kinds(store(one=inside, two=outside)) == [("orphan", "10.0.1.9")]


def test_block_of_a_node_without_record_is_an_orphan_for_a_person() -> None:
    found = check(store(KEYS.node("a"), KEYS.mirror("a")), "")

    assert [(one.kind.value, one.mend) for one in found] == [("orphan", "")]
    assert "drain a --fenced" in found[0].text


def test_block_of_a_fenced_node_is_a_leak_that_can_be_mended_at_its_revision() -> None:
    fenced = replace(NODE, epoch=2, state=NodeState.FENCED, fenced_by="bob")
    found = check(store(KEYS.mirror("a"), fenced=fenced), "")

    leak = next(one for one in found if one.kind is FindingKind.LEAK)
    assert leak.mend == "release 10.0.0.0/26"
    assert leak.mod_revision > 0
    (forgotten,) = (one for one in found if one.kind is FindingKind.FORGOTTEN)
    assert forgotten.subject == "a"
    assert forgotten.text == (
        "fenced by bob, 1 block not yet freed; if it never comes back: isthmus ipam drain a "
        "--fenced --wiped"
    )


def test_block_that_was_given_back_and_rests_is_as_it_should_be() -> None:
    assert kinds(store(b=replace(BLOCK, state=BlockState.QUARANTINED))) == []


def test_what_the_pools_would_tell_is_not_told_while_they_cannot_be_read() -> None:
    edited = store(raw=(KEYS.config, b"{"))

    assert kinds(edited) == [("foreign", KEYS.config)]
    assert show(edited, "blocks", "")[0]["node"] == "a"  # type: ignore[index]
    for what, argument in (("pools", ""), ("settings", ""), ("address", "10.0.0.2")):
        with pytest.raises(Forbidden, match="config cannot be read"):
            show(edited, what, argument)


def test_block_of_another_store_of_its_node_is_an_orphan() -> None:
    (found,) = check(store(b=replace(BLOCK, uid="x")), "")

    assert (found.kind, found.subject) == (FindingKind.ORPHAN, "10.0.0.0/26")
    assert "of store x of a, which has store u" in found.text


def test_an_address_of_two_nodes_that_are_alive_is_told() -> None:
    there = (ip_address("192.0.2.1"),)
    alive = write(Alive(instance="i", boot_id="b", uid="v"))
    nodes = {
        "a": replace(NODE, addresses=there),
        "b": replace(NODE, name="b", uid="v", addresses=there),
    }

    assert kinds(store(raw=(KEYS.alive("b"), alive), **nodes)) == [("duplicate", "192.0.2.1")]
    assert kinds(store(**nodes)) == []


def test_blocks_that_overlap_or_are_not_of_their_pool_are_found() -> None:
    wide = replace(BLOCK, cidr=ip_network("10.0.0.0/25"))

    assert set(kinds(store(wide=wide))) == {
        ("overlap", "10.0.0.0/25"),
        ("overlap", "10.0.0.0/26"),
    }


def test_node_that_is_not_heard_and_holds_blocks_is_forgotten() -> None:
    assert kinds(store(KEYS.alive("a"))) == [("forgotten", "a")]


def test_mirror_of_another_epoch_lags() -> None:
    assert kinds(store(head=MirrorHead("u", 0, 1))) == [("lag", "a")]


def test_rows_say_who_has_what() -> None:
    all_ = store()

    assert show(all_, "generation", "") == ""
    assert show(all_, "pools", "")[0]["free"] == 15  # type: ignore[index]
    assert show(all_, "blocks", "")[0]["node"] == "a"  # type: ignore[index]
    assert show(all_, "nodes", "")[0]["blocks"] == ["10.0.0.0/26"]  # type: ignore[index]
    assert show(all_, "pod", "ns/web-0")[0]["container_id"] == "c1"  # type: ignore[index]
    address = show(all_, "address", "10.0.0.2")
    assert address["block"]["cidr"] == "10.0.0.0/26"  # type: ignore[index]
    assert len(address["leases"]) == 1  # type: ignore[index]


@pytest.mark.parametrize(("what", "argument"), [("tomatoes", ""), ("address", "tomato")])
def test_what_cannot_be_shown_is_refused(what: str, argument: str) -> None:
    with pytest.raises(Invalid):
        show(store(), what, argument)


def test_leases_of_a_node_that_was_fenced_hold_nothing_and_can_be_forgotten() -> None:
    fenced = replace(NODE, epoch=2, state=NodeState.FENCED, fenced_by="bob")
    other = replace(BLOCK, node="b", uid="v")
    without = (KEYS.alive("a"),)

    gone = check(store(*without, fenced=fenced, block=other), "")
    forgotten = check(store(*without, KEYS.node("a"), block=other), "")
    alive = check(store(fenced=fenced, block=other), "")

    for found in (gone, forgotten):
        leak = next(one for one in found if one.kind is FindingKind.LEAK and one.subject == "a")
        assert (leak.mend, leak.mod_revision > 0) == ("forget a", True)
        assert FindingKind.DUPLICATE not in {one.kind for one in found}
    assert FindingKind.DUPLICATE in {one.kind for one in alive}


def test_answers_of_an_audit_are_no_foreign_keys() -> None:
    assert kinds(store(raw=(KEYS.answers("x") + "a", b"\xff"))) == []


def test_a_nodes_address_in_a_pool_is_told() -> None:
    found = check(store(node=replace(NODE, addresses=(ip_address("10.0.3.7"),))), "")

    assert ("overlap", "10.0.3.7") in [(one.kind, one.subject) for one in found]
