"""The agent's end of the launcher's socket, with every way of behaving badly."""

import array
import os
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cni.frames import ACK, HEADER_SIZE, encode_response, parse_body, parse_header
from cni.request import Request, Response

PATIENCE_S = 30.0

Behaviour = Callable[[socket.socket, "FakeAgent"], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived; *netns* is (st_dev, st_ino) of the descriptor it brought."""

    request: Request
    netns: tuple[int, int] | None
    acknowledged: bool


DESCRIPTOR_SIZE = array.array("i").itemsize


def receive(connection: socket.socket, length: int) -> bytes:
    """Read exactly *length* bytes, with which no descriptor may come."""
    data = b""
    while len(data) < length:
        got, control, _, _ = connection.recvmsg(
            length - len(data), socket.CMSG_SPACE(DESCRIPTOR_SIZE)
        )
        assert not control
        if not got:
            raise ConnectionError(f"{len(data)} bytes of {length}")
        data += got
    return data


def receive_request(connection: socket.socket) -> tuple[Request, tuple[int, int] | None]:
    """Read one whole frame; the descriptor is looked at and closed."""
    data, control, _, _ = connection.recvmsg(HEADER_SIZE, socket.CMSG_SPACE(DESCRIPTOR_SIZE))
    data += receive(connection, HEADER_SIZE - len(data))
    netns = None
    for _, _, payload in control:
        (descriptor,) = array.array("i", payload)
        found = os.fstat(descriptor)
        os.close(descriptor)
        netns = (found.st_dev, found.st_ino)
    header = parse_header(data)
    assert header.has_netns == (netns is not None)
    return parse_body(header, receive(connection, header.body_length)), netns


def acknowledged(connection: socket.socket) -> bool:
    """Wait for the launcher's last word."""
    try:
        return connection.recv(16) == ACK
    except ConnectionError:
        return False


def answering(response: Response, *, piece: int = 1 << 20) -> Behaviour:
    """Answer every call with *response*, *piece* bytes at a time."""

    def behave(connection: socket.socket, agent: "FakeAgent") -> None:
        request, netns = receive_request(connection)
        frame = encode_response(response)
        try:
            for at in range(0, len(frame), piece):
                connection.sendall(frame[at : at + piece])
        except ConnectionError:
            agent.calls.put(Call(request, netns, acknowledged=False))
            return
        agent.calls.put(Call(request, netns, acknowledged(connection)))

    return behave


def saying(raw: bytes, *, read: int | None = None) -> Behaviour:
    """Send *raw* and close, after *read* bytes of the request (None: all of it)."""

    def behave(connection: socket.socket, agent: "FakeAgent") -> None:
        if read is None:
            receive_request(connection)
        else:
            connection.recv(read, socket.MSG_WAITALL)
        connection.sendall(raw)

    return behave


def hanging(connection: socket.socket, agent: "FakeAgent") -> None:
    """Take the call and never answer; report when the launcher has gone."""
    request, netns = receive_request(connection)
    agent.taken.set()
    agent.calls.put(Call(request, netns, acknowledged(connection)))


class FakeAgent:
    """Serves one connection after another until the block ends."""

    def __init__(self, path: Path, behaviour: Behaviour) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()
        self.taken = threading.Event()
        self.failures: list[Exception] = []
        self._behaviour = behaviour
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve)

    def call(self) -> Call:
        """The next call that was completed, one way or the other."""
        return self.calls.get(timeout=PATIENCE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=PATIENCE_S)
        self._listener.close()
        if kind is None and self.failures:
            raise self.failures[0]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # shut down
            connection.settimeout(PATIENCE_S)
            with connection:
                try:
                    self._behaviour(connection, self)
                except (AssertionError, OSError) as failure:
                    self.failures.append(failure)
