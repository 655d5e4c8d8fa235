"""A few replicas of ipamd over one store in memory, followed by hand."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import TypeVar

from ipam.authority import Authority
from ipam.calls import Claim, Claimed, Held, Init, Register, Registered, Release
from ipam.cluster import Pool
from ipam.keys import Keys
from ipam.kv import Batch
from ipam.memory import DaemonMemory
from ipam.memory_kv import Faults, MemoryCluster, MemoryKV

T = TypeVar("T")

KEYS = Keys("c")
FOUR = Pool(name="four", cidr=ip_network("10.0.0.0/24"), block_length=26)
SIX = Pool(name="six", cidr=ip_network("fd00::/120"), block_length=122)


class Site:
    """*now* is the clock of store and replicas; every replica is caught up before each call."""

    def __init__(self, folder: Path, replicas: int = 2) -> None:
        self.now = 0.0
        self.folder = folder
        self.store = MemoryCluster(lambda: self.now)
        self.runner = asyncio.Runner()
        self.replicas = [self.replica(str(n)) for n in range(replicas)]

    def replica(self, name: str) -> Authority:
        return Authority(
            MemoryKV(self.store),
            cluster="c",
            memory=DaemonMemory(self.folder / f"memory-{name}"),
            clock=lambda: self.now,
            random=Random(name),
        )

    def run(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            return await work

        return self.runner.run(main())

    def follow(self) -> None:
        for authority in self.replicas:
            replica = authority.replica
            if not replica.synced or self.store.compacted > replica.view.revision:
                self.run(replica.resync())
                continue
            events = self.store.events(KEYS.state, replica.view.revision)
            replica.take(Batch(events, self.store.revision))

    def do(self, work: Callable[[Authority], Awaitable[T]], at: int = 0) -> T:
        self.follow()
        return self.run(work(self.replicas[at]))

    def begin(self, *pools: Pool) -> None:
        self.do(lambda a: a.init(Init()))
        for pool in pools or (FOUR, SIX):
            self.do(lambda a, pool=pool: a.put_pool(pool, create=True))  # type: ignore[misc]
        self.follow()

    def register(self, node: Register, at: int = 0) -> Registered:
        return self.do(lambda a: a.register(node), at)

    def claim(self, node: str, nonce: str = "x", *, epoch: int = 1, at: int = 0) -> Claimed:
        call = Claim(node=node, uid=f"uid-{node}", epoch=epoch, nonce=nonce)
        return self.do(lambda a: a.claim(call), at)

    def rest(self, seconds: float = 61.0) -> None:
        """Let each step of reclaim be taken, and a quarantine pass."""
        for wait in (0.0, 0.0, 0.0, seconds, 0.0):
            self.now += wait
            self.do(lambda a: a.tick())
        self.follow()


def node(name: str, **fields: object) -> Register:
    base = Register(node=name, uid=f"uid-{name}", boot_id="boot", instance="1")
    return replace(base, **fields)  # type: ignore[arg-type]


@contextmanager
def site(folder: Path, replicas: int = 2) -> Iterator[Site]:
    made = Site(folder, replicas)
    try:
        yield made
    finally:
        made.runner.close()


def release(authority: Authority, name: str, *blocks: Held, generation: str = "") -> Release:
    now = authority.replica.view.meta
    assert now is not None
    return Release(
        node=name,
        uid=f"uid-{name}",
        epoch=1,
        generation=generation or now.generation,
        blocks=blocks,
    )


def faults(cluster: Site, which: int, given: Faults) -> None:
    kv = cluster.replicas[which].replica.kv
    assert isinstance(kv, MemoryKV)
    kv.faults = given
