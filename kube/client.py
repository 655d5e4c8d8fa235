"""Calls to the API server: get, lists in pages, watches, patches, creations.

Whoever calls decides whether to call again; nothing is repeated here, but what was sent on a
connection that the server had closed while it was idle.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from kube.access import Access
from kube.errors import Away, KubeError, Malformed, error_for
from kube.http import Connection, Request, Response
from kube.objects import Kind, Page, Status, WatchEvent

ANSWER_S = 15.0
PAGE = 500
MOST_BYTES = 64 << 20  # of one answer; a page of 500 pods has some megabytes
MOST_EVENT = 4 << 20  # etcd takes objects of 1.5 MiB
_IDLE = 4
_JSON = "application/json"
_SHOWN = 300

Answer = TypeVar("Answer")


class PatchKind(StrEnum):
    """RFC 7386, and Kubernetes' own that knows lists by their keys."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


class EventKind(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class Client:
    """To be used, and closed, within one event loop.

    *access* is asked at each new connection, so an address may change.  Every method raises
    KubeError: Away where nothing was answered, and what `error_for` makes of an answer.
    """

    def __init__(self, access: Callable[[], Access], *, agent: str = "isthmus") -> None:
        self._access = access
        self._agent = agent
        self._idle: list[Connection] = []
        self._is_closed = False
        self._made_by: Access | None = None
        self._stamp: object = None
        self._context: ssl.SSLContext | None = None

    async def get(self, path: str, kind: type[Answer], *, within_s: float = ANSWER_S) -> Answer:
        return await self._ask(_reading(path), kind, within_s)

    async def pages(
        self, path: str, kind: type[Kind], *, params: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Page[Kind], None]:
        """A list, some hundred objects at a time, all of one revision.

        Raises Expired where the rest of it is forgotten before it was asked for.
        """
        go_on = ""
        while True:
            asked = {**(params or {}), "limit": str(PAGE), "continue": go_on}
            page = await self._ask(_reading(path, asked), Page[kind], ANSWER_S)  # type: ignore[valid-type]
            yield page
            if not (go_on := page.metadata.go_on):
                return

    async def create(self, path: str, body: Any, kind: type[Answer]) -> Answer:
        return await self._ask(_writing("POST", path, body, _JSON), kind, ANSWER_S)

    async def delete(self, path: str) -> None:
        request = Request(method="DELETE", target=quote(path, safe="/"), headers={"Accept": _JSON})
        await self._ask(request, msgspec.Raw, ANSWER_S)

    async def text(self, path: str, *, within_s: float = ANSWER_S) -> str:
        """What is no JSON, as a container's log."""
        request = Request(method="GET", target=quote(path, safe="/"), headers={"Accept": "*/*"})
        return (await self._body(request, within_s)).decode(errors="replace")

    async def patch(
        self, path: str, body: Any, kind: type[Answer], *, by: PatchKind = PatchKind.MERGE
    ) -> Answer:
        return await self._ask(_writing("PATCH", path, body, by), kind, ANSWER_S)

    async def watch(
        self,
        path: str,
        kind: type[Kind],
        *,
        after: str,
        for_s: int,
        params: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[tuple[EventKind, Kind], None]:
        """What happens after revision *after*, until the server ends it, in about *for_s*.

        Raises Expired where the server no longer knows what happened after it.
        """
        asked = {
            **(params or {}),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": after,
            "timeoutSeconds": str(for_s),
        }
        decoder = msgspec.json.Decoder(kind)
        async with (
            self._answer(_reading(path, asked), ANSWER_S) as response,
            aclosing(_lines(response)) as lines,
        ):
            while True:
                try:
                    # For a server that holds the connection and never says anything.
                    async with asyncio.timeout(for_s + ANSWER_S):
                        line = await anext(lines, None)
                except TimeoutError as exc:
                    raise Away(f"{path}: a watch did not end in time") from exc
                if line is None:
                    return
                yield _event(line, decoder, path)

    def close(self) -> None:
        """Close what is idle; what is in use ends with whoever uses it."""
        self._is_closed = True
        self._drop_idle()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _ask(self, request: Request, kind: type[Answer], within_s: float) -> Answer:
        path = request.target.partition("?")[0]
        return _decode(await self._body(request, within_s), kind, path)

    async def _body(self, request: Request, within_s: float) -> bytes:
        try:
            async with asyncio.timeout(within_s), self._answer(request, within_s) as response:
                return await response.body(MOST_BYTES)
        except TimeoutError as exc:
            path = request.target.partition("?")[0]
            raise Away(f"{path}: no answer within {within_s:g} s") from exc

    @asynccontextmanager
    async def _answer(self, request: Request, within_s: float) -> AsyncIterator[Response]:
        """The answer to *request*, if it is a good one; its connection ends with a bad end."""
        connection, response = await self._send(request, within_s)
        try:
            if not 200 <= response.status < 300:
                raise await _refusal(response, request)
            yield response
        finally:
            if connection.may_be_asked and len(self._idle) < _IDLE and self._is_current():
                self._idle.append(connection)
            else:
                connection.close()

    async def _send(self, request: Request, within_s: float) -> tuple[Connection, Response]:
        for _ in range(_IDLE + 1):
            access = self._access()
            is_fresh = self._forget_old(access) or not self._idle
            connection = (
                await Connection.open(access, self._context) if is_fresh else self._idle.pop()
            )
            try:
                async with asyncio.timeout(within_s):
                    return connection, await connection.ask(self._complete(request, access))
            except BaseException as exc:
                connection.close()
                if isinstance(exc, TimeoutError):
                    raise Away(f"{access.server}: no answer within {within_s:g} s") from exc
                if is_fresh or not isinstance(exc, Away):
                    raise
        raise Away(f"{self._access().server}: every connection ended")

    def _complete(self, request: Request, access: Access) -> Request:
        token = access.bearer()
        return Request(
            method=request.method,
            target=access.prefix + request.target,
            headers={
                "Host": access.authority,
                "User-Agent": self._agent,
                **request.headers,
                **({"Authorization": f"Bearer {token}"} if token else {}),
            },
            body=request.body,
        )

    def _forget_old(self, access: Access) -> bool:
        """Close what was opened with other files or to another address; tell whether there was."""
        stamp = access.stamp()
        if access == self._made_by and stamp == self._stamp:
            return False
        self._context = access.context() if access.is_tls else None
        self._made_by, self._stamp = access, stamp
        self._drop_idle()
        return True

    def _is_current(self) -> bool:
        return (
            not self._is_closed
            and self._made_by is not None
            and self._made_by.stamp() == self._stamp
        )


def _reading(path: str, params: Mapping[str, str] | None = None) -> Request:
    query = urlencode({key: value for key, value in (params or {}).items() if value})
    target = quote(path, safe="/") + (f"?{query}" if query else "")
    return Request(method="GET", target=target, headers={"Accept": _JSON})


def _writing(method: str, path: str, body: Any, content: str) -> Request:
    headers = {"Accept": _JSON, "Content-Type": content}
    target = quote(path, safe="/")
    return Request(method=method, target=target, headers=headers, body=msgspec.json.encode(body))


async def _refusal(response: Response, request: Request) -> KubeError:
    body = await response.body(MOST_BYTES)
    try:
        text = msgspec.json.decode(body, type=Status).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body.decode(errors="replace")
    told = " ".join(text.split())[:_SHOWN] or f"status {response.status}"
    where = request.target.partition("?")[0]
    return error_for(response.status, f"{request.method} {where}: {told}")


def _decode(body: bytes, kind: type[Answer], path: str) -> Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Malformed(f"{path}: {exc}") from exc


async def _lines(response: Response) -> AsyncGenerator[bytes, None]:
    waiting = bytearray()
    async with aclosing(response.pieces()) as pieces:
        async for piece in pieces:
            waiting += piece
            if b"\n" not in piece:
                if len(waiting) > MOST_EVENT:
                    raise Malformed(f"an event of more than {MOST_EVENT} bytes")
                continue
            *whole, rest = bytes(waiting).split(b"\n")
            waiting = bytearray(rest)
            for line in whole:
                if line.strip():
                    yield line


def _event(line: bytes, decoder: "msgspec.json.Decoder[Kind]", path: str) -> tuple[EventKind, Kind]:
    """Raises Expired and others where the line tells of an error, Malformed for what is none."""
    try:
        event = msgspec.json.decode(line, type=WatchEvent)
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=Status)
            raise error_for(status.code or 500, f"watch {path}: {status.message[:_SHOWN]}")
        return EventKind(event.type), decoder.decode(event.object)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
        raise Malformed(f"watch {path}: {exc}") from exc
