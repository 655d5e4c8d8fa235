"""A node's talk with an ipamd in this process: the real decisions, over a store in memory."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

from agent.talk import Identity, Surroundings, Talk
from dataplane.errors import DataplaneError
from ipam import calls
from ipam.allocator import Allocator
from ipam.authority import Authority
from ipam.blocks import Blocks
from ipam.cluster import NodeState, Pool
from ipam.errors import IPAMError
from ipam.memory import DaemonMemory
from ipam.memory_kv import MemoryCluster, MemoryKV
from net.address import IPNetwork
from tests.unit.ipam.cases import BOOT, Clock, FragileStore, record, who

FOUR, SIX = "10.30.0.0/28", "fd30::/120"


class Away(IPAMError):
    """Nobody answers."""


class Ipamd:
    """What a client is, without a network; *away*, a call fails before it is heard, and *lost*,
    for the next calls, after it was carried out."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.away = False
        self.lost = 0
        self.asked: list[Any] = []
        self.closed = False

    async def register(self, asked: calls.Register) -> calls.Registered:
        return await self._answer(asked, self.authority.register)

    async def claim(self, asked: calls.Claim) -> calls.Claimed:
        return await self._answer(asked, self.authority.claim)

    async def release(self, asked: calls.Release) -> tuple[IPNetwork, ...]:
        return await self._answer(asked, self.authority.release)

    async def mirror(self, asked: calls.Mirror) -> int:
        return await self._answer(asked, self.authority.mirror)

    async def audit(self, asked: calls.Audit) -> None:
        await self._answer(asked, self.authority.audited)

    async def leave(self, asked: calls.Leave) -> None:
        await self._answer(asked, self.authority.leave)

    async def watch(self, *, after: int, frozen: bool) -> AsyncGenerator[calls.Update, None]:
        if self.away:
            raise Away("nobody answers")
        async with aclosing(self.authority.watch("n1", after=after, frozen=frozen)) as updates:
            async for update in updates:
                if self.away:
                    raise Away("the stream ended")
                yield update

    async def close(self) -> None:
        self.closed = True

    async def _answer(self, asked: Any, work: Callable[[Any], Awaitable[Any]]) -> Any:
        if self.away:
            raise Away("nobody answers")
        self.asked.append(asked)
        answer = await work(asked)
        if self.lost:
            self.lost -= 1
            raise Away("no answer came")
        return answer

    def of(self, kind: type) -> list[Any]:
        return [asked for asked in self.asked if isinstance(asked, kind)]


class Site:
    """One node, n1, with its ipamd; time stands still until told."""

    def __init__(self, directory: Path) -> None:
        self.now = 100.0
        self.kv = MemoryCluster(lambda: self.now)
        self.authority = Authority(
            MemoryKV(self.kv),
            cluster="test",
            memory=DaemonMemory(directory / "memory.json"),
            clock=lambda: self.now,
            random=Random(1),
        )
        self.ipamd = Ipamd(self.authority)
        self.store = FragileStore()
        self.enforced: list[frozenset[str]] = []
        self.broken = False
        self._new_uid = "u1"
        self.leases, self.talk = self._wire(BOOT)

    def _wire(self, boot: str) -> tuple[Allocator, Talk]:
        leases = Allocator(self.store, boot_id=boot, now=Clock())
        blocks = Blocks(
            leases,
            self.store.load(),
            boot_id=boot,
            new_uid=lambda: self._new_uid,
            pod_of=lambda one: one.spec,
            clock=lambda: self.now,
        )
        leases.join(blocks)
        who = Identity(
            node="n1",
            instance="i1",
            labels=lambda: {"zone": "a"},
            addresses=lambda: (ip_address("192.0.2.1"),),
        )
        around = Surroundings(
            enforce=self._enforce,
            pod_of=lambda one: "shop/web" if "named" in one.who.container_id else "",
            clock=lambda: self.now,
            random=Random(2),
        )
        talk = Talk(blocks=blocks, leases=leases, ipamd=self.ipamd, who=who, around=around)
        return leases, talk

    def _enforce(self, lost: Collection[IPNetwork]) -> None:
        if self.broken:
            raise DataplaneError("nft is missing")
        self.enforced.append(frozenset(map(str, lost)))

    def restart(self, boot: str = BOOT) -> None:
        """Another life of the agent, over the same store."""
        self.leases.close()
        self.leases, self.talk = self._wire(boot)

    def lose_store(self, uid: str) -> None:
        """Another life, with no store: it makes one, and a *uid*."""
        self.leases.close()
        self.store, self._new_uid = FragileStore(), uid
        self.leases, self.talk = self._wire(BOOT)

    def state_of_node(self) -> NodeState:
        return self.authority.replica.view.nodes["n1"].state

    async def open(self, *, init: bool = True) -> None:
        """Pools of both families."""
        await self.authority.replica.resync()
        if init:
            await self.authority.init(calls.Init())
            await self.pool("four", FOUR, 29)
            await self.pool("six", SIX, 122)
            await self.authority.change_settings(quarantine_s=0)

    async def pool(self, name: str, cidr: str, length: int, **more: Any) -> None:
        pool = Pool(name=name, cidr=ip_network(cidr), block_length=length, **more)
        await self.authority.put_pool(pool)

    async def fence(self) -> None:
        """Cut the node off, and free its blocks."""
        await self.authority.drain(calls.Drain(node="n1", fenced=True, force=True, by="x"))
        for _ in range(4):
            await self.authority.tick()

    async def take_all(self) -> None:
        """Let another node have every block that is free."""
        me: dict[str, Any] = {"node": "n2", "uid": "u2"}
        await self.authority.register(calls.Register(boot_id="b2", instance="i2", **me))
        for number in range(100):
            for family in (4, 6):
                try:
                    claim = calls.Claim(
                        epoch=1, nonce=f"{number}-{family}", families=(family,), **me
                    )
                    await self.authority.claim(claim)
                except IPAMError:
                    continue

    def blocks(self) -> dict[str, str]:
        return {str(b.cidr): b.state.value for b in self.talk.blocks.holdings.blocks}

    def states(self) -> list[str]:
        return [b.state.value for b in self.talk.blocks.holdings.blocks]

    def give(self, number: int, *pools: str, name: str = "") -> list[str]:
        """An ADD's part in it."""
        owner = replace(who(number), container_id=f"c{number}{name}")
        leases = self.leases.reserve(owner, self.talk.blocks.wanted(pools))
        held = record(owner, *(str(lease.address) for lease in leases))
        self.leases.hold(held).result()
        return [str(lease.address.ip) for lease in leases]

    def take_back(self, number: int, name: str = "") -> None:
        self.leases.release(replace(who(number), container_id=f"c{number}{name}")).result()


@contextmanager
def made_site(directory: Path) -> Iterator[Site]:
    site = Site(directory)
    try:
        yield site
    finally:
        site.leases.close()


async def until(claim: Callable[[], object]) -> None:
    """Wait for what other tasks do."""
    async with asyncio.timeout(60):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
