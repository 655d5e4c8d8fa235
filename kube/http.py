"""HTTP/1.1 as far as an API server needs it: one request at a time on one connection.

Why our own: docs/design/0007.  The other end is always Go's net/http, so a body comes with a
length, in chunks, or until the connection ends (RFC 9112, section 6), and nothing else is taken.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from kube.access import Access
from kube.errors import Away, Malformed

CONNECT_S = 5.0
LINE_LIMIT = 64 << 10
_HEADERS = 128
_PIECE = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


class Response:
    """The head of an answer, and its body as it comes."""

    def __init__(self, status: int, headers: Mapping[str, str], connection: "Connection") -> None:
        self.status = status
        self.headers = headers
        self._connection = connection

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, some kilobytes at a time.  Raises Away, Malformed."""
        try:
            async for piece in self._framed():
                yield piece
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise Away("the connection ended in the middle of an answer") from exc
        except (ValueError, asyncio.LimitOverrunError) as exc:
            raise Malformed(f"not HTTP: {exc}") from exc
        self._connection.is_idle = True

    def _framed(self) -> AsyncGenerator[bytes, None]:
        reader = self._connection.reader
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return _chunks(reader)
        if (length := self.headers.get("content-length")) is not None:
            return _counted(reader, _number(length, 10))
        if self.status in (204, 304):
            return _counted(reader, 0)
        self._connection.is_reusable = False
        return _until_end(reader)

    async def body(self, at_most: int) -> bytes:
        """All of it.  Raises Away, Malformed where it is longer than *at_most*."""
        whole = bytearray()
        async for piece in self.pieces():
            whole += piece
            if len(whole) > at_most:
                raise Malformed(f"an answer of more than {at_most} bytes")
        return bytes(whole)


class Connection:
    """One connection; *is_idle* once an answer was read to its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self.is_idle = True
        self.is_reusable = True

    @classmethod
    async def open(cls, access: Access, context: ssl.SSLContext | None) -> "Connection":
        """Raises Away."""
        name = (access.server_name or access.host) if context else None
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    access.host, access.port, ssl=context, server_hostname=name, limit=LINE_LIMIT
                )
        except TimeoutError as exc:
            raise Away(f"{access.server}: no answer within {CONNECT_S:g} s") from exc
        except ssl.SSLCertVerificationError as exc:
            raise Away(
                f"{access.server}: its certificate is refused here: {exc.verify_message}"
            ) from exc
        except (OSError, UnicodeError) as exc:
            raise Away(f"{access.server}: {getattr(exc, 'strerror', None) or exc}") from exc
        _notice_dead_paths(writer)
        return cls(reader, writer)

    async def ask(self, request: Request) -> Response:
        """Send *request* and read the head of the answer.  Raises Away, Malformed."""
        self.is_idle = False
        try:
            self._writer.write(_encode(request))
            await self._writer.drain()
            status, headers = await _head(self.reader)
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise Away("the connection ended before an answer") from exc
        except (ValueError, asyncio.LimitOverrunError) as exc:
            raise Malformed(f"not HTTP: {exc}") from exc
        if headers.get("connection", "").lower() == "close":
            self.is_reusable = False
        return Response(status, headers, self)

    @property
    def may_be_asked(self) -> bool:
        return self.is_idle and self.is_reusable and not self.reader.at_eof()

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._writer.transport.abort()


def _notice_dead_paths(writer: asyncio.StreamWriter) -> None:
    """A stream on which nothing comes must end once its other end is gone without a word."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)


def _encode(request: Request) -> bytes:
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if request.body or request.method not in ("GET", "DELETE"):
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers; informational answers (1xx) are passed over."""
    while True:
        first = (await reader.readuntil(b"\r\n")).decode("latin-1")
        version, _, rest = first.strip().partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(f"an answer that begins with {first[:40]!r}")
        status = _number(rest[:3], 10)
        headers: dict[str, str] = {}
        for _ in range(_HEADERS):
            line = (await reader.readuntil(b"\r\n")).decode("latin-1").strip()
            if not line:
                break
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        else:
            raise ValueError(f"more than {_HEADERS} headers")
        if status >= 200:
            return status, headers


async def _counted(reader: asyncio.StreamReader, left: int) -> AsyncGenerator[bytes, None]:
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def _until_end(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while piece := await reader.read(_PIECE):
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """RFC 9112, section 7.1; extensions and trailers say nothing to us."""
    while True:
        size = (await reader.readuntil(b"\r\n")).partition(b";")[0]
        left = _number(size.decode("latin-1").strip(), 16)
        if not left:
            while (await reader.readuntil(b"\r\n")) != b"\r\n":
                pass
            return
        async for piece in _counted(reader, left):
            yield piece
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk longer than it says")


def _number(text: str, base: int) -> int:
    """Digits alone: int() would take signs, blanks and underscores, too."""
    if not text or not set(text.lower()) <= set("0123456789abcdef"[:base]):
        raise ValueError(f"{text[:20]!r} is no number")
    return int(text, base)
