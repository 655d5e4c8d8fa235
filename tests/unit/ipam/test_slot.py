"""What one key claims."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface

from ipam.leases import Lease
from ipam.slot import Slot
from tests.unit.ipam.cases import record, who


def test_slot_claims_what_is_durable_promised_or_chosen() -> None:
    durable = record(who(1), "10.0.0.2/24")
    current = replace(durable, addresses=(ip_interface("10.0.0.3/24"),))
    chosen = Lease(ip_interface("10.0.0.4/24"), None, reused=False)

    slot = Slot(durable=durable, current=current, leases=(chosen,))

    assert slot.claims() == {ip_address(f"10.0.0.{last}") for last in (2, 3, 4)}


def test_slot_owns_for_its_next_add_what_is_promised_or_chosen() -> None:
    current = record(who(1), "10.0.0.3/24")
    chosen = Lease(ip_interface("10.0.0.4/24"), None, reused=False)

    slot = Slot(durable=record(who(1), "10.0.0.2/24"), current=current, leases=(chosen,))

    assert slot.own() == {ip_address("10.0.0.3"): True, ip_address("10.0.0.4"): False}
