"""Questions for addresses on a link, and answers: ARP (RFC 826) and neighbour discovery (RFC 4861).

Frames as packet sockets have them, whole.  Checksums of what came are not looked at: between
namespaces the kernel leaves them for a network card that is not there.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from dataplane.announce import ALL_NODES, ALL_NODES_MAC, ARP, IPV6, advertisement, arp
from net.address import IPAddress

_HEADER = 14
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ETHERNET, _REQUEST, _REPLY = 1, 1, 2
_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136
_AT_ICMP = _HEADER + 40
_MESSAGE = 24  # type to target
_TARGET_LINK_LAYER_ADDRESS = 2
_SOLICITED, _OVERRIDE = 0x40000000, 0x20000000


@dataclass(frozen=True, slots=True)
class Question:
    """Who has *address*?  *asker* None asks before it takes that address itself (a probe)."""

    address: IPAddress
    asker: IPAddress | None
    asker_mac: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says that *address* is at *mac*."""

    address: IPAddress
    mac: bytes


def parse(frame: bytes) -> Question | Claim | None:
    """What *frame* asks or says; None for all else, and for what is malformed."""
    kind = frame[12:14]
    if kind == ARP.to_bytes(2):
        return _parse_arp(frame)
    if kind == IPV6.to_bytes(2):
        return _parse_icmpv6(frame)
    return None


def _parse_arp(frame: bytes) -> Question | Claim | None:
    if len(frame) < _HEADER + _ARP.size:
        return None
    hardware, protocol, *lengths, operation, mac, sender, _, target = _ARP.unpack_from(
        frame, _HEADER
    )
    if (hardware, protocol, lengths) != (_ETHERNET, 0x0800, [6, 4]):
        return None
    if operation == _REQUEST and sender != target:
        asker = IPv4Address(sender)
        return Question(IPv4Address(target), None if asker.is_unspecified else asker, mac)
    return Claim(IPv4Address(sender), mac)


def _parse_icmpv6(frame: bytes) -> Question | Claim | None:
    # Hop limit 255: no router forwarded it.
    if len(frame) < _AT_ICMP + _MESSAGE or frame[20] != _ICMPV6 or frame[21] != 255:
        return None
    kind, target = frame[_AT_ICMP], IPv6Address(frame[_AT_ICMP + 8 : _AT_ICMP + _MESSAGE])
    sender, mac = IPv6Address(frame[22:38]), frame[6:12]
    if kind == _SOLICITATION:
        return Question(target, None if sender.is_unspecified else sender, mac)
    if kind == _ADVERTISEMENT:
        return Claim(target, _told(frame[_AT_ICMP + _MESSAGE :]) or mac)
    return None


def _told(options: bytes) -> bytes | None:
    """The target's link-layer address among *options*."""
    while len(options) >= 8 and options[1]:
        if options[0] == _TARGET_LINK_LAYER_ADDRESS:
            return options[2:8]
        options = options[8 * options[1] :]
    return None


def answer(question: Question, mac: bytes) -> bytes:
    """The frame that says that it is at *mac*: to who asked, or to all where that is a probe."""
    address, asker = question.address, question.asker
    if isinstance(address, IPv4Address):
        asked_by = asker if isinstance(asker, IPv4Address) else IPv4Address(0)
        return arp(mac, address, _REPLY, to=question.asker_mac, target=asked_by)
    if isinstance(asker, IPv6Address):
        flags = _SOLICITED | _OVERRIDE
        return advertisement(mac, address, flags, to=question.asker_mac, target=asker)
    return advertisement(mac, address, _OVERRIDE, to=ALL_NODES_MAC, target=ALL_NODES)


def solicited_node(address: IPv6Address) -> IPv6Address:
    """The group at which *address* is asked for (RFC 4291 §2.7.1)."""
    return IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(address) & 0xFFFFFF)
