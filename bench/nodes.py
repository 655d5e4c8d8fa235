"""Simulated nodes, many in one process: `nodes.py CONFIG`, told what to do on standard input.

CONFIG is JSON: "endpoints" and, by name, the files of each node.  Each node has a connection and
a certificate of its own, and speaks ipamd's protocol over grpc.aio as its agent does; what it is
told by its stream is noted, not kept.  A command is a line of JSON, and so is its answer; times
are CLOCK_MONOTONIC, which all processes of a machine share.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from ipam.rpc import ipamd_pb2 as pb
from ipam.wire import MAX_REPLY

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REPLY),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
_WITHIN_S = 60.0


class Told:
    """When which block was first told, by stream; a message that all get is parsed once."""

    def __init__(self) -> None:
        self.messages = self.bytes = 0
        self._known: dict[bytes, tuple[tuple[str, ...], str]] = {}
        self._times: dict[str, list[float]] = {}

    def note(self, message: bytes) -> str:
        """The audit that is asked for, or ""."""
        now = time.monotonic()
        self.messages += 1
        self.bytes += len(message)
        cidrs, audit = self._read(message)
        for cidr in cidrs:
            self._times.setdefault(cidr, []).append(now)
        return audit

    def times(self, cidr: str) -> list[float]:
        return self._times.get(cidr, [])

    def forget(self) -> None:
        self.messages = self.bytes = 0
        self._known.clear()
        self._times.clear()

    def _read(self, message: bytes) -> tuple[tuple[str, ...], str]:
        if (known := self._known.get(message)) is None:
            update = pb.WatchReply.FromString(message)
            cidrs = () if update.whole else tuple(row.cidr for row in update.rows)
            known = cidrs, update.audit
            # One that is told to one stream alone need not be kept for others.
            self._known = {message: known}
        return known


@dataclass(slots=True)
class Node:
    """One node, as its agent would be at its first start."""

    name: str
    channel: aio.Channel
    told: Told
    uid: str = ""
    epoch: int = 0
    blocks: list[Any] = field(default_factory=list)
    leases: list[Any] = field(default_factory=list)
    watching: "asyncio.Task[None] | None" = field(default=None, repr=False)
    answering: "set[asyncio.Task[Any]]" = field(default_factory=set, repr=False)

    async def register(self) -> None:
        self.uid = f"uid-{self.name}"
        number = int(self.name.rpartition("-")[2])
        request = pb.RegisterRequest(
            node=self.name,
            uid=self.uid,
            boot_id=f"boot-{self.name}",
            instance=f"instance-{self.name}",
            addresses=[f"10.0.{number // 250}.{number % 250 + 1}", f"fd00::{number + 1:x}"],
        )
        reply = await self._call("Register", request, pb.RegisterReply)
        self.epoch = reply.epoch

    async def claim(self, attempt: int = 0) -> list[str]:
        request = pb.ClaimRequest(
            node=self.name,
            uid=self.uid,
            epoch=self.epoch,
            families=[4, 6],
            nonce=f"nonce-{self.name}-{attempt}",
        )
        reply = await self._call("Claim", request, pb.ClaimReply)
        self.blocks += reply.blocks
        return [block.cidr for block in reply.blocks]

    async def watch(self) -> None:
        method = self.channel.unary_stream(
            "/isthmus.ipam.v1.IPAM/Watch", request_serializer=pb.WatchRequest.SerializeToString
        )
        async for message in method(pb.WatchRequest(after=0)):
            if audit := self.told.note(message):
                task = asyncio.create_task(self.answer(audit))
                self.answering.add(task)
                task.add_done_callback(self.answering.discard)

    async def lease(self, each: int) -> None:
        """Mirror so many leases, each with an address of every block."""
        self.leases = [
            pb.MirroredLease(
                network="pods",
                container_id=f"{number:032x}{self.name:>32}".replace(" ", "0"),
                ifname="eth0",
                addresses=[str(ip_network(block.cidr)[number + 1]) for block in self.blocks],
                pod=f"shop/{self.name}-{number}",
            )
            for number in range(each)
        ]
        request = pb.MirrorRequest(
            node=self.name,
            uid=self.uid,
            epoch=self.epoch,
            sequence=1,
            whole=True,
            leases=self.leases,
        )
        await self._call("Mirror", request, pb.MirrorReply)

    async def answer(self, audit: str) -> None:
        """Say what it holds, as an agent does: within a second."""
        await asyncio.sleep(random.random())
        request = pb.AuditRequest(
            node=self.name,
            uid=self.uid,
            epoch=self.epoch,
            audit=audit,
            blocks=self.blocks,
            leases=self.leases,
        )
        await self._call("Audit", request, pb.AuditReply)

    async def _call(self, name: str, request: Any, reply: Any) -> Any:
        method = self.channel.unary_unary(
            f"/isthmus.ipam.v1.IPAM/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        return await method(request, timeout=_WITHIN_S)


class Crowd:
    """All nodes of this process; each method is a command."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._told = Told()
        ca = Path(config["ca"]).read_bytes()
        self._nodes = []
        for name, (number, certificate, key) in config["nodes"].items():
            credentials = grpc.ssl_channel_credentials(
                ca, Path(key).read_bytes(), Path(certificate).read_bytes()
            )
            endpoint = config["endpoints"][number % len(config["endpoints"])]
            channel = aio.secure_channel(endpoint, credentials, options=_OPTIONS)
            self._nodes.append(Node(name, channel, self._told))

    async def connect(self) -> dict[str, Any]:
        """One connection a node; TLS on both sides."""
        return await self._all(lambda node: node.channel.channel_ready())

    async def watch(self) -> dict[str, Any]:
        """Open every node's stream, once it has registered."""
        for node in self._nodes:
            node.watching = asyncio.create_task(node.watch())
        return {}

    async def register(self) -> dict[str, Any]:
        return await self._all(lambda node: node.register())

    async def begin(self, *, watching: bool) -> dict[str, Any]:
        """What an agent does at its first start: register, follow the table, claim."""
        blocks: list[str] = []

        async def one(node: Node) -> None:
            await node.register()
            if watching:
                node.watching = asyncio.create_task(node.watch())
            blocks.extend(await node.claim())

        return await self._all(one) | {"blocks": blocks}

    async def lease(self, each: int) -> dict[str, Any]:
        """All nodes have leases, and tell them."""
        return await self._all(lambda node: node.lease(each))

    async def claim(self, attempt: int) -> dict[str, Any]:
        """The first node alone claims once more."""
        began = time.monotonic()
        blocks = await self._nodes[0].claim(attempt)
        return {"blocks": blocks, "began": began, "ended": time.monotonic()}

    async def told(self, cidr: str) -> dict[str, Any]:
        """When each stream was told of *cidr*."""
        return {"times": self._told.times(cidr)}

    async def forget(self) -> dict[str, Any]:
        """What the streams brought so far, which is then forgotten."""
        brought = {"messages": self._told.messages, "bytes": self._told.bytes}
        self._told.forget()
        return brought

    async def _all(self, work: Callable[[Node], Awaitable[Any]]) -> dict[str, Any]:
        began = time.monotonic()
        await asyncio.gather(*(work(node) for node in self._nodes))
        return {"began": began, "ended": time.monotonic()}


async def main(config: dict[str, Any]) -> None:
    crowd = Crowd(config)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, options = json.loads(line)
        try:
            answer = await getattr(crowd, name)(**options)
        except aio.AioRpcError as exc:
            answer = {"error": f"{name}: {exc.code().name}: {exc.details()}"}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
