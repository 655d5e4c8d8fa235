"""Calls to whichever of several ipamd answers, over mutual TLS.

A channel serves until a call over it finds its ipamd away, or the certificate's files changed;
then the next call opens another.  Calls that still run on the former one are left to end.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

from ipam.errors import IPAMError
from ipam.kv import Ambiguous, KVUnavailable
from ipam.refusals import Contended, Invalid, NotAllowed, NotReady
from ipam.rpc.ipamd_pb2_grpc import IPAMStub
from ipam.tls import TLSFiles
from ipam.wire import MAX_REPLY, MAX_REQUEST, REFUSAL_KEY, refusal

_EXPLAIN_S = 2.0
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REPLY),
    ("grpc.max_send_message_length", MAX_REQUEST),
    ("grpc.keepalive_time_ms", 10_000),  # a stream over a dead path ends in 15 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),  # a node's proxy is for the world outside
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4


class IpamdAway(IPAMError):
    """No ipamd answers; the message says of each why."""


class IpamdFault(IPAMError):
    """A bug in ipamd, told as such."""


# gRPC's words, of either side, sent or received; nothing else of that status is for good.
_TOO_LARGE = "message larger than max"
_ASK_ANOTHER = (IpamdAway, NotReady, KVUnavailable)
_MEANING: dict[grpc.StatusCode, tuple[type[IPAMError], str]] = {
    grpc.StatusCode.UNAVAILABLE: (IpamdAway, "{endpoint}: {text}"),
    # Dropped before anybody looked at it: by one that ends, or has more calls than it can take.
    grpc.StatusCode.CANCELLED: (IpamdAway, "{endpoint}: {text}"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Ambiguous, "ipamd {endpoint} did not answer in time"),
    grpc.StatusCode.UNAUTHENTICATED: (NotAllowed, "{text}"),
    grpc.StatusCode.PERMISSION_DENIED: (NotAllowed, "{text}"),
    grpc.StatusCode.INVALID_ARGUMENT: (Invalid, "{text}"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Contended, "ipamd {endpoint}: {text}"),
    grpc.StatusCode.UNIMPLEMENTED: (Invalid, "ipamd {endpoint} is of another version: {text}"),
}


@dataclass(slots=True)
class _Lane:
    """One channel, and how many calls are on it."""

    endpoint: str
    channel: aio.Channel
    stamp: object
    uses: int = 0


class Channels:
    """To be used, and closed, within one event loop."""

    def __init__(
        self,
        endpoints: Sequence[str] | Callable[[], Sequence[str]],
        files: TLSFiles,
        *,
        server_name: str = "",
    ) -> None:
        """*endpoints* may change; *server_name*: in ipamd's certificate, "": where it is asked."""
        self._find = endpoints if callable(endpoints) else lambda: endpoints
        self._files = files
        self._server_name = server_name
        self._at = 0
        self._lane: _Lane | None = None

    async def call(self, method: str, request: Any, *, within_s: float) -> Any:
        """The answer of the first ipamd that gives one; each may take *within_s*.

        Raises Refused and KVError as ipamd did, IpamdAway, IpamdFault, BadCredentials;
        Ambiguous where there was no answer in time.
        """
        errors: list[IPAMError] = []
        for _ in self._endpoints():
            try:
                async with self.stub() as stub:
                    return await getattr(stub, method)(request, timeout=within_s)
            except _ASK_ANOTHER as exc:
                errors.append(exc)
        reasons = "; ".join(dict.fromkeys(map(str, errors)))
        # One that is there, but cannot for now, says more than those that are away.
        kind = next((type(error) for error in errors if type(error) is not IpamdAway), IpamdAway)
        raise kind(reasons) from errors[-1].__cause__

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[IPAMStub]:
        """A stub on the present channel; errors of gRPC inside are raised as `call` does.

        After IpamdAway, NotReady and KVUnavailable the next one is to another ipamd.
        """
        lane = await self._present()
        lane.uses += 1
        try:
            yield IPAMStub(lane.channel)
        except aio.AioRpcError as exc:
            error = translated(exc, lane.endpoint)
            if isinstance(error, _ASK_ANOTHER):
                self._move_on(lane)
            if isinstance(error, IpamdAway):
                why = await explain(lane.endpoint, self._files, self._server_name)
                error = IpamdAway(f"{lane.endpoint}: {why}") if why else error
            raise error from exc
        finally:
            lane.uses -= 1
            if lane is not self._lane and not lane.uses:
                await lane.channel.close()

    async def close(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.channel.close()

    async def _present(self) -> _Lane:
        stamp, endpoints = self._files.stamp(), self._endpoints()
        lane = self._lane
        if lane is None or lane.stamp != stamp or lane.endpoint not in endpoints:
            self._lane = self._open(stamp, endpoints)
            if lane is not None and not lane.uses:
                await lane.channel.close()
        assert self._lane is not None
        return self._lane

    def _endpoints(self) -> Sequence[str]:
        """Raises IpamdAway where there is none."""
        if not (found := self._find()):
            raise IpamdAway("it is not known yet where ipamd is")
        return found

    def _open(self, stamp: object, endpoints: Sequence[str]) -> _Lane:
        pem = self._files.read()
        endpoint = endpoints[self._at % len(endpoints)]
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
        options = [*_OPTIONS, *name_options(self._server_name)]
        return _Lane(endpoint, aio.secure_channel(endpoint, credentials, options=options), stamp)

    def _move_on(self, lane: _Lane) -> None:
        if lane is self._lane:
            self._lane = None
            self._at += 1


def name_options(server_name: str) -> list[tuple[str, str]]:
    """Expect this name in the server's certificate, if any is said, wherever it is."""
    return [("grpc.ssl_target_name_override", server_name)] if server_name else []


def translated(exc: aio.AioRpcError, endpoint: str) -> IPAMError:
    """What *exc* means: what ipamd itself refused, or how the call failed on its way."""
    text = exc.details() or exc.code().name
    for key, value in exc.trailing_metadata() or ():
        if key == REFUSAL_KEY and (known := refusal(str(value), text)) is not None:
            return known
    if exc.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        return Invalid(
            f"a message to or from ipamd {endpoint} is too large, and would be again: {text}; "
            f"a request may have {MAX_REQUEST}, an answer {MAX_REPLY}"
        )
    kind, words = _MEANING.get(exc.code(), (IpamdFault, "{endpoint}: {text}"))
    return kind(words.format(endpoint=endpoint, text=text))


async def _hung_up(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes; one that says nothing for a while has at least let us in."""
    try:
        async with asyncio.timeout(_EXPLAIN_S / 2):
            return not await reader.read(1)
    except TimeoutError:
        return False


async def explain(endpoint: str, files: TLSFiles, server_name: str = "") -> str:
    """Why no connection to *endpoint* comes about, as TLS says it; "" where one does.

    gRPC tells of a refused certificate only that the connection ended.
    """
    host, _, port = endpoint.rpartition(":")
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(_EXPLAIN_S):
            reader, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=context, server_hostname=server_name or None
            )
            try:
                # With TLS 1.3 the server's opinion of our certificate comes after the handshake,
                # and before anything else only where it is a bad one.
                writer.write(_PREFACE)
                if await _hung_up(reader):
                    known = files.fault() or "we see nothing wrong with it"
                    return f"it hung up having seen our certificate {files.certificate}: {known}"
            finally:
                writer.transport.abort()  # nothing is owed to a connection made to look at
    except TimeoutError:
        return f"no answer within {_EXPLAIN_S:g} s"
    except ssl.SSLCertVerificationError as exc:
        return f"its certificate is refused here: {exc.verify_message}"
    except ssl.SSLError as exc:
        return f"our certificate {files.certificate} is refused there: {_alert(exc)}"
    except socket.gaierror as exc:
        return str(exc.strerror)
    except OSError as exc:
        return os.strerror(exc.errno) if exc.errno else str(exc)
    return ""


def _alert(exc: ssl.SSLError) -> str:
    """`TLSV13_ALERT_CERTIFICATE_EXPIRED` in words."""
    return (exc.reason or str(exc)).rpartition("ALERT_")[2].replace("_", " ").lower()
