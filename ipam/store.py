"""What the allocator writes down: changes, the snapshot they add up to, and who keeps it.

A commit is all or nothing.  `MemoryStore` is the twin of `ipam.sqlite.SQLiteStore` that keeps
nothing; both pass the same contract tests.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ipam.calls import PoolRow, TableRow
from ipam.errors import Conflict, StoreUnavailable
from ipam.holdings import Former, Holdings
from ipam.leases import Attachment, Record
from net.address import IPAddress, IPNetwork

Key = TypeVar("Key")
Kept = TypeVar("Kept")


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


@dataclass(frozen=True, slots=True)
class Own:
    """Write what the node knows of itself and its blocks, in place of what was there."""

    holdings: Holdings


@dataclass(frozen=True, slots=True)
class Stick:
    """Write which pod had which addresses, in place of what was there of the same pods."""

    formers: tuple[Former, ...]
    forgotten: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tabulate:
    """Write rows of the cluster's table; *gone* ones first go, and the rest stay.

    *pools* are all there are; None: as they are.
    """

    rows: tuple[TableRow, ...]
    gone: tuple[IPNetwork, ...] = ()
    pools: tuple[PoolRow, ...] | None = None


Change = Put | Delete | Remember | Forget | Own | Stick | Tabulate


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is stored, in no order; *holdings* None: this node never heard of an ipamd."""

    records: tuple[Record, ...] = ()
    history: tuple[Released, ...] = ()
    holdings: Holdings | None = None
    formers: tuple[Former, ...] = ()
    rows: tuple[TableRow, ...] = ()
    pools: tuple[PoolRow, ...] = ()


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
        self._kept = _Kept()

    def load(self) -> Snapshot:
        kept = self._kept
        return Snapshot(
            records=tuple(kept.records.values()),
            history=tuple(kept.history.values()),
            holdings=kept.holdings,
            formers=tuple(kept.formers.values()),
            rows=tuple(kept.rows.values()),
            pools=kept.pools,
        )

    def commit(self, changes: Iterable[Change]) -> None:
        after = self._kept.copy()
        for change in changes:
            after.make(change)
        self._kept = after

    def probe(self) -> None:
        self.commit(())

    def close(self) -> None:
        pass


@dataclass(slots=True)
class _Kept:
    records: dict[Attachment, Record] = field(default_factory=dict)
    history: dict[IPAddress, Released] = field(default_factory=dict)
    holdings: Holdings | None = None
    formers: dict[str, Former] = field(default_factory=dict)
    rows: dict[IPNetwork, TableRow] = field(default_factory=dict)
    pools: tuple[PoolRow, ...] = ()

    def copy(self) -> "_Kept":
        return _Kept(
            dict(self.records),
            dict(self.history),
            self.holdings,
            dict(self.formers),
            dict(self.rows),
            self.pools,
        )

    def make(self, change: Change) -> None:
        """Carry *change* out.  Raises Conflict."""
        match change:
            case Put(record):
                _put(record, self.records, self.history)
            case Delete(who):
                self.records.pop(who, None)
            case Remember(released):
                self.history |= {one.address: one for one in released}
            case Forget(addresses):
                _drop(self.history, addresses)
            case Own(holdings):
                self.holdings = holdings
            case Stick(formers, forgotten):
                self.formers |= {one.pod: one for one in formers}
                _drop(self.formers, forgotten)
            case Tabulate(rows, gone, pools):
                _drop(self.rows, gone)
                self.rows |= {row.cidr: row for row in rows}
                self.pools = self.pools if pools is None else pools


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


def _drop(kept: dict[Key, Kept], keys: Iterable[Key]) -> None:
    for key in keys:
        kept.pop(key, None)
