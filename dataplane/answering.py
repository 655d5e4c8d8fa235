"""Hears who asks for addresses on a link, and answers: packet sockets, and nothing in the kernel.

What the kernel would remember (an address on the link, a proxy entry) goes on to answer when the
agent that had the say is dead; a socket ends with it.
"""

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from ipaddress import IPv6Address

from dataplane.announce import ARP, IPV6, frame
from dataplane.errors import DataplaneError
from dataplane.neighbours import Claim, Question, answer, parse, solicited_node
from net.address import IPAddress

_LARGEST = 2048
_AT_ONCE = 64
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, asm-generic/socket.h
_GET_HARDWARE_ADDRESS = 0x8927  # SIOCGIFHWADDR

# Of all IPv6 packets only neighbour solicitations and advertisements wake us (BPF, linux/filter.h):
# code, jump if true, jump if not, operand.
_DISCOVERY = (
    (0x30, 0, 0, 20),  # the byte at 20: next header
    (0x15, 0, 4, 58),  # ICMPv6, or nothing
    (0x30, 0, 0, 54),  # its type
    (0x15, 1, 0, 135),
    (0x15, 0, 1, 136),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


class LinkUnusable(DataplaneError):
    """The interface is not there, is down, or has no link-layer addresses as Ethernet has."""


class Responder:
    """One interface; not thread-safe, and its sockets never block."""

    def __init__(self, ifname: str) -> None:
        """Raises LinkUnusable."""
        self.ifname = ifname
        self._undo = ExitStack()
        self._groups: set[IPv6Address] = set()
        try:
            with self._undo as undo:
                self.index = socket.if_nametoindex(ifname)
                self._arp = undo.enter_context(_opened(ifname, ARP))
                self._discovery = undo.enter_context(_opened(ifname, IPV6, _DISCOVERY))
                # Switches send questions only to where their group was joined.
                self._member = undo.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                self._undo = undo.pop_all()
        except OSError as exc:
            raise LinkUnusable(f"{ifname}: {exc.strerror or exc}") from exc
        self.mac: bytes = self._arp.getsockname()[4]
        if len(self.mac) != 6:
            self.close()
            raise LinkUnusable(f"{ifname} is no Ethernet")

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        return self._arp, self._discovery

    def is_current(self) -> bool:
        """Tell whether the interface is the one that it was, with the MAC that it had."""
        request = struct.pack("16s24x", self.ifname.encode())
        try:
            told = fcntl.ioctl(self._member, _GET_HARDWARE_ADDRESS, request)
            return socket.if_nametoindex(self.ifname) == self.index and told[18:24] == self.mac
        except OSError:
            return False

    def receive(self, sock: socket.socket) -> Iterator[Question | Claim]:
        """Yield what came, a bounded number at once.  Raises LinkUnusable."""
        for _ in range(_AT_ONCE):
            try:
                found = parse(sock.recv(_LARGEST))
            except BlockingIOError:
                return
            except OSError as exc:
                raise LinkUnusable(f"{self.ifname}: {exc.strerror}") from exc
            if found is not None:
                yield found

    def answer(self, question: Question) -> None:
        """Say that it is at our MAC.  Raises LinkUnusable."""
        self._send(answer(question, self.mac))

    def announce(self, addresses: Iterable[IPAddress]) -> None:
        """Say so to everybody.  Raises LinkUnusable."""
        for address in addresses:
            self._send(frame(self.mac, address))

    def listen_for(self, addresses: Iterable[IPAddress]) -> None:
        """Be where these are asked for, and nowhere else."""
        wanted = {solicited_node(one) for one in addresses if isinstance(one, IPv6Address)}
        if wanted == self._groups:
            return
        for option, groups in (
            (socket.IPV6_JOIN_GROUP, wanted - self._groups),
            (socket.IPV6_LEAVE_GROUP, self._groups - wanted),
        ):
            for group in groups:
                request = group.packed + struct.pack("@I", self.index)
                # Without IPv6 on the interface there is no group, and nobody who asks.
                with suppress(OSError):
                    self._member.setsockopt(socket.IPPROTO_IPV6, option, request)
        self._groups = wanted

    def close(self) -> None:
        self._undo.close()

    def _send(self, content: bytes) -> None:
        try:
            self._arp.send(content)
        except BlockingIOError:
            return  # it is said again
        except OSError as exc:
            raise LinkUnusable(f"{self.ifname}: {exc.strerror}") from exc


def _opened(
    ifname: str, protocol: int, program: Iterable[tuple[int, int, int, int]] = ()
) -> socket.socket:
    """A socket that sees frames of *protocol*, of which *program* lets through.  Raises OSError."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
    try:
        instructions = [struct.pack("@HBBI", *each) for each in program]
        if instructions:
            code = ctypes.create_string_buffer(b"".join(instructions))
            listing = struct.pack("@HP", len(instructions), ctypes.addressof(code))
            opened.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, listing)
        # Bound last: before the filter is there nothing comes.
        opened.bind((ifname, protocol))
    except OSError:
        opened.close()
        raise
    return opened
