"""The store protocol in memory: etcd's rules on revisions, compaction and leases, for tests.

MemoryCluster is what the members agree on; MemoryKV is one client of it, with faults of its own.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from ipam.kv import (
    Ambiguous,
    Batch,
    Compacted,
    Delete,
    Denied,
    Entry,
    Event,
    Identity,
    KVError,
    KVUnavailable,
    LeaseGone,
    Listing,
    Outcome,
    OutOfSpace,
    Put,
    Replaced,
    Unchanged,
)

Clock = Callable[[], float]

# etcd's defaults: --max-txn-ops and --max-request-bytes.
MAX_OPERATIONS = 128
MAX_BYTES = 1536 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What one client meets, until it is given others.

    *unavailable*, *denied*: why, if so.  *full*: no room for puts.  *lost*: for each of the next
    commits, True if its answer is lost after it was carried out, False if it is lost before.
    *held*: watches deliver nothing; what they missed comes in one batch afterwards.
    *gate*: awaited with the method's name before the store looks at a call.
    """

    unavailable: str = ""
    denied: str = ""
    full: bool = False
    lost: tuple[bool, ...] = ()
    held: bool = False
    gate: Callable[[str], Awaitable[None]] | None = None


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    deadline: float
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys as of *revision*; *leases* are times to live by id, *attached* leases by key."""

    entries: tuple[Entry, ...]
    revision: int
    leases: tuple[tuple[int, int], ...]
    attached: tuple[tuple[str, int], ...]


class MemoryCluster:
    """The state behind any number of clients; *clock* gives monotonic seconds to leases."""

    def __init__(self, clock: Clock = time.monotonic, *, cluster_id: int = 1) -> None:
        self.cluster_id = cluster_id
        self.revision = 1
        self.compacted = 0
        self.incarnation = 0
        self.entries: dict[str, Entry] = {}
        self._clock = clock
        self._oldest: dict[str, Entry] = {}
        self._events: list[Event] = []
        self._leases: dict[int, _Lease] = {}
        self._attached: dict[str, int] = {}
        self._next_lease = 1
        self._watchers: set[asyncio.Event] = set()

    def at(self, revision: int) -> dict[str, Entry]:
        """All entries as they stood.  Raises Compacted, Replaced for a revision to come."""
        if revision > self.revision:
            raise Replaced(self.revision)
        if revision < self.compacted:
            raise Compacted(self.compacted)
        entries = dict(self._oldest)
        for event in self._events:
            if event.revision > revision:
                break
            _apply(entries, event)
        return entries

    def events(self, prefix: str, after: int) -> tuple[Event, ...]:
        """Raises Compacted."""
        if after < self.compacted:
            raise Compacted(self.compacted)
        return tuple(
            event
            for event in self._events
            if event.revision > after and event.key.startswith(prefix)
        )

    def commit(
        self, conditions: Sequence[Unchanged], changes: Sequence[Put | Delete], *, full: bool
    ) -> Outcome:
        _refuse_oversized(conditions, changes)
        self.expire()
        if not all(self._holds(condition) for condition in conditions):
            return Outcome(False, self.revision)
        puts = [change for change in changes if isinstance(change, Put)]
        if full and puts:
            raise OutOfSpace("the database is full (NOSPACE)")
        gone = [put.lease for put in puts if put.lease and put.lease not in self._leases]
        if gone:
            raise LeaseGone(f"lease {gone[0]:x} is gone, or never was")
        self._write(changes)
        return Outcome(True, self.revision)

    def compact(self, revision: int) -> None:
        """Forget how it was before *revision*."""
        self._oldest = self.at(revision)
        self._events = [event for event in self._events if event.revision > revision]
        self.compacted = revision
        self._wake()

    def grant(self, ttl_s: int) -> int:
        lease = self._next_lease
        self._next_lease += 1
        self._leases[lease] = _Lease(ttl_s, self._clock() + ttl_s)
        return lease

    def keep_alive(self, lease: int) -> bool:
        self.expire()
        held = self._leases.get(lease)
        if held is None:
            return False
        held.deadline = self._clock() + held.ttl_s
        return True

    def revoke(self, lease: int) -> None:
        held = self._leases.pop(lease, None)
        if held is not None:
            self._write([Delete(key) for key in sorted(held.keys)])

    def expire(self) -> None:
        """Revoke every lease that was not kept alive; call it where only the clock moved."""
        now = self._clock()
        for lease in [one for one, held in self._leases.items() if held.deadline <= now]:
            self.revoke(lease)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            tuple(self.entries.values()),
            self.revision,
            tuple((lease, held.ttl_s) for lease, held in self._leases.items()),
            tuple(self._attached.items()),
        )

    def restore(self, snapshot: Snapshot, *, bump: int = 0, cluster_id: int = 0) -> None:
        """Go back to *snapshot*, its revision raised by *bump*; *cluster_id* 0: keep ours."""
        self.cluster_id = cluster_id or self.cluster_id
        self.incarnation += 1
        self.revision = self.compacted = snapshot.revision + bump
        self.entries = {entry.key: entry for entry in snapshot.entries}
        self._oldest, self._events = dict(self.entries), []
        self._attached = dict(snapshot.attached)
        now = self._clock()
        self._leases = {lease: _Lease(ttl, now + ttl) for lease, ttl in snapshot.leases}
        for key, lease in snapshot.attached:
            self._leases[lease].keys.add(key)
        self._wake()

    def wipe(self, *, cluster_id: int) -> None:
        """Begin anew as another, empty cluster."""
        self.restore(Snapshot((), 1, (), ()), cluster_id=cluster_id)

    def watcher(self) -> asyncio.Event:
        """An event that is set at each change, until forget(event)."""
        event = asyncio.Event()
        self._watchers.add(event)
        return event

    def forget(self, event: asyncio.Event) -> None:
        self._watchers.discard(event)

    def _holds(self, condition: Unchanged) -> bool:
        entry = self.entries.get(condition.key)
        return (entry.mod_revision if entry else 0) == condition.mod_revision

    def _write(self, changes: Sequence[Put | Delete]) -> None:
        revision = self.revision + 1
        events = []
        for change in changes:
            before = self.entries.get(change.key)
            if isinstance(change, Put):
                events.append(Event(change.key, _next(change, before, revision), revision))
                self._attach(change.key, change.lease)
            elif before is not None:
                events.append(Event(change.key, None, revision))
                self._attach(change.key, 0)
        for event in events:
            _apply(self.entries, event)
        if events:
            self._events += events
            self.revision = revision
            self._wake()

    def _attach(self, key: str, lease: int) -> None:
        former = self._leases.get(self._attached.pop(key, 0))
        if former is not None:
            former.keys.discard(key)
        if lease:
            self._attached[key] = lease
            self._leases[lease].keys.add(key)

    def _wake(self) -> None:
        for event in self._watchers:
            event.set()


class MemoryKV:
    """One client; give it other *faults* at any time, its watches take note."""

    def __init__(self, cluster: MemoryCluster, faults: Faults | None = None) -> None:
        self.cluster = cluster
        self._faults = faults or Faults()
        self._watchers: set[asyncio.Event] = set()

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        for event in self._watchers:
            event.set()

    async def get(self, key: str) -> Entry | None:
        await self._arrive("get")
        return self.cluster.entries.get(key)

    async def list(self, prefix: str, *, revision: int = 0, after: int = 0) -> Listing:
        await self._arrive("list")
        now = self.cluster.revision
        entries = self.cluster.at(revision) if revision else self.cluster.entries
        found = sorted(key for key in entries if key.startswith(prefix))
        listed = (entries[key] for key in found if entries[key].mod_revision > after)
        return Listing(tuple(listed), revision or now)

    async def commit(
        self, conditions: Sequence[Unchanged], changes: Sequence[Put | Delete]
    ) -> Outcome:
        await self._arrive("commit")
        lost = self._faults.lost
        if lost:
            self.faults = replace(self._faults, lost=lost[1:])
        if lost and not lost[0]:
            raise Ambiguous("the answer was lost")
        outcome = self.cluster.commit(conditions, changes, full=self._faults.full)
        await asyncio.sleep(0)
        if lost:
            raise Ambiguous("the answer was lost")
        return outcome

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        cluster = self.cluster
        incarnation = cluster.incarnation
        event = cluster.watcher()
        self._watchers.add(event)
        try:
            while True:
                event.clear()
                if self._faults.denied:
                    raise Denied(self._faults.denied)
                if self._faults.unavailable:
                    raise KVUnavailable(self._faults.unavailable)
                if not self._faults.held:
                    cluster.expire()
                    if cluster.incarnation != incarnation or cluster.revision < after:
                        raise Replaced(cluster.revision)
                    events = cluster.events(prefix, after)
                    if cluster.revision > after:
                        after = cluster.revision
                        yield Batch(events, after)
                        continue
                await event.wait()
        finally:
            self._watchers.discard(event)
            cluster.forget(event)

    async def grant(self, ttl_s: int) -> int:
        await self._arrive("grant")
        return self.cluster.grant(ttl_s)

    async def keep_alive(self, lease: int) -> bool:
        await self._arrive("keep_alive")
        return self.cluster.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self._arrive("revoke")
        self.cluster.revoke(lease)

    async def identity(self) -> Identity:
        await self._arrive("identity")
        return Identity(self.cluster.cluster_id, self.cluster.revision)

    async def close(self) -> None:
        """Nothing is held."""

    async def _arrive(self, method: str) -> None:
        """Let others run, as any call over a network does; then meet the faults."""
        await asyncio.sleep(0)
        if self._faults.gate is not None:
            await self._faults.gate(method)
        if self._faults.unavailable:
            raise KVUnavailable(self._faults.unavailable)
        if self._faults.denied:
            raise Denied(self._faults.denied)
        self.cluster.expire()


def _next(put: Put, before: Entry | None, revision: int) -> Entry:
    return Entry(
        key=put.key,
        value=put.value,
        create_revision=before.create_revision if before else revision,
        mod_revision=revision,
        version=before.version + 1 if before else 1,
        lease=put.lease,
    )


def _apply(entries: dict[str, Entry], event: Event) -> None:
    if event.entry is None:
        entries.pop(event.key, None)
    else:
        entries[event.key] = event.entry


def _refuse_oversized(conditions: Sequence[Unchanged], changes: Sequence[Put | Delete]) -> None:
    if len(conditions) > MAX_OPERATIONS or len(changes) > MAX_OPERATIONS:
        raise KVError(f"more than {MAX_OPERATIONS} operations in one transaction")
    puts = [change for change in changes if isinstance(change, Put)]
    if sum(len(put.value) + len(put.key) for put in puts) > MAX_BYTES:
        raise KVError(f"more than {MAX_BYTES} bytes in one transaction")
    if len({change.key for change in changes}) < len(changes):
        raise KVError("one key is changed twice in one transaction")
