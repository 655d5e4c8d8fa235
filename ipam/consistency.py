"""What `isthmus ipam check` compares: the stored records, the slots, and the ledger."""

from collections.abc import Iterator, Mapping

from ipam.leases import Attachment
from ipam.ledger import Ledger
from ipam.slot import Slot
from ipam.store import Snapshot
from net.address import IPAddress


def compare(snapshot: Snapshot, slots: Mapping[Attachment, Slot], ledger: Ledger) -> list[str]:
    """Return what is wrong, a line each: memory equals disk, and no address has two owners."""
    return sorted([*_records(snapshot, slots), *_owners(slots, ledger), *_history(snapshot)])


def _records(snapshot: Snapshot, slots: Mapping[Attachment, Slot]) -> Iterator[str]:
    stored = {record.who: record for record in snapshot.records}
    durable = {who: slot.durable for who, slot in slots.items() if slot.durable is not None}
    for who in stored.keys() | durable.keys():
        if who not in stored:
            yield f"{who}: in memory, not in the store"
        elif who not in durable:
            yield f"{who}: in the store, not in memory"
        elif stored[who] != durable[who]:
            yield f"{who}: memory and store differ"


def _owners(slots: Mapping[Attachment, Slot], ledger: Ledger) -> Iterator[str]:
    owners: dict[IPAddress, Attachment] = {}
    for who, slot in slots.items():
        for address in slot.addresses:
            if (other := owners.setdefault(address, who)) != who:
                yield f"{address}: held by {other} and by {who}"
    held = dict(ledger.held())
    for address in held.keys() | owners.keys():
        if held.get(address) != owners.get(address):
            yield f"{address}: the ledger says {held.get(address)}, slots {owners.get(address)}"


def _history(snapshot: Snapshot) -> Iterator[str]:
    recorded = {one.ip for record in snapshot.records for one in record.addresses}
    for one in snapshot.history:
        if one.address in recorded:
            yield f"{one.address}: in a record and in the history"
