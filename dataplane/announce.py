"""Tells neighbours on a link which MAC an address has now.

An address that is used again has another MAC than before, and neighbours keep what they
learned for a minute or more.  Frames are written whole and sent by a packet socket: that works
before an IPv6 address has left duplicate address detection, and asks nothing of the kernel.
"""

import socket
import struct
import threading
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from dataplane.errors import DataplaneError
from net.address import IPAddress

ARP, IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
ALL_NODES, ALL_NODES_MAC = IPv6Address("ff02::1"), bytes.fromhex("333300000001")
_ICMPV6, _NEIGHBOUR_ADVERTISEMENT, _OVERRIDE = 58, 136, 0x20000000
_TARGET_LINK_LAYER_ADDRESS = 2


class AnnouncementFailed(DataplaneError):
    """The interface is not there, or is down."""


def announce(ifname: str, mac: str, addresses: Iterable[IPAddress]) -> None:
    """Send one frame for each of *addresses* out of *ifname*, in this thread's namespace.

    The frames are sent when it returns.  Raises AnnouncementFailed.
    """
    raw = bytes.fromhex(mac.replace(":", ""))
    try:
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        try:
            for address in addresses:
                sender.sendto(frame(raw, address), (ifname, 0))
        finally:
            # Closing a packet socket waits out a grace period of the kernel, 10 to 20 ms
            # (packet_release): four times what the rest of an ADD takes.
            threading.Thread(target=sender.close, name="close").start()
    except OSError as exc:
        raise AnnouncementFailed(f"cannot announce on {ifname}: {exc.strerror}") from exc


def frame(mac: bytes, address: IPAddress) -> bytes:
    """A gratuitous ARP request (RFC 5227 §3) or an unsolicited neighbour advertisement."""
    if isinstance(address, IPv4Address):
        # A request, not a reply: some hosts update what they know from requests alone.
        return arp(mac, address, 1, to=_BROADCAST, target=address)
    # RFC 4861 §7.2.6: to all nodes, with the override flag and not the solicited one.
    return advertisement(mac, address, _OVERRIDE, to=ALL_NODES_MAC, target=ALL_NODES)


def arp(
    mac: bytes, address: IPv4Address, operation: int, *, to: bytes, target: IPv4Address
) -> bytes:
    """An ARP packet that says that *address* is at *mac*, in a frame to *to*."""
    ethernet, ipv4 = 1, 0x0800
    head = struct.pack(">HHBBH", ethernet, ipv4, 6, 4, operation)
    whose = bytes(6) if operation == 1 else to
    packet = head + mac + address.packed + whose + target.packed
    return to + mac + struct.pack(">H", ARP) + packet


def advertisement(
    mac: bytes, address: IPv6Address, flags: int, *, to: bytes, target: IPv6Address
) -> bytes:
    """A neighbour advertisement that says so, to *target* at *to*."""
    option = struct.pack(">BB", _TARGET_LINK_LAYER_ADDRESS, 1) + mac
    kind = struct.pack(">BB", _NEIGHBOUR_ADVERTISEMENT, 0)
    rest = struct.pack(">I", flags) + address.packed + option
    ends = address.packed + target.packed
    length = len(kind) + 2 + len(rest)
    pseudo = ends + struct.pack(">II", length, _ICMPV6)
    checksum = struct.pack(">H", _checksum(pseudo + kind + b"\0\0" + rest))
    # Hop limit 255 proves to the receiver that no router forwarded it.
    header = struct.pack(">IHBB", 6 << 28, length, _ICMPV6, 255)
    return to + mac + struct.pack(">H", IPV6) + header + ends + kind + checksum + rest


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
