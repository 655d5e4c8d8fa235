"""The allocator: decides in memory under one lock, and lets the disk follow.

Each key has a slot (ipam.slot) that tells what is durable from what is promised.  A write that
fails puts the promise back to what is durable: a failed hold leaves what the ADD chose as a
reservation in memory, for the caller to abandon; a failed release leaves the record, for DEL to
try again.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Lock
from typing import Protocol, TypeVar

from ipam.consistency import compare
from ipam.errors import AddressUnavailable, NoFreeAddress, StoreUnavailable
from ipam.leases import Attachment, Lease, Record, State, Wanted
from ipam.ledger import Ledger, Usage
from ipam.pool import Choice, Pool
from ipam.ranges import RangeSet, check_disjoint
from ipam.slot import Slot
from ipam.store import Change, Delete, Forget, Put, Released, Remember, Snapshot, Store
from ipam.writer import Writer
from net.address import IPAddress, IPNetwork

T = TypeVar("T")


@dataclass(slots=True)
class Counters:
    """For the metrics page; each only grows."""

    given: int = 0
    reused: int = 0
    cooling_reused: int = 0
    exhausted: int = 0
    store_failures: int = 0


class Companion(Protocol):
    """Whoever keeps something else in the same store; called in any thread, and must not wait."""

    def settled(self, who: Attachment, record: Record | None) -> None:
        """Note that *record*, or that there is none, is durable now; the allocator is locked."""
        ...

    def to_memory(self, found: Snapshot) -> Sequence[Change]:
        """Return the changes from *found* to what should be stored."""
        ...


class Allocator:
    """Implements ipam.leases.Leases over one store.

    *now* is CLOCK_BOOTTIME in nanoseconds.  Raises StoreUnavailable when the store cannot be
    loaded.
    """

    def __init__(
        self,
        store: Store,
        *,
        boot_id: str,
        now: Callable[[], int],
        cooldown_s: float = 30.0,
    ) -> None:
        self._boot_id = boot_id
        self._now = now
        self._cooldown_ns = int(cooldown_s * 1e9)
        self._lock = Lock()
        self._slots: dict[Attachment, Slot] = {}
        self._ledger = Ledger(self._cooldown_ns)
        self._suspended: dict[str, str] = {}
        self._barred: tuple[IPNetwork, ...] = ()
        self._companions: tuple[Companion, ...] = ()
        self.counters = Counters()
        self._load(store.load())
        self._writer = Writer(store)

    @property
    def degraded(self) -> str:
        """Say why no address can be promised; "" when all is well."""
        return next(iter(self._suspended.values()), "") or self._writer.failure

    @property
    def damaged(self) -> bool:
        """Tell whether the store will not work again by itself: it takes a `rewrite`."""
        return self._writer.damaged

    def suspend(self, reason: str, *, by: str = "") -> None:
        """Refuse new reservations until `resume`; adoptions and releases go on.

        Several may see a *reason*, each under a name of its own.
        """
        self._suspended[by] = reason

    def resume(self, *, by: str = "") -> None:
        self._suspended.pop(by, None)

    def close(self) -> None:
        """Write what is queued and close the store."""
        self._writer.close()

    def reserve(self, who: Attachment, wanted: Wanted) -> tuple[Lease, ...]:
        """Choose addresses for *who*, in memory: those it has already, if they still fit.

        Raises NoFreeAddress, AddressUnavailable, InvalidRange, StoreUnavailable.
        """
        check_disjoint(wanted.range_sets)
        with self._lock:
            if self.degraded:
                raise StoreUnavailable(f"no address can be made durable: {self.degraded}")
            pools = [
                self._ledger.pool(one, wanted.excluded + self._barred_in(one))
                for one in wanted.range_sets
            ]
            slot = self._slots.get(who) or Slot()
            asked = self._assign_requested(who, wanted.requested, pools)
            if wanted.preferred:
                self._assign_preferred(slot, wanted.preferred, pools, asked)
            try:
                choices = [
                    self._choose(slot, pool, want) for pool, want in zip(pools, asked, strict=True)
                ]
            except NoFreeAddress:
                self.counters.exhausted += 1
                raise
            slot.leases = tuple(map(_lease, wanted.range_sets, choices))
            slot.since_ns = None
            self._slots[who] = slot
            self._count(choices)
            self._settle(who, slot, self._now())
            return slot.leases

    def hold(self, record: Record) -> Future[None]:
        """Make *record*, and the addresses in it, durable.  Raises AddressUnavailable."""
        with self._lock:
            for address in record.addresses:
                holder = self._ledger.holder(address.ip)
                if holder not in (None, record.who):
                    raise AddressUnavailable(address.ip, self._held_by(holder))
            return self._put(self._slots.get(record.who) or Slot(), record)

    def abandon(self, who: Attachment) -> Future[None]:
        """Turn what *who* has into a reservation for its next ADD; idempotent."""
        with self._lock:
            slot = self._slots.get(who)
            if slot is None:
                return _done(None)
            now_ns = slot.since_ns = self._now()
            record = slot.current
            if record is None or record.state is State.RESERVED:
                return _done(None)
            return self._put(slot, replace(record, state=State.RESERVED, reserved_ns=now_ns))

    def release(self, who: Attachment) -> Future[None]:
        """Forget *who*; its addresses start to cool down; idempotent."""
        with self._lock:
            slot = self._slots.get(who)
            return _done(None) if slot is None else self._release(who, slot)

    def adopt(self, record: Record) -> Future[Attachment | None]:
        """Take over a record found elsewhere: the future gives None, or who is in the way.

        That is the holder of one of its addresses, or its own key with other addresses.
        """
        with self._lock:
            for address in record.addresses:
                holder = self._ledger.holder(address.ip)
                if holder not in (None, record.who):
                    return _done(holder)
            slot = self._slots.get(record.who) or Slot()
            if slot.current is not None or slot.leases:
                known = slot.current.addresses if slot.current is not None else ()
                return _done(None if known == record.addresses else record.who)
            stored = self._put(slot, record)
        adopted: Future[Attachment | None] = Future()
        stored.add_done_callback(lambda done: _pass_on(done, adopted))
        return adopted

    def join(self, companion: Companion) -> None:
        self._companions += (companion,)

    def keep(self, changes: Sequence[Change]) -> Future[None]:
        """Make what a companion keeps durable.  The future fails with StoreUnavailable."""
        try:
            return self._writer.submit(changes, lambda error: None)
        except StoreUnavailable as exc:
            return _failed(exc)

    def bar(self, network: IPNetwork) -> bool:
        """Give nothing in *network* any more, if nobody has anything in it now; say whether so."""
        with self._lock:
            if network not in self._barred:
                if any(self._ledger.count((network,))):
                    return False
                self._barred += (network,)
            return True

    def unbar(self, network: IPNetwork) -> None:
        with self._lock:
            self._barred = tuple(one for one in self._barred if one != network)

    def count(self, networks: Sequence[IPNetwork]) -> list[int]:
        """Return how many addresses in each of *networks* somebody has."""
        with self._lock:
            return self._ledger.count(networks)

    def retire(self, range_sets: Collection[RangeSet]) -> None:
        """Note that no ADD will ask for these range sets again."""
        with self._lock:
            self._ledger.retire(range_sets)

    def find(self, who: Attachment) -> Record | None:
        with self._lock:
            slot = self._slots.get(who)
            return slot.current if slot is not None else None

    def of_network(self, network: str) -> Sequence[Record]:
        return [record for record in self.records() if record.who.network == network]

    def records(self) -> Sequence[Record]:
        with self._lock:
            return [slot.current for slot in self._slots.values() if slot.current is not None]

    def usage(self) -> tuple[Usage, ...]:
        """Say how full each range set is that an ADD has asked for."""
        with self._lock:
            return tuple(self._ledger.usage(self._now()))

    def expire(self) -> tuple[Attachment, ...]:
        """Free the reservations older than the cool-down; say whose.  Call every few seconds.

        Also finds out whether a failed store works again, and shortens the history.
        """
        with self._lock:
            now_ns = self._now()
            expired = [who for who, slot in self._slots.items() if self._is_over(slot, now_ns)]
            for who in expired:
                self._release(who, self._slots[who])
            if forgotten := self._ledger.forget(now_ns):
                self._writer.submit((Forget(forgotten),), lambda error: None)
        if self._writer.failure or self._writer.doubtful:
            self._writer.mend(self._to_memory)
        return tuple(expired)

    def rewrite(self, open_next: Callable[[], Store]) -> Future[None]:
        """Close the store and go on with the one that *open_next* opens, made equal to memory.

        For a store that was lost while in use: memory knows more than the links do.
        """
        return self._writer.replace(open_next, self._to_memory)

    def check(self) -> list[str]:
        """Compare memory with the store and with itself; return what is wrong.

        Raises StoreUnavailable when the store cannot be read.
        """
        return self._writer.run(self._compare).result()

    def _load(self, snapshot: Snapshot) -> None:
        for record in snapshot.records:
            slot = self._slots[record.who] = Slot(durable=record, current=record)
            self._settle(record.who, slot, 0)
        history = [
            (self._of_this_boot(one.boot_id, one.released_ns), one) for one in snapshot.history
        ]
        for since_ns, one in sorted(history, key=lambda pair: pair[0]):
            if self._ledger.holder(one.address) is None:
                self._ledger.free(one.address, since_ns)

    def _of_this_boot(self, boot_id: str, moment_ns: int) -> int:
        # What happened before this boot happened, at the latest, when it began.
        return moment_ns if boot_id == self._boot_id else 0

    def _assign_requested(
        self, who: Attachment, requested: Sequence[IPAddress], pools: Sequence[Pool]
    ) -> list[IPAddress | None]:
        asked: list[IPAddress | None] = [None] * len(pools)
        for address in requested:
            at = _place(address, pools, asked)
            holder = self._ledger.holder(address)
            if holder not in (None, who):
                raise AddressUnavailable(address, self._held_by(holder))
            asked[at] = address
        return asked

    def _barred_in(self, ranges: RangeSet) -> tuple[IPNetwork, ...]:
        return self._barred and tuple(
            network
            for network in self._barred
            if any(one.subnet.overlaps(network) for one in ranges)
        )

    def _assign_preferred(
        self,
        slot: Slot,
        preferred: Sequence[IPAddress],
        pools: Sequence[Pool],
        asked: list[IPAddress | None],
    ) -> None:
        """Ask for the former addresses, where they are free and nothing else was asked for."""
        own = slot.own()
        for at, pool in enumerate(pools):
            if asked[at] is None and not any(_in_pool(one, pool) for one in own):
                free = (one for one in preferred if self._ledger.holder(one) is None)
                asked[at] = next((one for one in free if _in_pool(one, pool)), None)

    def _held_by(self, holder: Attachment | None) -> str:
        slot = self._slots[holder] if holder is not None else Slot()
        record = slot.current or slot.durable
        if record is not None and record.state is State.HELD:
            return f"is held by {holder}"
        return f"is reserved for {holder}, whose last ADD has not ended well"

    def _choose(self, slot: Slot, pool: Pool, asked: IPAddress | None) -> Choice:
        own = slot.own()
        if asked is None:
            asked = next((one for one in own if _in_pool(one, pool)), None)
        if asked is None:
            return pool.choose(self._now())
        return Choice(asked, reused=own.get(asked, self._ledger.is_idle(asked)))

    def _count(self, choices: Sequence[Choice]) -> None:
        self.counters.given += len(choices)
        self.counters.reused += sum(choice.reused for choice in choices)
        self.counters.cooling_reused += sum(choice.cooling for choice in choices)

    def _put(self, slot: Slot, record: Record) -> Future[None]:
        kept = {address.ip for address in record.addresses}
        return self._submit(slot, record.who, record, slot.recorded() - kept)

    def _release(self, who: Attachment, slot: Slot) -> Future[None]:
        slot.leases = ()
        if slot.current is None and not slot.unsettled:
            self._settle(who, slot, self._now())
            return _done(None)
        return self._submit(slot, who, None, slot.addresses)

    def _submit(
        self, slot: Slot, who: Attachment, record: Record | None, dropped: Iterable[IPAddress]
    ) -> Future[None]:
        """Queue the change of *slot* to *record*, and let *dropped* cool down once it is made."""
        now_ns = self._now()
        released = tuple(Released(one, self._boot_id, now_ns) for one in dropped)
        changes: list[Change] = [Delete(who) if record is None else Put(record)]
        if released:
            changes.append(Remember(released))
        before, leases = slot.current, slot.leases

        def settle(error: Exception | None) -> None:
            with self._lock:
                slot.unsettled -= 1
                if error is None:
                    slot.durable = record
                    for companion in self._companions:
                        companion.settled(who, record)
                    if record is not None and record.state is State.HELD and slot.leases is leases:
                        slot.leases = ()
                else:
                    self.counters.store_failures += 1
                    if not slot.unsettled:
                        slot.current = slot.durable
                self._settle(who, slot, now_ns)

        slot.current, slot.unsettled = record, slot.unsettled + 1
        try:
            future = self._writer.submit(changes, settle)
        except StoreUnavailable as exc:
            slot.current, slot.unsettled = before, slot.unsettled - 1
            return _failed(exc)
        self._slots[who] = slot
        self._settle(who, slot, now_ns)
        return future

    def _settle(self, who: Attachment, slot: Slot, now_ns: int) -> None:
        """Make the ledger agree with what *slot* claims."""
        claims = slot.claims()
        for address in slot.addresses - claims:
            self._ledger.free(address, now_ns)
        for address in claims - slot.addresses:
            self._ledger.take(address, who)
        slot.addresses = claims
        if slot.current is None and slot.durable is None and not slot.leases and not slot.unsettled:
            self._slots.pop(who, None)

    def _is_over(self, slot: Slot, now_ns: int) -> bool:
        """Tell whether *slot* is a reservation that nobody has come back for."""
        if slot.unsettled or (slot.leases and slot.since_ns is None):
            return False
        since_ns = slot.since_ns or 0
        if slot.current is not None:
            if slot.current.state is not State.RESERVED:
                return False
            moment_ns = self._of_this_boot(slot.current.boot_id, slot.current.reserved_ns)
            since_ns = max(since_ns, moment_ns)
        return now_ns - since_ns >= self._cooldown_ns

    def _to_memory(self, found: Snapshot) -> Sequence[Change]:
        """Return the changes from *found* to what is known to be durable, none if it is that."""
        with self._lock:
            durable = {who: slot.durable for who, slot in self._slots.items() if slot.durable}
            idle = dict(self._ledger.idle())
        stored = {record.who: record for record in found.records}
        stale = [Delete(who) for who, record in stored.items() if record != durable.get(who)]
        missing = [Put(record) for who, record in durable.items() if record != stored.get(who)]
        history = {
            one.address: self._of_this_boot(one.boot_id, one.released_ns) for one in found.history
        }
        forgotten = Forget(tuple(address for address in history if address not in idle))
        released = Remember(
            tuple(
                Released(address, self._boot_id, since_ns)
                for address, since_ns in idle.items()
                if history.get(address) != since_ns
            )
        )
        beside = [change for one in self._companions for change in one.to_memory(found)]
        return [*stale, forgotten, *missing, released, *beside]

    def _compare(self, store: Store) -> list[str]:
        # In the writer's thread nothing becomes durable meanwhile, so this is exact.
        snapshot = store.load()
        with self._lock:
            return compare(snapshot, self._slots, self._ledger)


def _done(value: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(value)
    return future


def _failed(error: Exception) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(error)
    return future


def _pass_on(stored: Future[None], adopted: Future[Attachment | None]) -> None:
    error = stored.exception()
    if error is None:
        adopted.set_result(None)
    else:
        adopted.set_exception(error)


def _in_pool(address: IPAddress, pool: Pool) -> bool:
    return address.version == pool.ranges.version and int(address) in pool


def _lease(ranges: RangeSet, choice: Choice) -> Lease:
    found = ranges.find(choice.address)
    assert found is not None  # pools hold only what is in their ranges
    return Lease(found.interface(choice.address), found.gateway, choice.reused)


def _place(address: IPAddress, pools: Sequence[Pool], asked: Sequence[IPAddress | None]) -> int:
    """Find the range set that a requested address comes from.  Raises AddressUnavailable."""
    for at, pool in enumerate(pools):
        if _in_pool(address, pool):
            if asked[at] in (None, address):
                return at
            raise AddressUnavailable(
                address, f"cannot be given besides {asked[at]}: {pool.ranges} gives one address"
            )
    for pool in pools:
        for one in pool.ranges:
            if reason := one.refusal(address):
                raise AddressUnavailable(address, reason)
    ranges = " or ".join(str(pool.ranges) for pool in pools) or "any range: there is none"
    raise AddressUnavailable(address, f"is not in {ranges}")
