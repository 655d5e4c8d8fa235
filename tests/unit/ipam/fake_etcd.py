"""A member of etcd that answers what a test says, over real gRPC on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aetcd import rpc
from aetcd.rpc import rpc_pb2_grpc

CLUSTER = 77


def header(revision: int = 10, *, cluster_id: int = CLUSTER, term: int = 2) -> Any:
    return rpc.ResponseHeader(cluster_id=cluster_id, revision=revision, raft_term=term)


@dataclass(slots=True)
class Scripted:
    """One member: a method's answers come from its script, the last of them again and again.

    An answer is a message, or (code, details) to fail with, or a coroutine function of the
    request.  *asked* holds (method, request, token) in order.
    """

    scripts: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, Any, str]] = field(default_factory=list)
    url: str = ""

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.asked]

    def tokens(self, method: str) -> list[str]:
        return [token for name, _, token in self.asked if name == method]

    async def answer(self, method: str, request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        self.asked.append((method, request, metadata.get("token", "")))
        script = self.scripts[method]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if callable(answer):
            answer = await answer(request)
        if isinstance(answer, tuple):
            await context.abort(*answer)
        return answer


class _KV(rpc_pb2_grpc.KVServicer):  # type: ignore[misc]
    def __init__(self, member: Scripted) -> None:
        self._member = member

    async def Range(self, request: Any, context: Any) -> Any:
        return await self._member.answer("Range", request, context)

    async def Txn(self, request: Any, context: Any) -> Any:
        return await self._member.answer("Txn", request, context)


class _Lease(rpc_pb2_grpc.LeaseServicer):  # type: ignore[misc]
    def __init__(self, member: Scripted) -> None:
        self._member = member

    async def LeaseKeepAlive(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """A script's answer is the list of responses of one stream, which then ends."""
        request = await anext(aiter(requests))
        for response in await self._member.answer("LeaseKeepAlive", request, context):
            yield response


class _Auth(rpc_pb2_grpc.AuthServicer):  # type: ignore[misc]
    def __init__(self, member: Scripted) -> None:
        self._member = member

    async def Authenticate(self, request: Any, context: Any) -> Any:
        return await self._member.answer("Authenticate", request, context)


class _Watch(rpc_pb2_grpc.WatchServicer):  # type: ignore[misc]
    def __init__(self, member: Scripted) -> None:
        self._member = member

    async def Watch(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """A script's answer is the list of responses of one stream, which then ends."""
        request = await anext(aiter(requests))
        for response in await self._member.answer("Watch", request, context):
            yield response


@asynccontextmanager
async def member(**scripts: list[Any]) -> AsyncIterator[Scripted]:
    """Serve; Range answers an empty store unless its script says otherwise."""
    scripted = Scripted({"Range": [rpc.RangeResponse(header=header())], **scripts})
    server = grpc.aio.server()
    rpc_pb2_grpc.add_KVServicer_to_server(_KV(scripted), server)
    rpc_pb2_grpc.add_AuthServicer_to_server(_Auth(scripted), server)
    rpc_pb2_grpc.add_LeaseServicer_to_server(_Lease(scripted), server)
    rpc_pb2_grpc.add_WatchServicer_to_server(_Watch(scripted), server)
    scripted.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield scripted
    finally:
        await server.stop(None)
