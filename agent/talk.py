"""What the conversations with ipamd share: with whom, as whom, about what, and how it goes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any, Protocol

from ipam.blocks import Blocks
from ipam.calls import (
    Audit,
    Claim,
    Claimed,
    Leave,
    Mirror,
    MirroredLease,
    Register,
    Registered,
    Release,
    Update,
)
from ipam.cluster import NodeState
from ipam.holdings import OwnBlock
from ipam.leases import Attachment, Record, State
from net.address import IPAddress, IPNetwork

LONGEST_PAUSE_S = 30.0
SHORTEST_PAUSE_S = 0.5


class Ipamd(Protocol):
    """Whoever gives blocks, see ipam.client.Client; every method raises IPAMError."""

    async def register(self, asked: Register) -> Registered: ...
    async def claim(self, asked: Claim) -> Claimed: ...
    async def release(self, asked: Release) -> tuple[IPNetwork, ...]: ...
    async def mirror(self, asked: Mirror) -> int: ...
    async def audit(self, asked: Audit) -> None: ...
    async def leave(self, asked: Leave) -> None: ...
    def watch(self, *, after: int, frozen: bool) -> AsyncGenerator[Update, None]: ...
    async def close(self) -> None: ...


class Leases(Protocol):
    """The allocator, as far as it is looked at."""

    def count(self, networks: Sequence[IPNetwork]) -> list[int]: ...
    def bar(self, network: IPNetwork) -> bool: ...
    def unbar(self, network: IPNetwork) -> None: ...
    def find(self, who: Attachment) -> Record | None: ...
    def records(self) -> Collection[Record]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this agent says it is; *instance* is of this run, *addresses* looks at the host.

    *labels* and *addresses* raise NotServed where they are not known yet.
    """

    node: str
    instance: str
    labels: Callable[[], Mapping[str, str]]
    addresses: Callable[[], tuple[IPAddress, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else the talk needs.

    *enforce* drops the traffic of these networks, and of no others (DataplaneError); *pod_of*
    says namespace/name of a record's pod, or ""; *clock* is monotonic seconds; *kept* are blocks
    that somebody was told of for good: they are not given back.
    """

    enforce: Callable[[Collection[IPNetwork]], None]
    pod_of: Callable[[Record], str]
    clock: Callable[[], float]
    random: Random
    kept: Callable[[], Collection[IPNetwork]] = tuple


@dataclass(slots=True)
class Pause:
    """How long to wait after a failure: each time longer, with jitter.

    *longest_s* shortens the longest there is.
    """

    random: Random
    longest_s: float = inf
    seconds: float = field(default_factory=lambda: SHORTEST_PAUSE_S)

    @property
    def is_grown(self) -> bool:
        """Whether something failed since the last reset."""
        return self.seconds > SHORTEST_PAUSE_S

    def longer(self) -> float:
        wait = self.seconds * (0.5 + self.random.random())
        self.seconds = min(2 * self.seconds, LONGEST_PAUSE_S, self.longest_s)
        return wait

    def least(self) -> float:
        """Return how long to wait even where something says that it might work again."""
        return SHORTEST_PAUSE_S * self.random.random()

    def reset(self) -> None:
        self.seconds = SHORTEST_PAUSE_S


@dataclass(slots=True)
class Condition:
    """How the talk is; for status and metrics."""

    connected: bool = False
    frozen: str = ""
    node_state: NodeState = NodeState.ACTIVE
    registrations: int = 0
    claims: int = 0
    refusals: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """One talk: every conversation has it, and none keeps any of it for itself."""

    blocks: Blocks
    leases: Leases
    ipamd: Ipamd
    who: Identity
    around: Surroundings
    condition: Condition = field(default_factory=Condition)

    def pause(self, longest_s: float = inf) -> Pause:
        return Pause(self.around.random, longest_s)

    def me(self) -> dict[str, Any]:
        """How every call after registering says whose it is."""
        own = self.blocks.holdings
        return {"node": self.who.node, "uid": own.uid, "epoch": own.epoch}

    def told_of(self, record: Record) -> MirroredLease | None:
        """What ipamd is to know of *record*: its addresses of blocks; None if it has none."""
        blocks = self.blocks.holdings.blocks
        held = record.addresses if record.state is State.HELD else ()
        addresses = tuple(one.ip for one in held if any(one.ip in block.cidr for block in blocks))
        if not addresses:
            return None
        return MirroredLease(
            network=record.who.network,
            container_id=record.who.container_id,
            ifname=record.who.ifname,
            addresses=addresses,
            pod=self.around.pod_of(record),
        )

    def used(self, blocks: Collection[OwnBlock]) -> dict[OwnBlock, int]:
        """How many addresses of each are in use."""
        counts = self.leases.count([block.cidr for block in blocks])
        return dict(zip(blocks, counts, strict=True))


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for *event*, but not for ever."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def done(future: Future[None]) -> Awaitable[None]:
    """Wait for what the disk does."""
    return asyncio.wrap_future(future)
