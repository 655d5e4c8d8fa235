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

_ARP, _IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES, _ALL_NODES_MAC = IPv6Address("ff02::1"), bytes.fromhex("333300000001")
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
        return _BROADCAST + mac + struct.pack(">H", _ARP) + _gratuitous_arp(mac, address)
    return _ALL_NODES_MAC + mac + struct.pack(">H", _IPV6) + _advertisement(mac, address)


def _gratuitous_arp(mac: bytes, address: IPv4Address) -> bytes:
    # A request, not a reply: some hosts update what they know from requests alone.
    ethernet, ipv4, request = 1, 0x0800, 1
    head = struct.pack(">HHBBH", ethernet, ipv4, 6, 4, request)
    return head + mac + address.packed + bytes(6) + address.packed


def _advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """RFC 4861 §7.2.6: to all nodes, with the override flag and not the solicited one."""
    option = struct.pack(">BB", _TARGET_LINK_LAYER_ADDRESS, 1) + mac
    kind = struct.pack(">BB", _NEIGHBOUR_ADVERTISEMENT, 0)
    rest = struct.pack(">I", _OVERRIDE) + address.packed + option
    ends = address.packed + _ALL_NODES.packed
    length = len(kind) + 2 + len(rest)
    pseudo = ends + struct.pack(">II", length, _ICMPV6)
    checksum = struct.pack(">H", _checksum(pseudo + kind + b"\0\0" + rest))
    # Hop limit 255 proves to the receiver that no router forwarded it.
    header = struct.pack(">IHBB", 6 << 28, length, _ICMPV6, 255)
    return header + ends + kind + checksum + rest


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
