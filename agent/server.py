"""The agent's socket: frames in, verbs in worker threads, answers out, delivery confirmed.

One asyncio loop does all waiting.  A request whose launcher has gone is not begun, since its
runtime has given it up; an ADD whose answer is not acknowledged is undone.
"""

import array
import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cni.dispatch import failure
from cni.environment import Verb
from cni.errors import CNIError, ErrorCode
from cni.frames import (
    ACK,
    HEADER_SIZE,
    REFUSED,
    FrameError,
    Header,
    Kind,
    encode_response,
    parse_body,
    parse_header,
)
from cni.request import Request, Response

log = logging.getLogger(__name__)

T = TypeVar("T")

_READ_S = 10.0  # a launcher sends its frame at once
_DELIVERY_S = 30.0  # longer than any launcher lives
_BACKLOG = 1024
_ANSWERED_FROM_MEMORY = (Verb.STATUS, Verb.VERSION)


@dataclass(slots=True)
class Load:
    """How much is going on."""

    in_work: int = 0
    queued: int = 0


@dataclass(slots=True)
class Handlers:
    """What the server calls in worker threads.

    *serve* answers one CNI request; *undo* takes back an ADD that was not delivered; *admin*
    answers one operator's question.
    """

    serve: Callable[[Request], Response]
    undo: Callable[[Request], None]
    admin: Callable[[dict[str, object]], dict[str, object]]


class Server:
    """Serves one socket; *max_parallel* requests at once, *max_queued* waiting for a turn."""

    def __init__(self, handlers: Handlers, *, max_parallel: int, max_queued: int) -> None:
        self.load = Load()
        self._handlers = handlers
        self._max_queued = max_queued
        self._turn = asyncio.Semaphore(max_parallel)
        self._workers = ThreadPoolExecutor(max_parallel, "verb")
        self._aside = ThreadPoolExecutor(4, "status")

    async def run(self, listening: socket.socket, stopping: asyncio.Event) -> None:
        """Accept until *stopping* is set, then finish what was begun."""
        try:
            async with asyncio.TaskGroup() as tasks:
                accepting = tasks.create_task(self._accept(listening, tasks))
                await stopping.wait()
                accepting.cancel()
        finally:
            self._workers.shutdown()
            self._aside.shutdown()

    async def _accept(self, listening: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as exc:  # out of descriptors: those in work will free some
                log.warning("cannot accept", extra={"why": str(exc)})
                await asyncio.sleep(0.05)
                continue
            tasks.create_task(self._connection(connection))

    async def _connection(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            connection.setblocking(False)
            if not _is_root(connection):
                return
            await self._exchange(connection, descriptors)
        except (OSError, TimeoutError, EOFError) as exc:
            log.debug("connection ended", extra={"why": str(exc)})
        except Exception:  # the edge: one connection must not end the agent
            log.exception("connection failed")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()

    async def _exchange(self, connection: socket.socket, descriptors: list[int]) -> None:
        try:
            async with asyncio.timeout(_READ_S):
                header, request = await _receive(connection, descriptors)
        except FrameError as exc:
            error = CNIError(ErrorCode.TRY_AGAIN_LATER, "launcher and agent do not match", str(exc))
            answer = Response(REFUSED, failure(error).stdout)
            await _send(connection, encode_response(answer))
            return
        if header.kind is Kind.ADMIN:
            await self._admin(connection, request)
            return
        response = await self._serve(connection, request)
        if response is None:
            return
        delivered = False
        try:
            await _send(connection, encode_response(response))
            delivered = await _acknowledged(connection)
        finally:
            is_add = request.environment.get("CNI_COMMAND") == Verb.ADD
            if is_add and response.status == 0 and not delivered:
                await self._in_worker(self._handlers.undo, request)

    async def _serve(self, connection: socket.socket, request: Request) -> Response | None:
        """The answer, or None where the launcher had gone before its turn came."""
        if request.environment.get("CNI_COMMAND") in _ANSWERED_FROM_MEMORY:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._aside, self._handlers.serve, request)
        if self.load.queued >= self._max_queued:
            return Response(
                REFUSED,
                failure(
                    CNIError(
                        ErrorCode.TRY_AGAIN_LATER,
                        "too many requests",
                        f"{self.load.queued} are waiting already",
                    ),
                    request.stdin,
                ).stdout,
            )
        self.load.queued += 1
        try:
            await self._turn.acquire()
        finally:
            self.load.queued -= 1
        try:
            self.load.in_work += 1
            if _has_gone(connection):
                return None
            return await self._in_worker(self._handlers.serve, request)
        finally:
            self.load.in_work -= 1
            self._turn.release()

    async def _admin(self, connection: socket.socket, request: Request) -> None:
        try:
            question = json.loads(request.stdin)
            if not isinstance(question, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as exc:
            answer: dict[str, object] = {"error": f"not understood: {exc}"}
        else:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._aside, self._handlers.admin, question)
        await _send(connection, encode_response(Response(0, json.dumps(answer).encode())))

    async def _in_worker(self, work: Callable[[Request], T], request: Request) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, work, request)


def listen(path: Path) -> socket.socket:
    """A listening socket at *path*, for root alone, in place of a dead one.

    Bound under another name and renamed, so that there is no moment at which anybody else may
    connect, nor one at which the path is missing.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        listening.bind(str(draft))
    finally:
        os.umask(mask)
    listening.listen(_BACKLOG)
    listening.setblocking(False)
    draft.rename(path)
    return listening


async def _receive(connection: socket.socket, descriptors: list[int]) -> tuple[Header, Request]:
    """One request; descriptors that came along are added to *descriptors* for closing."""
    data = await _read(connection, HEADER_SIZE, descriptors)
    header = parse_header(data)
    body = await _read(connection, header.body_length, descriptors)
    netns_fd = descriptors[0] if header.has_netns and descriptors else None
    return header, parse_body(header, body, netns_fd=netns_fd)


async def _read(connection: socket.socket, length: int, descriptors: list[int]) -> bytes:
    parts: list[bytes] = []
    while length:
        try:
            data, ancillary, _, _ = connection.recvmsg(
                min(length, 1 << 18), socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            await _readable(connection)
            continue
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = array.array("i", payload[: len(payload) // 4 * 4])
                descriptors.extend(whole)
        if not data:
            raise EOFError("the launcher closed before its request was whole")
        parts.append(data)
        length -= len(data)
    return b"".join(parts)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _send(connection: socket.socket, data: bytes) -> None:
    try:
        sent = connection.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        await asyncio.get_running_loop().sock_sendall(connection, data[sent:])


async def _acknowledged(connection: socket.socket) -> bool:
    """Whether the launcher says that its stdout took the answer."""
    try:
        async with asyncio.timeout(_DELIVERY_S):
            return await asyncio.get_running_loop().sock_recv(connection, 1) == ACK
    except (OSError, TimeoutError):
        return False


def _has_gone(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _is_root(connection: socket.socket) -> bool:
    """Whether the peer is root, or whoever the agent runs as (SO_PEERCRED)."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, user, _ = struct.unpack("=iII", found)
    if user not in (0, os.geteuid()):
        log.warning("connection refused", extra={"uid": user})
        return False
    return True
