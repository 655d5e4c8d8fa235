"""What a check finds."""

from dataclasses import replace
from ipaddress import ip_address

from ipam.consistency import compare
from ipam.ledger import Ledger
from ipam.slot import Slot
from ipam.store import Released, Snapshot
from tests.unit.ipam.cases import BOOT, record, who

ONE = record(who(1), "10.0.0.2/24")
TWO = record(who(2), "10.0.0.3/24")


def slot_of(durable: object) -> Slot:
    slot = Slot(durable=durable, current=durable)
    slot.addresses = slot.claims()
    return slot


def ledger_of(*records: object) -> Ledger:
    ledger = Ledger(0)
    for each in records:
        for one in each.addresses:
            ledger.take(one.ip, each.who)
    return ledger


def test_nothing_is_wrong_when_all_agree() -> None:
    ledger = ledger_of(ONE, TWO)
    ledger.free(ip_address("10.0.0.9"), 1)
    history = (Released(ip_address("10.0.0.9"), BOOT, 1),)

    found = compare(
        Snapshot((ONE, TWO), history), {ONE.who: slot_of(ONE), TWO.who: slot_of(TWO)}, ledger
    )

    assert found == []


def test_record_missing_on_either_side_or_different_is_named() -> None:
    changed = replace(TWO, started_ns=99)
    three = record(who(3))
    slots = {ONE.who: slot_of(ONE), TWO.who: slot_of(TWO)}

    assert compare(Snapshot((changed, three)), slots, ledger_of(ONE, TWO)) == [
        "web/container-1/eth0: in memory, not in the store",
        "web/container-2/eth0: memory and store differ",
        "web/container-3/eth0: in the store, not in memory",
    ]


def test_address_of_two_keys_is_named_with_both() -> None:
    twin = replace(TWO, addresses=ONE.addresses)
    slots = {ONE.who: slot_of(ONE), twin.who: slot_of(twin)}

    assert compare(Snapshot((ONE, twin)), slots, ledger_of(ONE)) == [
        "10.0.0.2: held by web/container-1/eth0 and by web/container-2/eth0"
    ]


def test_ledger_that_disagrees_with_slots_is_named() -> None:
    slots = {ONE.who: slot_of(ONE)}

    assert compare(Snapshot((ONE,)), slots, ledger_of(TWO)) == [
        "10.0.0.2: the ledger says None, slots web/container-1/eth0",
        "10.0.0.3: the ledger says web/container-2/eth0, slots None",
    ]


def test_history_of_an_address_in_a_record_is_named() -> None:
    history = tuple(Released(ip_address(f"10.0.0.{last}"), BOOT, 1) for last in (2, 9))

    assert compare(Snapshot((ONE,), history), {ONE.who: slot_of(ONE)}, ledger_of(ONE)) == [
        "10.0.0.2: in a record and in the history",
    ]
