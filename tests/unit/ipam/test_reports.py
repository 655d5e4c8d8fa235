from dataclasses import replace
from ipaddress import ip_address, ip_network

from ipam.calls import Audit, Finding, FindingKind, Held, MirroredLease
from ipam.cluster import BlockState
from ipam.reports import MOST, Answers, both, compare
from tests.unit.ipam.test_audit import BLOCK, LEASE, store

CIDR = BLOCK.cidr


def held(all_revision: int, **more: object) -> Held:
    base = Held(cidr=CIDR, pool="p", epoch=1, revision=all_revision)
    return replace(base, **more)  # type: ignore[arg-type]


SAID = Audit(node="a", uid="u", epoch=1, audit="x", blocks=(held(1),), leases=(LEASE,))


def found(*said: Audit, **more: object) -> list[tuple[str, str, str]]:
    answers = Answers({one.node: one for one in said}, **more)  # type: ignore[arg-type]
    return [(one.kind.value, one.subject, one.text) for one in compare(store(), answers)]


def test_nodes_that_say_what_the_store_says_are_well() -> None:
    assert found(SAID) == []


def test_a_block_that_its_node_does_not_know_is_a_leak() -> None:
    assert found(replace(SAID, blocks=())) == [
        ("leak", str(CIDR), "of a, which does not know it, and will when it registers")
    ]


def test_a_block_used_by_a_node_whose_it_is_not_is_named_with_its_owner() -> None:
    stranger = Audit(node="b", uid="v", epoch=1, audit="x", blocks=(held(1),))
    unknown = replace(stranger, blocks=(held(1, cidr=ip_network("10.0.1.0/26")),))
    former = replace(SAID, blocks=(held(9),))
    returning = replace(stranger, blocks=(held(1, state=BlockState.DRAINING),))

    assert found(SAID, stranger) == [("duplicate", str(CIDR), "used by b, and a's")]
    assert found(SAID, unknown) == [("orphan", "10.0.1.0/26", "used by b, and nobody's")]
    assert found(former) == [
        ("duplicate", str(CIDR), "used by a, which gave it back: it is active, of revision 1")
    ]
    assert found(SAID, returning) == []


def test_a_block_that_its_node_wrote_again_after_a_loss_is_its_own() -> None:
    again = store(block=replace(BLOCK, nonce=""))
    former = replace(SAID, blocks=(held(9),))

    assert compare(again, Answers({"a": former})) == ()


def test_a_mirror_that_is_behind_is_named_lease_by_lease() -> None:
    moved = replace(LEASE, addresses=(ip_address("10.0.0.3"),))
    more = replace(LEASE, container_id="c2", addresses=(ip_address("10.0.0.4"),), pod="")

    assert found(replace(SAID, leases=())) == [
        ("lag", "a", "ns/web-0 on a is in its mirror, and is no more")
    ]
    assert found(replace(SAID, leases=(LEASE, more))) == [
        ("lag", "a", "net/c2/eth0 on a is not in its mirror")
    ]
    assert found(replace(SAID, leases=(moved,))) == [
        ("lag", "a", "ns/web-0 on a has 10.0.0.3, and 10.0.0.2 in its mirror")
    ]


def test_an_address_that_two_say_they_have_is_a_duplicate_though_the_mirrors_do_not_know() -> None:
    twin = replace(LEASE, container_id="c2", pod="")
    other = Audit(node="b", uid="v", epoch=1, audit="x", leases=(twin,))

    assert (
        "duplicate",
        "10.0.0.2",
        "held by ns/web-0 on a and by net/c2/eth0 on b, as they say themselves",
    ) in found(SAID, other)


def test_who_did_not_answer_is_said_and_what_a_node_finds_itself() -> None:
    unreadable = Audit(node="b", uid="", epoch=0, audit="", problems=("answer unreadable: x",))

    assert found(silent=frozenset({"a", "gone"})) == [
        ("silent", "a", "alive, and did not say what it holds: its own store was not looked at")
    ]
    assert found(trouble="no etcd") == [
        ("silent", "nodes", "could not be asked what they hold: no etcd")
    ]
    assert found(SAID, unreadable) == [("trouble", "b", "answer unreadable: x")]


def test_only_what_is_seen_twice_is_told_and_not_without_end() -> None:
    many = [
        Finding(kind=FindingKind.LAG, subject="a", text=f"lease {number}") for number in range(50)
    ]
    alone = Finding(kind=FindingKind.SILENT, subject="b", text="t")
    told = both([*many, alone], [alone, *many[1:], replace(alone, text="new")])

    assert alone in told
    assert [one.text for one in told if one.kind is FindingKind.LAG][-1] == (
        f"and {49 - MOST} more like these"
    )
    assert len(told) == 1 + MOST + 1


def test_addresses_of_one_lease_are_not_their_own_duplicates() -> None:
    dual = MirroredLease(
        network="net",
        container_id="c1",
        ifname="eth0",
        addresses=LEASE.addresses,
        pod="ns/web-0",
    )

    assert found(replace(SAID, leases=(dual,))) == []
