"""An ipamd whose decisions a test makes: the real edge and real TLS on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ipam import calls
from ipam.channel import Channels
from ipam.cluster import NodeState, Pool
from ipam.health import Health
from ipam.server import Edge, make_server, server_credentials
from ipam.tls import TLSFiles
from tests.certificates import Authority

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BLOCK = calls.Held(cidr=ip_network("10.0.0.0/26"), pool="p", epoch=1, revision=3)


@dataclass
class Decisions:
    """Remembers what it was asked; answers, or does what *instead* says."""

    asked: list[Any] = field(default_factory=list)
    instead: Callable[[], Awaitable[Any]] | None = None
    updates: tuple[calls.Update, ...] = (calls.Update(revision=5, whole=True),)
    findings: tuple[calls.Finding, ...] = (
        calls.Finding(kind=calls.FindingKind.LEAK, subject="s", text="t"),
    )
    ended: list[str] = field(default_factory=list)
    one_ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def _note(self, what: Any) -> None:
        self.asked.append(what)
        if self.instead is not None:
            await self.instead()

    async def register(self, asked: calls.Register) -> calls.Registered:
        await self._note(asked)
        return calls.Registered(
            epoch=1, generation="g", counter=2, node_state=NodeState.ACTIVE, blocks=(BLOCK,)
        )

    async def claim(self, asked: calls.Claim) -> calls.Claimed:
        await self._note(asked)
        return calls.Claimed(blocks=(BLOCK,), counter=3)

    async def release(self, asked: calls.Release) -> tuple[Any, ...]:
        await self._note(asked)
        return tuple(block.cidr for block in asked.blocks)

    async def mirror(self, asked: calls.Mirror) -> int:
        await self._note(asked)
        return asked.sequence

    async def leave(self, asked: calls.Leave) -> None:
        await self._note(asked)

    async def watch(
        self, node: str, *, after: int = 0, frozen: bool = False
    ) -> AsyncIterator[calls.Update]:
        self.asked.append((node, after, frozen))
        instead = self.instead  # as it is now: the reader may be quicker than we go on
        try:
            for update in self.updates:
                yield update
            if instead is not None:
                await instead()
        finally:
            self.ended.append(node)
            self.one_ended.set()

    async def init(self, asked: calls.Init) -> calls.Initialized:
        await self._note(asked)
        return calls.Initialized(generation="g", made=True)

    async def put_pool(self, pool: Pool, *, create: bool = False) -> None:
        await self._note((pool, create))

    async def delete_pool(self, name: str) -> None:
        await self._note(name)

    async def change_pool(self, name: str, /, **changes: Any) -> None:
        await self._note((name, changes))

    async def change_settings(self, **changes: Any) -> None:
        await self._note(changes)

    async def drain(self, asked: calls.Drain) -> calls.Drained:
        await self._note(asked)
        return calls.Drained(state=NodeState.FENCED, blocks=(BLOCK.cidr,))

    async def pin(self, asked: calls.Pin) -> None:
        await self._note(asked)

    async def release_block(self, cidr: Any, *, mod_revision: int) -> None:
        await self._note((cidr, mod_revision))

    async def audited(self, asked: calls.Audit) -> None:
        await self._note(asked)

    async def release_mirror(self, node: str, *, mod_revision: int) -> None:
        await self._note((node, mod_revision))

    async def show(self, what: str, argument: str = "") -> object:
        await self._note((what, argument))
        return [{"name": argument}]

    async def check(self) -> tuple[calls.Finding, ...]:
        await self._note("check")
        return self.findings


@dataclass
class Site:
    """A served edge at *endpoint*; *signer* makes certificates that it trusts."""

    decisions: Decisions
    edge: Edge
    health: Health
    server: Any
    endpoint: str
    signer: Authority
    files: TLSFiles

    @asynccontextmanager
    async def channels(self, files: TLSFiles, *others: str) -> AsyncIterator[Channels]:
        channels = Channels([*others, self.endpoint], files)
        try:
            yield channels
        finally:
            await channels.close()

    async def ask(self, files: TLSFiles, method: str, request: Any) -> Any:
        """What *method* answers to the holder of *files*."""
        async with self.channels(files) as channels:
            return await channels.call(method, request, within_s=10)


@asynccontextmanager
async def served(directory: Path, **limits: Any) -> AsyncIterator[Site]:
    signer = Authority(directory / "signer")
    files = signer.server()
    decisions: Any = Decisions()
    health = Health()
    edge = Edge(decisions, now=lambda: NOON, **limits)
    credentials = server_credentials(files)
    server = make_server(edge, health, max_calls=64)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield Site(decisions, edge, health, server, f"127.0.0.1:{port}", signer, files)
    finally:
        await server.stop(0)
