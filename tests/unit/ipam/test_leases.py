"""The vocabulary of leases."""

from ipaddress import ip_interface

from ipam.leases import Attachment, Lease, Record, State, Wanted
from tests.unit.ipam.cases import range_set


def test_a_key_is_written_as_operators_read_it() -> None:
    assert str(Attachment("shop", "c1", "eth0")) == "shop/c1/eth0"


def test_keys_have_an_order() -> None:
    keys = [Attachment("b", "c", "e"), Attachment("a", "d", "e"), Attachment("a", "c", "f")]

    assert [str(key) for key in sorted(keys)] == ["a/c/f", "a/d/e", "b/c/e"]


def test_a_record_is_held_unless_it_says_otherwise() -> None:
    record = Record(
        who=Attachment("shop", "c1", "eth0"),
        boot_id="b",
        started_ns=1,
        sandbox="/n",
        netns_cookie=0,
    )

    assert (record.state, record.addresses, record.spec) == (State.HELD, (), "{}")


def test_states_are_spelled_as_they_are_stored() -> None:
    assert [str(state) for state in State] == ["held", "reserved"]


def test_nothing_is_requested_or_excluded_unless_said() -> None:
    wanted = Wanted(range_sets=(range_set("10.9.0.0/24"),))

    assert (wanted.requested, wanted.excluded) == ((), ())


def test_equal_leases_are_equal() -> None:
    one, other = (Lease(ip_interface("10.9.0.2/24"), None, reused=True) for _ in range(2))

    assert one == other
