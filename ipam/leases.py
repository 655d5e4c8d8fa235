"""The vocabulary of leases, and the protocol by which CNI verbs see the allocator."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ipam.ranges import RangeSet
from net.address import IPAddress, IPInterface, IPNetwork


@dataclass(frozen=True, slots=True, order=True)
class Attachment:
    """The key of all state (SPEC.md 0.4.0, "DEL"): an interface of a container on a network."""

    network: str
    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.network}/{self.container_id}/{self.ifname}"


class State(StrEnum):
    """HELD by a container, or RESERVED for the next ADD of a key whose last one failed."""

    HELD = "held"
    RESERVED = "reserved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that survives a crash about one attachment.

    *started_ns* (CLOCK_BOOTTIME) and *boot_id* are of the ADD's launcher; *netns_cookie* is
    SO_NETNS_COOKIE of the sandbox (0: unknown) since inodes are used again; *spec* is JSON
    from which the data plane can be made anew, opaque here; *reserved_ns* is when a RESERVED
    record became one (CLOCK_BOOTTIME).
    """

    who: Attachment
    boot_id: str
    started_ns: int
    sandbox: str
    netns_cookie: int
    state: State = State.HELD
    addresses: tuple[IPInterface, ...] = ()
    spec: str = "{}"
    reserved_ns: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """One address given; *reused* means somebody had it before: announce it, flush its flows."""

    address: IPInterface
    gateway: IPAddress | None
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one ADD asks for: an address from each range set, never one of *excluded*.

    Each of *requested* must be satisfied by one of the range sets; of *preferred*, those that
    can be.
    """

    range_sets: tuple[RangeSet, ...]
    requested: tuple[IPAddress, ...] = ()
    preferred: tuple[IPAddress, ...] = ()
    excluded: tuple[IPNetwork, ...] = ()


class Leases(Protocol):
    """The allocator as the verbs use it.  Thread-safe; callers serialize calls of one key.

    Memory is decided at once and disk follows: what a Future promises is durable only when
    the Future is done.  A Future fails with StoreUnavailable.
    """

    def reserve(self, who: Attachment, wanted: Wanted) -> tuple[Lease, ...]:
        """Choose addresses for *who*, in memory: those it has already, if they still fit.

        Raises NoFreeAddress, AddressUnavailable, StoreUnavailable.
        """
        ...

    def hold(self, record: Record) -> Future[None]:
        """Make *record*, and the addresses in it, durable.  Raises AddressUnavailable."""
        ...

    def abandon(self, who: Attachment) -> Future[None]:
        """Turn what *who* has into a reservation for its next ADD; idempotent."""
        ...

    def release(self, who: Attachment) -> Future[None]:
        """Forget *who*; its addresses start to cool down; idempotent."""
        ...

    def find(self, who: Attachment) -> Record | None: ...

    def of_network(self, network: str) -> Sequence[Record]: ...

    def records(self) -> Sequence[Record]: ...
