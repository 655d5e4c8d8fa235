"""Heartbeats between nodes: one UDP socket, and a session with each that can be had.

Whoever has no session with another, or does not hear it, begins one; of two the one whose name
sorts first at once, the other a little later.  A machine that refuses the connection is there and
announces nothing: it is none of those whose majority counts.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from agent.sessions import NobodyThere, NotReached, Sessions
from announcement.frames import Unreadable
from announcement.model import Heartbeat
from net.address import IPAddress

Peers = Mapping[str, tuple[IPAddress, ...]]

SILENT_S = 1.2
"""Without a word for so long, a session may be over at the other end."""

AGAIN_S = 1.0
LATER_S = 1.5
ABSENT_AGAIN_S = 10.0
_LARGEST = 65536
_AT_ONCE = 256

log = logging.getLogger(__name__)


class Heartbeats:
    """Within an event loop.  *heard* is told who said what; *clock*: monotonic seconds."""

    def __init__(
        self,
        name: str,
        sessions: Sessions,
        port: int,
        *,
        heard: Callable[[str, Heartbeat], None],
        clock: Callable[[], float],
        host: str = "",
    ) -> None:
        """*host*: at which of this machine's addresses to hear, "": at all."""
        self._host = host
        self._name, self._sessions, self._port = name, sessions, port
        self._heard, self._clock = heard, clock
        self._socket: socket.socket | None = None
        self._group: asyncio.TaskGroup | None = None
        self._peers: Peers = {}
        self._where: dict[str, IPAddress] = {}
        self._heard_at: dict[str, float] = {}
        self._tried_at: dict[str, float] = {}
        self._beginning: set[str] = set()
        self.absent: set[str] = set()
        self.troubles: dict[str, str] = {}
        self.refused: Counter[str] = Counter()
        """Datagrams that were taken for nobody's word, by the reason."""

    def open(self, tasks: asyncio.TaskGroup) -> None:
        """Raises OSError.  Sessions are begun among *tasks*."""
        self._group = tasks
        if self._socket is not None:
            return
        self._socket = opened = _bound(self._host, self._port)
        asyncio.get_running_loop().add_reader(opened, self._receive)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def settle(self, peers: Peers) -> None:
        """These are all there are, but for ourselves; begin a session wherever one is lacking."""
        self._peers = {name: places for name, places in peers.items() if name != self._name}
        for gone in self._where.keys() - self._peers.keys():
            del self._where[gone]
        self.absent &= self._peers.keys()
        self.troubles = {one: why for one, why in self.troubles.items() if one in self._peers}
        now = self._clock()
        for name in self._peers:
            if name not in self._beginning and self._lacks(name, now) and self._group:
                self._tried_at[name] = now
                self._beginning.add(name)
                self._group.create_task(self._begin(name))

    def _lacks(self, name: str, now: float) -> bool:
        first = self._tried_at.setdefault(
            name, now - AGAIN_S if self._name < name else now + LATER_S - AGAIN_S
        )
        rest = ABSENT_AGAIN_S if name in self.absent else AGAIN_S
        silent = now - self._heard_at.get(name, float("-inf")) > SILENT_S
        return now - first >= rest and (silent or self._sessions.is_old(name))

    async def _begin(self, name: str) -> None:
        try:
            for address in self._peers[name]:
                try:
                    await self._sessions.begin(name, address)
                except NotReached as exc:
                    self.troubles[name] = str(exc)
                    self.absent.discard(name)
                    continue
                except NobodyThere:
                    self.absent.add(name)
                    self.troubles.pop(name, None)
                    return
                self._where[name] = address
                self.absent.discard(name)
                self.troubles.pop(name, None)
                return
        except Exception:  # the edge: a bug here must not end the service of others
            log.exception("no session, will retry", extra={"node": name})
        finally:
            self._beginning.discard(name)

    def send(self, name: str, heartbeat: Heartbeat) -> None:
        """To one with whom there is a session; what is lost is said again.

        Raises ValueError where it is too large.
        """
        session, place = self._sessions.of(name), self._where.get(name)
        if session is None or place is None or self._socket is None:
            return
        with suppress(OSError):
            self._socket.sendto(session.seal(heartbeat), _place(self._socket, place, self._port))

    def _receive(self) -> None:
        assert self._socket is not None
        for _ in range(_AT_ONCE):
            try:
                datagram, sender = self._socket.recvfrom(_LARGEST)
            except OSError:
                return
            try:
                session = self._sessions.find(datagram)
                heartbeat = session.open(datagram)
            except Unreadable as exc:
                log.debug("no heartbeat", extra={"from": sender[0], "error": str(exc)})
                self.refused[str(exc).partition(":")[0]] += 1
                continue
            if session.peer not in self._peers:
                self.refused["of no node that we know"] += 1
                continue
            self._heard_at[session.peer] = self._clock()
            self._where[session.peer] = _sender(sender[0])
            self.absent.discard(session.peer)
            self._heard(session.peer, heartbeat)


def _bound(host: str, port: int) -> socket.socket:
    """Of both families, where the kernel has IPv6 and no *host* is said.  Raises OSError."""
    is_dual = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if is_dual:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


def _place(opened: socket.socket, address: IPAddress, port: int) -> tuple[str, int]:
    mapped = opened.family == socket.AF_INET6 and isinstance(address, IPv4Address)
    return (f"::ffff:{address}" if mapped else str(address)), port


def _sender(host: str) -> IPAddress:
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
