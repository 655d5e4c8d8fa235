"""Conntrack entries that lead where they should not any more, forgotten by netlink.

The kernel has one hash table for all namespaces, and listing walks all its buckets: 9 ms for
262,144 of them even where nothing matches.  Deleting by filter (CTA_FILTER) walks inside the
kernel: 1.4 ms.  Two cases are listed, compared here and deleted one by one all the same:

- a kernel that cannot delete by filter; it refuses, since to it the filter's tuple is an
  incomplete name of one entry;
- IPv6, where the kernel's comparison of addresses is inverted (ctnetlink_filter_match_tuple,
  Linux 5.8 to at least 6.18: a filter for one address matches every other): a deletion by it
  would forget all that should stay.
"""

import errno
import socket
import struct
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from dataplane import rtnl
from dataplane.errors import NetlinkError
from dataplane.flows import Flows
from dataplane.netlink import DUMP, Netlink, attribute, attributes, message, nested, u32
from dataplane.nft.elements import NETLINK_NETFILTER
from dataplane.nft.objects import Protocol
from net.address import IPAddress

_CONNTRACK = 1
_GET, _DELETE, _STATISTICS = (_CONNTRACK << 8 | number for number in (1, 2, 5))
_ENTRIES = 1
_ORIGINAL, _REPLY, _STATUS, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 18, 25, 26
_TRANSLATED = 1 << 5  # IPS_DST_NAT
_IP, _PROTO = 1, 2
_PROTOCOL_STATE, _TCP, _STATE = 4, 1, 1
_OVER = (b"\7", b"\10")  # TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE
_SOURCE, _DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}
_NUMBER, _PORT = 1, 3
_MOST_FILTERED = 6  # deletions by filter cost as much as one list
_PER_DATAGRAM = 200
_BY_SOURCE, _BY_DESTINATION, _BY_NUMBER, _BY_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 5


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of an entry as the kernel writes it: addresses, protocol, destination port."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Both directions, and the attributes that name it in a deletion.

    *is_over*: a connection that was closed, and only its entry is left for a while.
    """

    original: Tuple
    reply: Tuple
    handle: bytes
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What entries have in one direction (_ORIGINAL or _REPLY); None and 0 match all."""

    direction: int
    source: IPAddress | None = None
    destination: IPAddress | None = None
    protocol: int = 0
    port: int = 0

    def covers(self, entry: Entry) -> bool:
        one = entry.original if self.direction == _ORIGINAL else entry.reply
        return (
            self.source in (None, one.source)
            and self.destination in (None, one.destination)
            and (not self.protocol or (self.protocol, self.port) == (one.protocol, one.port))
        )

    def encode(self) -> tuple[bytes, bytes]:
        """A tuple, and the flags that say which of its fields count."""
        flags, ip, proto = 0, b"", b""
        if self.source:
            flags |= _BY_SOURCE
            ip += attribute(_SOURCE[self.source.version], self.source.packed)
        if self.destination:
            flags |= _BY_DESTINATION
            ip += attribute(_DESTINATION[self.destination.version], self.destination.packed)
        if self.protocol:
            flags |= _BY_NUMBER | _BY_PORT
            number, port = bytes([self.protocol]), self.port.to_bytes(2, "big")
            proto = nested(_PROTO, attribute(_NUMBER, number), attribute(_PORT, port))
        # Attribute 1 of the filter has the flags of the original direction, 2 of the reply.
        return nested(self.direction, nested(_IP, ip), proto), u32(self.direction, flags)


def encoded(*matches: Match) -> bytes:
    """The filter of entries that match in both directions, or in the only one."""
    tuples, flags = zip(*(each.encode() for each in matches), strict=True)
    return b"".join(tuples) + nested(_FILTER, *flags)


class Conntrack:
    """The flows of the network namespace of the thread that opened this.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._netlink = Netlink(NETLINK_NETFILTER)
        self._route = Netlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()
        self._route.close()

    def flush_address(self, address: IPAddress) -> None:
        """Forget all flows from *address* and to it, translated or not.

        A flow from it has it as original source; one to it, direct or through a port of the
        host or a Service, as source of the reply.  Raises NetlinkError, DumpInterrupted.
        """
        ways = (_ORIGINAL, _REPLY)
        with self._lock:
            self._forget(address.version, [Match(direction=way, source=address) for way in ways])

    def flush_port(self, protocol: Protocol, port: int, host_ip: IPAddress | None = None) -> None:
        """Forget the flows to a *port* of this host, on *host_ip* alone if given.

        Flows to the same port of other machines stay: a host port 53 must not cut off every
        pod's name server.  Raises NetlinkError, DumpInterrupted.
        """
        with self._lock:
            addresses = {host_ip} if host_ip else self._own_addresses()
            for version in (4, 6):
                matches = [
                    Match(direction=_ORIGINAL, destination=to, protocol=protocol.number, port=port)
                    for to in addresses
                    if to.version == version
                ]
                self._forget(version, matches)

    def forget(self, which: Collection[Flows]) -> None:
        """Forget translated and untranslated flows to former endpoints.

        Few by filter, many by one list.  Raises NetlinkError, DumpInterrupted.
        """
        with self._lock:
            if not which or self._is_empty():
                return
            flows = list(self._placed(which))
            for version in (4, 6):
                some = [each for each in flows if each.version == version]
                is_few = version == 4 and 0 < len(some) <= _MOST_FILTERED
                is_plain = not any(each.kept for each in some)  # no filter says "but"
                if (
                    is_few
                    and is_plain
                    and self._delete_by_filter([_matches(each) for each in some])
                ):
                    continue
                if some:
                    self._forget_listed(version, some)

    def find(self, which: Collection[Flows]) -> set[Flows]:
        """Those of *which*, each translated to somebody, that are alive.

        Raises NetlinkError, DumpInterrupted.
        """
        wanted = {_name_of(each): each for each in which}
        with self._lock:
            return {
                wanted[name]
                for version in {each.version for each in which}
                for entry in self._listed(version, is_translated=True)
                for name in _names(entry)
                if name in wanted and not entry.is_over
            }

    def leading(self) -> set[Flows]:
        """All TCP connections that were translated and are alive, each by whom it was sent to.

        Raises NetlinkError, DumpInterrupted.
        """
        with self._lock:
            if self._is_empty():
                return set()
            return {
                Flows(
                    version,
                    entry.original.destination,
                    Protocol.TCP,
                    entry.original.port,
                    entry.reply.source,
                )
                for version in (4, 6)
                for entry in self._listed(version, is_translated=True)
                if entry.original.protocol == Protocol.TCP.number and not entry.is_over
            }

    def _placed(self, which: Collection[Flows]) -> Iterator[Flows]:
        """Without an address, and whatever became of them, those of this host alone are meant."""
        own: set[IPAddress] | None = None
        for each in which:
            if each.address is not None or each.to is not None:
                yield each
                continue
            own = self._own_addresses() if own is None else own
            for address in own:
                if address.version == each.version:
                    yield each._replace(address=address)

    def _forget_listed(self, version: int, flows: Sequence[Flows]) -> None:
        wanted = {_name_of(each): each.kept for each in flows}
        deletions = [
            message(_DELETE, 0, _header(version) + entry.handle)
            for entry in self._listed(version, is_translated=all(each.to for each in flows))
            if any(
                name in wanted and entry.reply.source not in wanted[name] for name in _names(entry)
            )
        ]
        for start in range(0, len(deletions), _PER_DATAGRAM):
            self._netlink.transact(
                deletions[start : start + _PER_DATAGRAM], tolerate=lambda exc: exc.absent
            )

    def _listed(self, version: int, *, is_translated: bool) -> Iterator[Entry]:
        """All flows of IPv4 or IPv6, or those whose destination was translated."""
        request = _header(version)
        if is_translated:
            # Older kernels do not know the mask, and list all.
            mask = struct.pack(">I", _TRANSLATED)
            request += attribute(_STATUS, mask) + attribute(_STATUS_MASK, mask)
        for _, payload in self._netlink.dump(message(_GET, DUMP, request)):
            if (entry := parse(payload)) is not None:
                yield entry

    def entries(self, version: int, match: Match | None = None) -> list[Entry]:
        """Flows of IPv4 or IPv6 (not locked); *match* narrows them, where the kernel can.

        Raises NetlinkError, DumpInterrupted.
        """
        header = _header(version)
        try:
            found = self._netlink.dump(
                message(_GET, DUMP, header + (encoded(match) if match else b""))
            )
        except NetlinkError as exc:
            if exc.errno != errno.EINVAL or not match:
                raise
            found = self._netlink.dump(message(_GET, DUMP, header))
        return [entry for _, payload in found if (entry := parse(payload))]

    def _own_addresses(self) -> set[IPAddress]:
        found = self._route.dump(rtnl.list_addresses())
        return {address.address.ip for address in rtnl.parse_addresses(found)}

    def _forget(self, version: int, matches: Sequence[Match]) -> None:
        if not matches or self._is_empty():
            return
        if version == 4 and self._delete_by_filter([(match,) for match in matches]):
            return
        one = matches[0]
        by_port = Match(direction=one.direction, protocol=one.protocol, port=one.port)
        for entry in self.entries(version, by_port if one.protocol else None):
            if any(match.covers(entry) for match in matches):
                self._netlink.transact(
                    [message(_DELETE, 0, _header(version) + entry.handle)],
                    tolerate=lambda exc: exc.absent,
                )

    def _delete_by_filter(self, wanted: Sequence[Sequence[Match]]) -> bool:
        """Let the kernel find and delete IPv4 flows; False when it cannot."""
        try:
            self._netlink.transact(
                [message(_DELETE, 0, _header(4) + encoded(*matches)) for matches in wanted]
            )
        except NetlinkError:
            return False
        return True

    def _is_empty(self) -> bool:
        """No flow is known in this namespace, or nothing here knows flows."""
        try:
            answer = self._netlink.get(message(_STATISTICS, 0, _header(0)))
        except NetlinkError:
            return True
        return not any(attributes(answer, 4).get(_ENTRIES, b""))


def _matches(flows: Flows) -> tuple[Match, ...]:
    original = Match(
        direction=_ORIGINAL,
        destination=flows.address,
        protocol=flows.protocol.number,
        port=flows.port,
    )
    return (original, Match(direction=_REPLY, source=flows.to)) if flows.to else (original,)


_Name = tuple[IPAddress | None, int, int, IPAddress | None]


def _name_of(flows: Flows) -> _Name:
    return flows.address, flows.protocol.number, flows.port, flows.to


def _names(entry: Entry) -> Iterator[_Name]:
    """All by which `Flows` may mean it."""
    there = entry.original
    for address in (there.destination, None):
        for to in (entry.reply.source, None):
            yield address, there.protocol, there.port, to


def _header(version: int) -> bytes:
    return struct.pack(">BBH", {4: socket.AF_INET, 6: socket.AF_INET6}.get(version, 0), 0, 0)


def parse(payload: memoryview | bytes) -> Entry | None:
    """The entry in a message; None for one without both directions."""
    found = attributes(payload, 4)
    original, reply = _tuple(found.get(_ORIGINAL, b"")), _tuple(found.get(_REPLY, b""))
    if original is None or reply is None:
        return None
    handle = nested(_ORIGINAL, found[_ORIGINAL])
    handle += b"".join(attribute(kind, found[kind]) for kind in (_ZONE, _ID) if kind in found)
    of_tcp = attributes(attributes(found.get(_PROTOCOL_STATE, b"")).get(_TCP, b""))
    return Entry(original, reply, handle, is_over=of_tcp.get(_STATE, b"") in _OVER)


def _tuple(payload: bytes) -> Tuple | None:
    parts = attributes(payload)
    ip, proto = attributes(parts.get(_IP, b"")), attributes(parts.get(_PROTO, b""))
    version = 4 if _SOURCE[4] in ip else 6
    if _SOURCE[version] not in ip or _DESTINATION[version] not in ip:
        return None
    make = IPv4Address if version == 4 else IPv6Address
    return Tuple(
        make(ip[_SOURCE[version]]),
        make(ip[_DESTINATION[version]]),
        int.from_bytes(proto.get(_NUMBER, b"")[:1], "big"),
        int.from_bytes(proto.get(_PORT, b"")[:2], "big"),
    )
