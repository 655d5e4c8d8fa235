"""The calls of ipamd, over a store: see docs/design/0005."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from random import Random
from typing import Protocol

from ipam import calls
from ipam.cluster import Pool, Settings
from ipam.kv import KV
from ipam.memory import DaemonMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """For the metrics page; *free* by pool, in blocks."""

    claims: int
    conflicts: int
    transactions: int
    refused: int
    streams: int
    nodes: int
    blocks: int
    free: dict[str, int]
    oldest_unheard_s: float
    frozen: bool
    synced: bool


class AuthorityCalls(Protocol):
    """Every method raises a Refused (ipam.refusals) or a KVError (ipam.kv); nothing else."""

    def __init__(
        self,
        kv: KV,
        *,
        cluster: str,
        memory: DaemonMemory,
        clock: Callable[[], float],
        random: Random,
    ) -> None: ...

    async def run(self) -> None:
        """Follow the store, keep liveness and reclaim, until cancelled."""
        ...

    async def register(self, asked: calls.Register) -> calls.Registered: ...
    async def claim(self, asked: calls.Claim) -> calls.Claimed: ...
    async def release(self, asked: calls.Release) -> tuple[IPv4Network | IPv6Network, ...]: ...
    async def mirror(self, asked: calls.Mirror) -> int: ...

    def watch(self, node: str, *, after: int = 0) -> AsyncIterator[calls.Update]:
        """The node is taken for alive as long as the iterator is open (aclose() it)."""
        ...

    async def init(self, asked: calls.Init) -> calls.Initialized: ...
    async def put_pool(self, pool: Pool, *, create: bool = False) -> None: ...
    async def delete_pool(self, name: str) -> None: ...
    async def put_settings(self, settings: Settings) -> None: ...
    async def drain(self, asked: calls.Drain) -> calls.Drained: ...
    async def release_block(
        self, cidr: IPv4Network | IPv6Network, *, mod_revision: int
    ) -> None: ...
    async def show(self, what: str, argument: str = "") -> object:
        """Values that json can write; *what*: pools, blocks, nodes, address, pod."""
        ...

    async def check(self) -> tuple[calls.Finding, ...]: ...
    def counts(self) -> Counts: ...
