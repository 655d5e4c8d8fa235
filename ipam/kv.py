"""A small part of etcd v3, as a protocol: what cluster IPAM asks of its store.

Real: ipam.etcd.  Twin in memory: ipam.memory_kv.  Both pass the same contract tests.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ipam.errors import IPAMError


class KVError(IPAMError):
    """Root of what a store can answer instead of a result."""


class KVUnavailable(KVError):
    """No member answered, or none may: nothing was written.  The message says which and why."""


class Ambiguous(KVError):
    """A transaction was sent and its answer lost: it may have been carried out."""


class Compacted(KVError):
    """The revision asked for is gone: list anew, and compare."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"compacted up to revision {oldest}")
        self.oldest = oldest


class Replaced(Compacted):
    """The store is behind what was seen of it, or is another: restored, wiped, misdirected."""

    def __init__(self, revision: int) -> None:
        KVError.__init__(self, f"the store was replaced: it is at revision {revision}")
        self.oldest = revision


class LeaseGone(KVError):
    """A put names a lease that ran out: nothing was written."""


class Denied(KVError):
    """Wrong user, password or certificate, or no permission."""


class OutOfSpace(KVError):
    """The database is full (NOSPACE alarm): reads work, writes wait for an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key: *mod_revision* of its last change, *version* how often it was put since created.

    *lease*: with which it goes; 0: it stays.
    """

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries sorted by key, as they all stood at *revision*."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Holds if *key* was last changed at *mod_revision*; 0 means that it must be absent."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """*lease* 0: for ever."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the comparisons held (then all was done), and the store's revision."""

    done: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """One change; *entry* None is a deletion."""

    key: str
    entry: Entry | None
    revision: int


@dataclass(frozen=True, slots=True)
class Batch:
    """All events of a watch up to *revision*; none of them is a sign of progress."""

    events: tuple[Event, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Which store this is, and how far it is."""

    cluster_id: int
    revision: int


class KV(Protocol):
    """Every method raises KVUnavailable, Denied; writes also Ambiguous, OutOfSpace."""

    async def get(self, key: str) -> Entry | None:
        """Linearizable."""
        ...

    async def list(self, prefix: str, *, revision: int = 0, after: int = 0) -> Listing:
        """All keys that start with *prefix*, in pages inside, of one revision (0: the newest).

        *after*: only those that were put after that revision.
        Raises Compacted.
        """
        ...

    async def commit(
        self, conditions: Sequence[Unchanged], changes: Sequence[Put | Delete]
    ) -> Outcome:
        """All *changes* if all *conditions* hold, else none."""
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        """Changes after revision *after*, without a gap, on another member where one is lost.

        Raises KVUnavailable where no member answers any more, Compacted (Replaced) where there
        would be a gap, Denied.
        """
        ...

    async def grant(self, ttl_s: int) -> int:
        """A lease whose keys go when it was not kept alive for *ttl_s*; returns its id."""
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Whether it still was there, and now is for its time to live again."""
        ...

    async def revoke(self, lease: int) -> None: ...

    async def identity(self) -> Identity:
        """Which store is asked.  Where it was exchanged, other calls say so until this one did."""
        ...

    async def close(self) -> None: ...
