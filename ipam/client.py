"""ipamd as a node's agent asks it.

Each call is answered by whichever ipamd is there (ipam.channel), or fails in seconds.
"""

from collections.abc import AsyncGenerator, Callable, Sequence

from ipam.calls import (
    Audit,
    Claim,
    Claimed,
    Leave,
    Mirror,
    Register,
    Registered,
    Release,
    Update,
)
from ipam.channel import Channels
from ipam.rpc import ipamd_pb2 as pb
from ipam.tls import TLSFiles
from ipam.wire import parse, parse_network, render
from net.address import IPNetwork

_WITHIN_S = 5.0
_LEAVE_S = 2.0  # an agent is to end within seconds
_MIRROR_S = 20.0  # thousands of leases are many transactions


class Client:
    """To be used within one event loop.

    Every method raises Refused, KVError (Ambiguous: it may have been done), IpamdAway,
    IpamdFault, BadCredentials.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | Callable[[], Sequence[str]],
        files: TLSFiles,
        *,
        server_name: str = "",
    ) -> None:
        self._channels = Channels(endpoints, files, server_name=server_name)

    async def register(self, asked: Register) -> Registered:
        request = render(pb.RegisterRequest, asked)
        return parse(Registered, await self._channels.call("Register", request, within_s=_WITHIN_S))

    async def claim(self, asked: Claim) -> Claimed:
        request = render(pb.ClaimRequest, asked)
        return parse(Claimed, await self._channels.call("Claim", request, within_s=_WITHIN_S))

    async def release(self, asked: Release) -> tuple[IPNetwork, ...]:
        """What is no longer this node's."""
        request = render(pb.ReleaseRequest, asked)
        reply = await self._channels.call("Release", request, within_s=_WITHIN_S)
        return tuple(parse_network("released", text) for text in reply.released)

    async def mirror(self, asked: Mirror) -> int:
        """Up to which sequence ipamd has the leases."""
        request = render(pb.MirrorRequest, asked)
        reply = await self._channels.call("Mirror", request, within_s=_MIRROR_S)
        return int(reply.sequence)

    async def audit(self, asked: Audit) -> None:
        request = render(pb.AuditRequest, asked)
        await self._channels.call("Audit", request, within_s=_WITHIN_S)

    async def leave(self, asked: Leave) -> None:
        request = render(pb.LeaveRequest, asked)
        await self._channels.call("Leave", request, within_s=_LEAVE_S)

    async def watch(self, *, after: int, frozen: bool) -> AsyncGenerator[Update, None]:
        """The cluster's table, and its changes, until the stream ends.

        It does where claims freeze, and at once where they are and the node was not told so.
        """
        async with self._channels.stub() as stub:
            async for reply in stub.Watch(pb.WatchRequest(after=after, frozen=frozen)):
                yield parse(Update, reply)

    async def close(self) -> None:
        await self._channels.close()
