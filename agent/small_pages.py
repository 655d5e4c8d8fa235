"""Pages of a few bytes over HTTP/1.1, within the event loop: probes ask each some seconds.

Ports come and go with Services, and a thread for each would cost more than it serves.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

_PATIENCE_S = 5.0
_LONGEST = 16384

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[str], Page]
"""The page at a path."""


async def serve(host: str | None, port: int, answer: Answer) -> asyncio.Server:
    """Serve at *host*, None: at every address of both families.  Raises OSError."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_PATIENCE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_response(head, answer))
                    await writer.drain()
        except (TimeoutError, asyncio.CancelledError):
            pass  # who asks too slowly, or while we end, asks again
        finally:
            writer.close()

    return await asyncio.start_server(serve_one, host, port, limit=_LONGEST)


def _response(head: bytes, answer: Answer) -> bytes:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    if method not in ("GET", "HEAD"):
        page = Page(405, b"GET is all there is\n")
    else:
        page = answer(rest.partition(" ")[0].partition("?")[0])
    lines = [
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}",
        f"Content-Type: {page.kind}",
        f"Content-Length: {len(page.body)}",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *(f"{name}: {value}" for name, value in page.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (page.body if method != "HEAD" else b"")
