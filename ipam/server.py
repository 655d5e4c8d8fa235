"""The edge of ipamd: certificates to names, messages to calls, refusals to gRPC's statuses.

Nothing is decided here but who may ask what: a node's certificate touches that node's records
alone, an administrator's everything else.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from ipam import calls, kv, refusals
from ipam.cluster import Pool, Settings
from ipam.errors import IPAMError
from ipam.health import Health
from ipam.refusals import Invalid, NotAllowed, NotReady, Unidentified
from ipam.rpc import ipamd_pb2 as pb
from ipam.texts import legible
from ipam.tls import ADMIN, NODE, PEM, BadCredentials, TLSFiles, Who, identify
from ipam.wire import (
    MAX_REPLY,
    MAX_REQUEST,
    REFUSAL_KEY,
    given_in,
    parse,
    parse_network,
    parse_some,
    render,
)

if TYPE_CHECKING:
    from ipam.authority import Authority

log = logging.getLogger(__name__)

Asked = TypeVar(
    "Asked", calls.Register, calls.Claim, calls.Release, calls.Mirror, calls.Audit, calls.Leave
)
Context = Any  # grpc.aio.ServicerContext

# A refusal goes as metadata, of which gRPC takes 8 KiB; it may repeat what was asked.
LONGEST_REFUSAL = 4096
SHARED = 16
ROWS = 1 << 14

_MALFORMED = "the request is no message of this protocol"
_LEAVING = "this ipamd is going away: ask another"
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST),
    ("grpc.max_send_message_length", MAX_REPLY),
    ("grpc.max_concurrent_streams", 16),  # on one connection: a node has a handful
    ("grpc.max_metadata_size", 16 << 10),
    # A node that is cut off is seen alive for these 15 s more.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Each hour the certificate is looked at anew, by another handshake.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
    ("grpc.so_reuseport", 0),
    # By default gRPC throws dice over each call once a thousand wait to be looked at: all nodes
    # of a large cluster come at once when they find their ipamd again.
    ("grpc.server.max_pending_requests", 16_384),
    ("grpc.server.max_pending_requests_hard_limit", 16_384),
)
_STATUS: dict[type[IPAMError], grpc.StatusCode] = {
    refusals.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    refusals.Unknown: grpc.StatusCode.NOT_FOUND,
    refusals.AlreadyThere: grpc.StatusCode.ALREADY_EXISTS,
    refusals.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    refusals.Contended: grpc.StatusCode.ABORTED,
    refusals.NotReady: grpc.StatusCode.UNAVAILABLE,
    refusals.NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    refusals.Unidentified: grpc.StatusCode.UNAUTHENTICATED,
    refusals.Refused: grpc.StatusCode.FAILED_PRECONDITION,
    kv.Ambiguous: grpc.StatusCode.ABORTED,
    kv.OutOfSpace: grpc.StatusCode.RESOURCE_EXHAUSTED,
    kv.KVError: grpc.StatusCode.UNAVAILABLE,
    IPAMError: grpc.StatusCode.INTERNAL,
}


def _answered(check: Callable[[Who], None], times: float = 1.0) -> Callable[[Any], Any]:
    """Make a handler of gRPC's of a method that answers a request of somebody who may ask it.

    It may take *times* as long as any other.
    """

    def wrap(work: Callable[["Edge", Any, Who], Awaitable[Any]]) -> Any:
        async def handle(self: "Edge", request: Any, context: Context) -> Any:
            async with refusing(context):
                who = _who(context)
                check(who)
                if request is None:
                    raise Invalid(_MALFORMED)
                within_s = times * self.longest_call_s
                try:
                    async with asyncio.timeout(within_s):
                        return await work(self, request, who)
                except TimeoutError:
                    raise kv.Ambiguous(f"no end within {within_s:g} s") from None

        return handle

    return wrap


def _node(who: Who) -> None:
    if who.is_admin:
        raise NotAllowed(f"{who.name} is no node: this is asked with a node's certificate")


def _admin(who: Who) -> None:
    if not who.is_admin:
        raise NotAllowed(f"{who.name} is no administrator: use a certificate of {ADMIN}")


class Messages:
    """The latest updates as they are sent, made once for all streams that share them."""

    def __init__(self) -> None:
        self._latest: deque[tuple[calls.Update, bytes]] = deque(maxlen=SHARED)

    def of(self, update: calls.Update) -> bytes:
        for known, message in self._latest:
            if known is update:
                return message
        # Messages that stand one after another are one, of all their rows (protobuf's encoding).
        rest = render(pb.WatchReply, replace(update, rows=())).SerializeToString()
        message = b"".join((rest, *map(_row, update.rows)))
        self._latest.appendleft((update, message))
        return message


@lru_cache(ROWS)
def _row(row: calls.TableRow) -> bytes:
    """One row as a message of its own: of a table few are new."""
    return bytes(render(pb.WatchReply, calls.Update(revision=0, rows=(row,))).SerializeToString())


class CannotListen(IPAMError):
    """The address is in use, or none of this host's."""


class Edge:
    """Every call of the service, for whoever its certificate says."""

    def __init__(
        self,
        authority: "Authority",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        longest_call_s: float = 30.0,
    ) -> None:
        self.longest_call_s = longest_call_s
        self._authority = authority
        self._now = now
        self._messages = Messages()
        self._streams: set[asyncio.Timeout] = set()
        self._leaving = False

    def leave(self) -> None:
        """End every stream, and refuse new ones: their nodes go to another replica."""
        self._leaving = True
        for stream in self._streams:
            stream.reschedule(asyncio.get_running_loop().time())

    @_answered(_node)
    async def Register(self, request: pb.RegisterRequest, who: Who) -> pb.RegisterReply:
        asked = _own(who, parse(calls.Register, request))
        return render(pb.RegisterReply, await self._authority.register(asked))

    @_answered(_node)
    async def Claim(self, request: pb.ClaimRequest, who: Who) -> pb.ClaimReply:
        asked = _own(who, parse(calls.Claim, request))
        return render(pb.ClaimReply, await self._authority.claim(asked))

    @_answered(_node)
    async def Release(self, request: pb.ReleaseRequest, who: Who) -> pb.ReleaseReply:
        asked = _own(who, parse(calls.Release, request))
        return pb.ReleaseReply(released=map(str, await self._authority.release(asked)))

    @_answered(_node)
    async def Mirror(self, request: pb.MirrorRequest, who: Who) -> pb.MirrorReply:
        asked = _own(who, parse(calls.Mirror, request))
        return pb.MirrorReply(sequence=await self._authority.mirror(asked))

    @_answered(_node)
    async def Audit(self, request: pb.AuditRequest, who: Who) -> pb.AuditReply:
        await self._authority.audited(_own(who, parse(calls.Audit, request)))
        return pb.AuditReply()

    @_answered(_node)
    async def Leave(self, request: pb.LeaveRequest, who: Who) -> pb.LeaveReply:
        await self._authority.leave(_own(who, parse(calls.Leave, request)))
        return pb.LeaveReply()

    async def Watch(self, request: pb.WatchRequest, context: Context) -> None:
        """The table and its changes, until the node goes, or this replica does."""
        async with refusing(context):
            who = _who(context)
            _node(who)
            if request is None:
                raise Invalid(_MALFORMED)
            if self._leaving:
                raise NotReady(_LEAVING)
            try:
                async with asyncio.timeout(None) as stream:
                    self._streams.add(stream)
                    await self._stream(who.node, request, context)
            except TimeoutError:
                raise NotReady(_LEAVING) from None
            finally:
                self._streams.discard(stream)

    async def _stream(self, node: str, asked: pb.WatchRequest, context: Context) -> None:
        updates: Any = self._authority.watch(node, after=asked.after, frozen=asked.frozen)
        async with aclosing(updates):
            async for update in updates:
                await context.write(self._messages.of(update))

    @_answered(_admin)
    async def Init(self, request: pb.InitRequest, _who: Who) -> pb.InitReply:
        return render(pb.InitReply, await self._authority.init(parse(calls.Init, request)))

    @_answered(_admin)
    async def PutPool(self, request: pb.PutPoolRequest, _who: Who) -> pb.PutPoolReply:
        await self._authority.put_pool(parse(Pool, request.pool), create=request.create)
        return pb.PutPoolReply()

    @_answered(_admin)
    async def ChangePool(self, request: pb.ChangePoolRequest, _who: Who) -> pb.ChangePoolReply:
        changes = parse_some(Pool, request.pool, request.fields)
        await self._authority.change_pool(request.pool.name, **changes)
        return pb.ChangePoolReply()

    @_answered(_admin)
    async def DeletePool(self, request: pb.DeletePoolRequest, _who: Who) -> pb.DeletePoolReply:
        await self._authority.delete_pool(request.name)
        return pb.DeletePoolReply()

    @_answered(_admin)
    async def PutSettings(self, request: pb.PutSettingsRequest, _who: Who) -> pb.PutSettingsReply:
        given = given_in(request.settings)
        await self._authority.change_settings(**parse_some(Settings, request.settings, given))
        return pb.PutSettingsReply()

    @_answered(_admin)
    async def Drain(self, request: pb.DrainRequest, who: Who) -> pb.DrainReply:
        asked = calls.Drain(
            node=request.node,
            fenced=request.fenced,
            wiped=request.wiped,
            undo=request.undo,
            force=request.force,
            by=legible(f"{who.name} at {self._now().isoformat(timespec='seconds')}"),
        )
        return render(pb.DrainReply, await self._authority.drain(asked))

    @_answered(_admin)
    async def Pin(self, request: pb.PinRequest, _who: Who) -> pb.PinReply:
        await self._authority.pin(parse(calls.Pin, request))
        return pb.PinReply()

    @_answered(_admin)
    async def ReleaseBlock(
        self, request: pb.ReleaseBlockRequest, _who: Who
    ) -> pb.ReleaseBlockReply:
        cidr = parse_network("cidr", request.cidr)
        await self._authority.release_block(cidr, mod_revision=request.mod_revision)
        return pb.ReleaseBlockReply()

    @_answered(_admin)
    async def ReleaseMirror(
        self, request: pb.ReleaseMirrorRequest, _who: Who
    ) -> pb.ReleaseMirrorReply:
        await self._authority.release_mirror(request.node, mod_revision=request.mod_revision)
        return pb.ReleaseMirrorReply()

    @_answered(_admin)
    async def Show(self, request: pb.ShowRequest, _who: Who) -> pb.ShowReply:
        shown = await self._authority.show(request.what, request.argument)
        return pb.ShowReply(json=json.dumps(shown))

    # Twice every node is asked, and every lease of the cluster is read.
    @_answered(_admin, times=4)
    async def Check(self, _request: pb.CheckRequest, _who: Who) -> pb.CheckReply:
        found = await self._authority.check()
        return pb.CheckReply(findings=[render(pb.Finding, _legible(one)) for one in found])


def _legible(finding: calls.Finding) -> calls.Finding:
    """Keys of others have any bytes for a name."""
    return replace(finding, subject=legible(finding.subject), text=legible(finding.text))


def make_server(edge: Edge, health: Health, *, max_calls: int) -> aio.Server:
    """A server that has yet to be bound to an address, with every buffer bounded."""
    server = aio.server(options=_OPTIONS, maximum_concurrent_rpcs=max_calls)
    server.add_generic_rpc_handlers((_handlers(edge), health.handlers()))
    return server


def bind(server: aio.Server, address: str, credentials: Any) -> int:
    """The port at which *server* will listen.  Raises CannotListen."""
    try:
        port: int = server.add_secure_port(address, credentials)
    except RuntimeError as exc:
        raise CannotListen(f"cannot listen at {address}: {exc}") from exc
    return port


def _handlers(edge: Edge) -> Any:
    """As the generated code makes them, but what cannot be read is refused, not logged as a bug."""
    service = pb.DESCRIPTOR.services_by_name["IPAM"]
    return grpc.method_handlers_generic_handler(
        service.full_name,
        {
            method.name: (
                grpc.unary_stream_rpc_method_handler
                if method.server_streaming
                else grpc.unary_unary_rpc_method_handler
            )(
                getattr(edge, method.name),
                request_deserializer=reader(getattr(pb, method.input_type.name)),
                response_serializer=_bytes,
            )
            for method in service.methods
        },
    )


def _bytes(reply: Any) -> bytes:
    return reply if isinstance(reply, bytes) else bytes(reply.SerializeToString())


def reader(kind: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return read


def server_credentials(files: TLSFiles, *, of_both: bool = True) -> Any:
    """TLS by *files*, looked at before every handshake; *of_both*: clients show theirs, too.

    Files that cannot be used leave the former certificate in place, and are logged once.
    """
    current = files.read()
    stamp = files.stamp()

    def fetch() -> Any:
        nonlocal stamp
        if (now := files.stamp()) == stamp:
            return None
        stamp = now
        try:
            renewed = files.read()
        except BadCredentials as exc:
            log.error("new certificate not used", extra={"error": str(exc)})
            return None
        log.info("new certificate in use", extra={"certificate": str(files.certificate)})
        return _configuration(renewed)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(current), fetch, require_client_authentication=of_both
    )


def _configuration(pem: PEM) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.certificate)], root_certificates=pem.ca
    )


def _who(context: Context) -> Who:
    """Whom the caller's certificate names.  Raises Unidentified."""
    proven = context.auth_context()
    names = [
        name.decode(errors="replace")
        for key in ("x509_common_name", "peer_uri")
        for name in proven.get(key, ())
    ]
    if (who := identify(names)) is None:
        raise Unidentified(
            f"the certificate names {', '.join(names) or 'nobody'}: it must name one of "
            f"{NODE}NAME and {ADMIN}, as URI or as common name"
        )
    return who


def _own(who: Who, asked: Asked) -> Asked:
    if asked.node != who.node:
        raise NotAllowed(f"{who.name} cannot speak for node {asked.node!r}")
    return asked


@asynccontextmanager
async def refusing(context: Context) -> AsyncIterator[None]:
    """Answer what is raised inside with its status; its name goes along for our own clients."""
    try:
        yield
    except IPAMError as exc:
        status = next(_STATUS[kind] for kind in type(exc).__mro__ if kind in _STATUS)
        named = ((REFUSAL_KEY, type(exc).__name__),)
        text = legible(str(exc), LONGEST_REFUSAL)
        await context.abort(status, text, trailing_metadata=named)
    except aio.AbortError:
        raise
    except Exception:  # the edge: a bug in one call must not tell its caller our insides
        log.exception("internal error")
        await context.abort(grpc.StatusCode.INTERNAL, "internal error; its log says which")
