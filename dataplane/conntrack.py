"""Conntrack entries that lead where they should not any more, found and deleted by netlink.

The kernel keeps one hash table for all namespaces, so the cost is in walking it: a filter is
given to the kernel (CTA_FILTER, Linux 5.8 for lists), which then answers only what matches.
Older kernels refuse or ignore the filter; every answer is checked here again.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from dataplane.errors import NetlinkError
from dataplane.netlink import DUMP, Netlink, attribute, attributes, message, nested, u32
from dataplane.nft.elements import NETLINK_NETFILTER
from dataplane.nft.objects import Protocol
from net.address import IPAddress

_CONNTRACK = 1
_GET, _DELETE = _CONNTRACK << 8 | 1, _CONNTRACK << 8 | 2
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_IP, _PROTO = 1, 2
_SOURCE = {4: 1, 6: 3}
_DESTINATION = {4: 2, 6: 4}
_NUMBER, _DESTINATION_PORT = 1, 3
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2
_BY_SOURCE, _BY_DESTINATION, _BY_NUMBER, _BY_DESTINATION_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 5
# Not compiled in, not loaded, or gone while we looked: in each case there is no entry.
_NOTHING_THERE = (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT)


@dataclass(frozen=True, slots=True)
class _Tuple:
    source: IPAddress
    destination: IPAddress
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class _Entry:
    original: _Tuple
    reply: _Tuple
    handle: bytes
    """The attributes that name it in a deletion."""


class Conntrack:
    """The flows of the network namespace of the thread that opened this; one thread at a time."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    def flush_address(self, address: IPAddress) -> int:
        """Forget all flows from *address* and to it, translated or not; returns how many.

        A flow from it has it as original source; one to it, direct or through a port of the
        host or a Service, as source of the reply.  Raises NetlinkError, DumpInterrupted.
        """
        by = nested(_IP, attribute(_SOURCE[address.version], address.packed))
        entries = [
            *self._list(address.version, nested(_ORIGINAL, by), (_FILTER_ORIGINAL, _BY_SOURCE)),
            *self._list(address.version, nested(_REPLY, by), (_FILTER_REPLY, _BY_SOURCE)),
        ]
        return self._delete(
            address.version,
            (each for each in entries if address in (each.original.source, each.reply.source)),
        )

    def flush_port(self, protocol: Protocol, port: int, host_ip: IPAddress | None = None) -> int:
        """Forget the flows to a *port* of this host, on *host_ip* alone if given; returns how many.

        Flows to the same port of other machines stay: a host port 53 must not cut off every
        pod's name server.  Raises NetlinkError, DumpInterrupted.
        """
        versions = (4, 6) if host_ip is None else (host_ip.version,)
        return sum(self._flush_port(version, protocol, port, host_ip) for version in versions)

    def _flush_port(
        self, version: int, protocol: Protocol, port: int, host_ip: IPAddress | None
    ) -> int:
        proto = nested(
            _PROTO,
            attribute(_NUMBER, bytes([protocol.number])),
            attribute(_DESTINATION_PORT, port.to_bytes(2, "big")),
        )
        flags = _BY_NUMBER | _BY_DESTINATION_PORT
        is_local = _Locality()

        def stale(each: _Entry) -> bool:
            to = each.original
            if (to.protocol, to.port) != (protocol.number, port):
                return False
            return to.destination == host_ip if host_ip else is_local(to.destination)

        found = self._list(version, nested(_ORIGINAL, proto), (_FILTER_ORIGINAL, flags))
        return self._delete(version, filter(stale, found))

    def _list(self, version: int, match: bytes, filtered: tuple[int, int]) -> list[_Entry]:
        header = _header(version)
        request = header + match + nested(_FILTER, u32(*filtered))
        try:
            found = self._netlink.dump(message(_GET, DUMP, request))
        except NetlinkError as exc:
            if exc.errno in _NOTHING_THERE:
                return []
            if exc.errno != errno.EINVAL:
                raise
            found = self._netlink.dump(message(_GET, DUMP, header))
        return [entry for _, payload in found if (entry := _parse(payload))]

    def _delete(self, version: int, entries: Iterable[_Entry]) -> int:
        handles = {each.handle for each in entries}
        for handle in handles:
            self._netlink.transact(
                [message(_DELETE, 0, _header(version) + handle)],
                tolerate=lambda exc: exc.errno in _NOTHING_THERE,
            )
        return len(handles)


class _Locality:
    """Tells which addresses are this host's: those that a socket can be bound to.

    With ip_nonlocal_bind set every address is, and some flows are forgotten without need.
    """

    def __init__(self) -> None:
        self._known: dict[IPAddress, bool] = {}

    def __call__(self, address: IPAddress) -> bool:
        if address not in self._known:
            self._known[address] = self._can_bind(address)
        return self._known[address]

    @staticmethod
    def _can_bind(address: IPAddress) -> bool:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((str(address), 0))
            except OSError:
                return False
        return True


def _header(version: int) -> bytes:
    return struct.pack(">BBH", socket.AF_INET if version == 4 else socket.AF_INET6, 0, 0)


def _parse(payload: memoryview) -> _Entry | None:
    found = attributes(payload, 4)
    original, reply = _tuple(found.get(_ORIGINAL, b"")), _tuple(found.get(_REPLY, b""))
    if original is None or reply is None:
        return None
    handle = nested(_ORIGINAL, found[_ORIGINAL])
    handle += b"".join(attribute(kind, found[kind]) for kind in (_ZONE, _ID) if kind in found)
    return _Entry(original, reply, handle)


def _tuple(payload: bytes) -> _Tuple | None:
    parts = attributes(payload)
    ip, proto = attributes(parts.get(_IP, b"")), attributes(parts.get(_PROTO, b""))
    make: Callable[[bytes], IPAddress] = IPv4Address if _SOURCE[4] in ip else IPv6Address
    version = 4 if _SOURCE[4] in ip else 6
    if _SOURCE[version] not in ip or _DESTINATION[version] not in ip:
        return None
    return _Tuple(
        make(ip[_SOURCE[version]]),
        make(ip[_DESTINATION[version]]),
        proto.get(_NUMBER, b"\0")[0],
        int.from_bytes(proto.get(_DESTINATION_PORT, b"")[:2], "big"),
    )
