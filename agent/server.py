"""The agent's socket: frames in, verbs served, answers out, delivery confirmed.

Every worker thread accepts for itself and sees one exchange through to its end: handing it from
an event loop to a thread and back cost 0.5 ms of an ADD's 3.  A request that finds no turn is
parked for whoever ends first; a few threads more than turns go on accepting, so that STATUS and
the operator are answered however much is going on.

A request whose launcher has gone is not begun, since its runtime has given it up; an ADD whose
answer is not acknowledged is undone.
"""

import array
import asyncio
import json
import logging
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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

_READ_S = 10.0  # a launcher sends its frame at once
_PROMPT_S = 0.2  # most answers are acknowledged in a tenth of a millisecond
_DELIVERY_S = 30.0  # longer than any launcher lives
_BACKLOG = 1024
_SPARE = 4
_PART = 1 << 16
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


@dataclass(slots=True)
class _Exchange:
    """One connection, the descriptors that came by it, and what it asks once that is read."""

    connection: socket.socket
    descriptors: list[int] = field(default_factory=list)
    request: Request = field(init=False)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.connection.close()


class Server:
    """Serves one socket; *max_parallel* requests at once, *max_queued* waiting for a turn."""

    def __init__(self, handlers: Handlers, *, max_parallel: int, max_queued: int) -> None:
        self._handlers = handlers
        self._max_parallel = max_parallel
        self._max_queued = max_queued
        self._lock = threading.Lock()
        self._parked: deque[_Exchange] = deque()
        self._in_work = 0
        self._late: set[threading.Thread] = set()
        self._stopping = threading.Event()

    @property
    def load(self) -> Load:
        return Load(self._in_work, len(self._parked))

    async def run(self, listening: socket.socket, stopping: asyncio.Event) -> None:
        """Accept until *stopping* is set, then finish what was begun."""
        workers = [
            threading.Thread(target=self._work, args=(listening,), name=f"verb-{number}")
            for number in range(self._max_parallel + _SPARE)
        ]
        for worker in workers:
            worker.start()
        try:
            await stopping.wait()
        finally:
            self._stopping.set()
            listening.shutdown(socket.SHUT_RDWR)  # wakes all who accept
            await asyncio.to_thread(self._join, workers)

    def _join(self, workers: list[threading.Thread]) -> None:
        for worker in workers:
            worker.join()
        for thread in tuple(self._late):
            thread.join()

    def _work(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError as exc:
                if self._stopping.is_set():
                    return
                # Out of descriptors: those in work will free some.
                log.warning("cannot accept", extra={"why": str(exc)})
                self._stopping.wait(0.05)
                continue
            with _edge():
                self._begin(_Exchange(connection))
            while exchange := self._take_turn():
                with _edge():
                    self._serve(exchange)
                with self._lock:
                    self._in_work -= 1

    def _begin(self, exchange: _Exchange) -> None:
        """Read a request; answer what needs no turn, and park the rest."""
        with ExitStack() as ending:
            ending.callback(exchange.close)
            if not _is_root(exchange.connection):
                return
            try:
                header, exchange.request = _receive(exchange)
            except FrameError as exc:
                error = CNIError(
                    ErrorCode.TRY_AGAIN_LATER, "launcher and agent do not match", str(exc)
                )
                _send(exchange, Response(REFUSED, failure(error).stdout))
                return
            if header.kind is Kind.ADMIN:
                _send(exchange, Response(0, json.dumps(self._admin(exchange.request)).encode()))
            elif exchange.request.environment.get("CNI_COMMAND") in _ANSWERED_FROM_MEMORY:
                self._deliver(exchange, self._handlers.serve(exchange.request), ending)
            elif not self._park(exchange):
                self._deliver(exchange, self._refusal(exchange.request), ending)
            else:
                ending.pop_all()

    def _park(self, exchange: _Exchange) -> bool:
        with self._lock:
            if len(self._parked) >= self._max_queued:
                return False
            self._parked.append(exchange)
            return True

    def _take_turn(self) -> _Exchange | None:
        """Whoever has waited longest, if there is a turn; the caller gives it back."""
        with self._lock:
            if not self._parked or self._in_work >= self._max_parallel:
                return None
            self._in_work += 1
            return self._parked.popleft()

    def _serve(self, exchange: _Exchange) -> None:
        with ExitStack() as ending:
            ending.callback(exchange.close)
            if not _has_gone(exchange.connection):
                self._deliver(exchange, self._handlers.serve(exchange.request), ending)

    def _deliver(self, exchange: _Exchange, response: Response, ending: ExitStack) -> None:
        """Send the answer, and undo an ADD that was not taken.

        A launcher that takes its time gets a thread of its own, so that it keeps no turn.
        """
        with ExitStack() as undo:
            is_add = exchange.request.environment.get("CNI_COMMAND") == Verb.ADD
            if is_add and response.status == 0:
                undo.callback(self._handlers.undo, exchange.request)
            _send(exchange, response)
            try:
                acknowledged = _acknowledged(exchange, _PROMPT_S)
            except BlockingIOError:
                self._wait_aside(exchange, undo.pop_all(), ending.pop_all())
                return
            if acknowledged:
                undo.pop_all()

    def _wait_aside(self, exchange: _Exchange, undo: ExitStack, ending: ExitStack) -> None:
        def wait() -> None:
            with _edge(), ending, undo:
                if _acknowledged(exchange, _DELIVERY_S):
                    undo.pop_all()
            self._late.discard(thread)

        thread = threading.Thread(target=wait, name="delivery")
        self._late.add(thread)
        thread.start()

    def _refusal(self, request: Request) -> Response:
        error = CNIError(
            ErrorCode.TRY_AGAIN_LATER,
            "too many requests",
            f"{len(self._parked)} are waiting already",
        )
        return Response(REFUSED, failure(error, request.stdin).stdout)

    def _admin(self, request: Request) -> dict[str, object]:
        try:
            question = json.loads(request.stdin)
            if not isinstance(question, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as exc:
            return {"error": f"not understood: {exc}"}
        return self._handlers.admin(question)


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
    draft.rename(path)
    return listening


@contextmanager
def _edge() -> Iterator[None]:
    """Where the errors of one connection end: they must not end the agent."""
    try:
        yield
    except (OSError, EOFError) as exc:
        log.debug("connection ended", extra={"why": str(exc)})
    except Exception:
        log.exception("connection failed")


def _receive(exchange: _Exchange) -> tuple[Header, Request]:
    """Read one request; FrameError, EOFError, or OSError when it takes too long."""
    until = time.monotonic() + _READ_S
    header = parse_header(_read(exchange, HEADER_SIZE, until))
    body = _read(exchange, header.body_length, until)
    fd = exchange.descriptors[0] if header.has_netns and exchange.descriptors else None
    return header, parse_body(header, body, netns_fd=fd)


def _read(exchange: _Exchange, length: int, until: float) -> bytes:
    parts: list[bytes] = []
    while length:
        _limit(exchange.connection, max(until - time.monotonic(), 0.001))
        data, ancillary, _, _ = exchange.connection.recvmsg(
            min(length, _PART), socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                exchange.descriptors.extend(array.array("i", payload[: len(payload) // 4 * 4]))
        if not data:
            raise EOFError("the launcher closed before its request was whole")
        parts.append(data)
        length -= len(data)
    return b"".join(parts)


def _send(exchange: _Exchange, response: Response) -> None:
    _limit(exchange.connection, _DELIVERY_S, socket.SO_SNDTIMEO)
    exchange.connection.sendall(encode_response(response))


def _acknowledged(exchange: _Exchange, timeout: float) -> bool:
    """Whether the launcher says that its stdout took the answer; BlockingIOError: not yet."""
    _limit(exchange.connection, timeout)
    try:
        return exchange.connection.recv(1) == ACK
    except ConnectionError:
        return False


def _limit(connection: socket.socket, seconds: float, way: int = socket.SO_RCVTIMEO) -> None:
    """Let the kernel end a wait, with BlockingIOError: Python's own timeouts poll each time."""
    parts = int(seconds), int(seconds % 1 * 1e6)
    connection.setsockopt(socket.SOL_SOCKET, way, struct.pack("@ll", *parts))


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
