"""What the allocator writes down: changes, the snapshot they add up to, and who keeps it.

A commit is all or nothing.  `MemoryStore` is the twin of `ipam.sqlite.SQLiteStore` that keeps
nothing; both pass the same contract tests.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ipam.errors import Conflict, StoreUnavailable
from ipam.leases import Attachment, Record
from net.address import IPAddress


@dataclass(frozen=True, slots=True)
class Released:
    """An address that had a holder until *released_ns* (CLOCK_BOOTTIME of boot *boot_id*)."""

    address: IPAddress
    boot_id: str
    released_ns: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write a record in place of the one of its key; its addresses leave the history."""

    record: Record


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the record of *who*, if there is one."""

    who: Attachment


@dataclass(frozen=True, slots=True)
class Remember:
    """Add to the history, in place of what it says of the same addresses."""

    released: tuple[Released, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove addresses from the history."""

    addresses: tuple[IPAddress, ...]


Change = Put | Delete | Remember | Forget


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is stored, in no order."""

    records: tuple[Record, ...] = ()
    history: tuple[Released, ...] = ()


class Store(Protocol):
    """Keeps records and history; used by one thread at a time."""

    def load(self) -> Snapshot:
        """Read everything.  Raises StoreUnavailable."""
        ...

    def commit(self, changes: Iterable[Change]) -> None:
        """Make *changes* durable, in order, all or none.

        Raises Conflict when a record holds the address of another one, else StoreUnavailable.
        """
        ...

    def probe(self) -> None:
        """Write something that changes nothing.  Raises StoreUnavailable."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """Keeps everything until the process ends."""

    def __init__(self) -> None:
        self._records: dict[Attachment, Record] = {}
        self._history: dict[IPAddress, Released] = {}

    def load(self) -> Snapshot:
        return Snapshot(tuple(self._records.values()), tuple(self._history.values()))

    def commit(self, changes: Iterable[Change]) -> None:
        records, history = dict(self._records), dict(self._history)
        for change in changes:
            match change:
                case Put(record):
                    _put(record, records, history)
                case Delete(who):
                    records.pop(who, None)
                case Remember(released):
                    history |= {one.address: one for one in released}
                case Forget(addresses):
                    for address in addresses:
                        history.pop(address, None)
        self._records, self._history = records, history

    def probe(self) -> None:
        self.commit(())

    def close(self) -> None:
        pass


class UnusableStore(MemoryStore):
    """Stands in for a store that cannot be opened: empty, and every commit fails with *reason*."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def commit(self, changes: Iterable[Change]) -> None:
        raise StoreUnavailable(self.reason)


def _put(
    record: Record, records: dict[Attachment, Record], history: dict[IPAddress, Released]
) -> None:
    for address in record.addresses:
        for other in records.values():
            if other.who != record.who and address.ip in (one.ip for one in other.addresses):
                raise Conflict(f"{address.ip} is held by {other.who}")
        history.pop(address.ip, None)
    records[record.who] = record
