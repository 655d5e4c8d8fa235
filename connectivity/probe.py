"""What runs in the pods of a self-test: a server that answers, and a client that tries.

The server's TCP greets with one line, the address it sees the client at, and then echoes; its
UDP echoes.  The client writes one line of JSON for each outcome.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv6Address, ip_address
from typing import cast

from connectivity.model import Outcome, Target, Trial

TRIAL_S = 10.0
CONNECTIONS, AT_ONCE = 500, 50
_BULK = bytes(range(256)) * 4096
_UDP_TRIES, _UDP_WAIT_S = 4, 1.0
_UDP_AND_IP = {socket.AF_INET: 28, socket.AF_INET6: 48}
# linux/in.h, linux/in6.h; Python's socket has no names for them.
_MTU_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (41, 23)}
_PMTUDISC_DO = 2
_MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (41, 24)}


class Failed(Exception):
    """A trial came to nothing; the text says how."""


async def serve(port: int) -> None:
    """Answer on *port*, on every address, until cancelled.  Raises OSError for a port in use."""
    loop = asyncio.get_running_loop()
    families = [socket.AF_INET, *([socket.AF_INET6] if _has_ipv6() else [])]
    async with AsyncExitStack() as undo:
        for family in families:
            datagrams = _bound(family, socket.SOCK_DGRAM, port)
            echo, _ = await loop.create_datagram_endpoint(_Echo, sock=datagrams)
            undo.callback(echo.close)
            streams = _bound(family, socket.SOCK_STREAM, port)
            undo.callback((await asyncio.start_server(_greet, sock=streams)).close)
        await asyncio.Event().wait()


async def probe(node: str, targets: Collection[Target], tell: Callable[[Outcome], None]) -> None:
    """Try all *targets*, one after another, and *tell* of each trial as it ends.

    One after another, so that what is slow is so by itself; none takes more than TRIAL_S.
    """
    for target in targets:
        for trial in target.trials:
            began, failure = time.monotonic(), ""
            try:
                async with asyncio.timeout(TRIAL_S):
                    await _TRIALS[trial](target)
            except TimeoutError:
                failure = f"nothing within {TRIAL_S:.0f} s"
            except (OSError, Failed, asyncio.IncompleteReadError) as exc:
                failure = _words(exc)
            tell(
                Outcome(
                    path=target.path,
                    trial=trial,
                    client_node=node,
                    node=target.node,
                    address=target.address,
                    seconds=time.monotonic() - began,
                    failure=failure,
                )
            )


def _words(exc: BaseException) -> str:
    """Why, in the system's words: asyncio's are of calls, not of causes."""
    return os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probing:
            probing.bind(("::", 0))
    except OSError:
        return False
    return True


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    made = socket.socket(family, kind)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(("", port))
    return made


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # a client that went away wants no answer
    finally:
        writer.close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(target.address, target.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _tcp(target: Target) -> None:
    async with _connected(target):
        pass


async def _source(target: Target) -> None:
    async with _connected(target) as (reader, writer):
        seen = ip_address((await reader.readline()).decode().strip())
        own = ip_address(writer.get_extra_info("sockname")[0])
    if isinstance(seen, IPv6Address) and seen.ipv4_mapped:
        seen = seen.ipv4_mapped
    if seen != own:
        raise Failed(f"we are {own}, and are seen as {seen}")


async def _bulk(target: Target) -> None:
    async with _connected(target) as (reader, writer):
        await reader.readline()

        async def send() -> None:
            writer.write(_BULK)
            await writer.drain()

        _, back = await asyncio.gather(send(), reader.readexactly(len(_BULK)))
    if back != _BULK:
        raise Failed("other bytes came back than were sent")


async def _many(target: Target) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turns, _connected(target) as (reader, _):
            if not await reader.readline():
                raise Failed("closed before the greeting")

    results = await asyncio.gather(*(one() for _ in range(CONNECTIONS)), return_exceptions=True)
    if failures := [each for each in results if isinstance(each, BaseException)]:
        raise Failed(f"{len(failures)} of {CONNECTIONS} connections failed: {_words(failures[0])}")


async def _udp(target: Target) -> None:
    with _datagrams(target) as probing:
        await _echoed(probing, b"isthmus")


async def _whole_mtu(target: Target) -> None:
    """Send a datagram that fills our link's MTU, not to be fragmented on its way."""
    with _datagrams(target) as probing:
        probing.setsockopt(*_MTU_DISCOVER[probing.family], _PMTUDISC_DO)
        mtu = probing.getsockopt(*_MTU[probing.family])
        try:
            await _echoed(probing, b"m" * (mtu - _UDP_AND_IP[probing.family]))
        except OSError as exc:
            if exc.errno != errno.EMSGSIZE:
                raise
            less = probing.getsockopt(*_MTU[probing.family])
            raise Failed(f"our link takes {mtu} bytes, the path {less}") from exc
        except Failed as exc:
            raise Failed(f"a packet of {mtu} bytes, our link's MTU, does not come back") from exc


def _datagrams(target: Target) -> socket.socket:
    family, kind, number, _, where = socket.getaddrinfo(
        target.address, target.port, type=socket.SOCK_DGRAM
    )[0]
    made = socket.socket(family, kind, number)
    made.setblocking(False)
    made.connect(where)
    return made


async def _echoed(probing: socket.socket, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(_UDP_TRIES):
        await loop.sock_sendall(probing, data)
        try:
            async with asyncio.timeout(_UDP_WAIT_S):
                if await loop.sock_recv(probing, 65536) == data:
                    return
        except TimeoutError:
            continue
    raise Failed(f"no answer to {_UDP_TRIES} datagrams")


_TRIALS: dict[Trial, Callable[[Target], Awaitable[None]]] = {
    Trial.TCP: _tcp,
    Trial.UDP: _udp,
    Trial.SOURCE: _source,
    Trial.BULK: _bulk,
    Trial.WHOLE_MTU: _whole_mtu,
    Trial.MANY: _many,
}
