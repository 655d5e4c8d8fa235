"""Real clients and servers inside namespaces, without a process for each.

A socket belongs to the namespace it was opened in, so the test's own threads serve them.
"""

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from dataplane.netns import entered, open_path
from tests.kernel.conftest import Namespace


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Run the block with this thread in *namespace*."""
    fd = open_path(namespace.path)
    try:
        with entered(fd):
            yield
    finally:
        os.close(fd)


class Echo:
    """Answers TCP and UDP on one port with its own name and the address it was asked from."""

    def __init__(self, namespace: Namespace, name: str, port: int) -> None:
        self._name = name
        with inside(namespace):
            self._tcp = socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True
            )
            self._udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self._udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._udp.bind(("::", port))
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.send(b"x")
        self._thread.join()
        for each in (self._tcp, self._udp, self._stop, self._stopped):
            each.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            for each in (self._tcp, self._udp, self._stopped):
                ready.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is self._stopped:
                        return
                    if key.fileobj is self._tcp:
                        connection, peer = self._tcp.accept()
                        with connection, contextlib.suppress(OSError):
                            connection.sendall(self._answer(peer))
                    else:
                        _, peer = self._udp.recvfrom(100)
                        self._udp.sendto(self._answer(peer), peer)

    def _answer(self, peer: tuple[str, int]) -> bytes:
        return f"{self._name} {peer[0].removeprefix('::ffff:')}".encode()


def ask(
    namespace: Namespace,
    address: str,
    port: int,
    *,
    udp: bool = False,
    source_port: int = 0,
    timeout: float = 3.0,
) -> str | None:
    """What *address* answers to a client in *namespace*; None when nobody does."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with inside(namespace):
        client = socket.socket(family, kind)
    with client:
        client.settimeout(timeout)
        if source_port:
            client.bind(("", source_port))
        try:
            client.connect((address, port))
            if udp:
                client.send(b"?")
            return client.recv(100).decode()
        except OSError:
            return None
