"""The rtnetlink messages isthmus uses: links, addresses, routes, as bytes out and values in.

Pure: nothing here opens a socket.  Numbers are those of linux/if_link.h, if_addr.h,
rtnetlink.h and if_bridge.h.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from dataplane.model import BridgePort, Route, Veth
from dataplane.netlink import (
    APPEND,
    CREATE,
    EXCLUSIVE,
    REPLACE,
    attribute,
    attributes,
    each_attribute,
    message,
    nested,
    text,
    u32,
)
from net.address import IPAddress, IPInterface, IPNetwork

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26

# Marks what is ours in the kernel's tables (docs/ownership.md).
ROUTE_PROTOCOL = 176
DELETE_GROUP = 0x69737468

UP = 0x1
SCOPE_HOST, SCOPE_LINK = 254, 253
_NODAD, _NOPREFIXROUTE = 0x02, 0x200
_ONLINK = 0x4
MAIN_TABLE = 254
UNICAST = 1
_AF_BRIDGE = 7

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_PROTINFO, _IFLA_LINKINFO, _IFLA_IFALIAS = 12, 18, 20
_IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 26, 27, 28
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_DATA = 1, 2, 5
_IFLA_EXT_MASK, _SKIP_STATS = 29, 1 << 3
_VETH_PEER = 1
_BR_VLAN_FILTERING = 7
_PORT_MODE, _PORT_ISOLATED = 4, 33
_INET6_ADDR_GEN_MODE, _GEN_MODE_NONE = 8, 1
_BRIDGE_VLAN_INFO = 2
_VLAN_PVID, _VLAN_UNTAGGED, _VLAN_RANGE_BEGIN, _VLAN_RANGE_END = 2, 4, 8, 16


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _family(address: IPAddress | IPInterface | IPNetwork) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _header(index: int = 0, *, family: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _LINK.pack(family, 0, index, flags, change)


def new_veth(veth: Veth, netns_fd: int, master: int = 0) -> bytes:
    """Both ends in one message, the peer straight into the sandbox.

    Both stay down: IFF_UP on the peer part is refused (ENOTCONN), and a host side brought up
    last is forwarding the moment it is up, without waiting for the link watch.
    """
    peer = b"".join(
        [
            _header(),
            text(_IFLA_IFNAME, veth.pod_name),
            attribute(_IFLA_ADDRESS, _mac(veth.pod_mac)),
            u32(_IFLA_MTU, veth.mtu) if veth.mtu else b"",
            u32(_IFLA_NET_NS_FD, netns_fd),
        ]
    )
    body = [
        _header(),
        text(_IFLA_IFNAME, veth.host_name),
        attribute(_IFLA_ADDRESS, _mac(veth.host_mac)),
        u32(_IFLA_MTU, veth.mtu) if veth.mtu else b"",
        u32(_IFLA_MASTER, master) if master else b"",
        nested(
            _IFLA_LINKINFO,
            text(_INFO_KIND, "veth"),
            nested(_INFO_DATA, attribute(_VETH_PEER, peer)),
        ),
    ]
    return message(NEWLINK, CREATE | EXCLUSIVE, b"".join(body))


def new_bridge(name: str, mac: str, mtu: int, *, vlan_filtering: bool) -> bytes:
    data = attribute(_BR_VLAN_FILTERING, b"\1") if vlan_filtering else b""
    body = [
        _header(flags=UP, change=UP),
        text(_IFLA_IFNAME, name),
        attribute(_IFLA_ADDRESS, _mac(mac)),
        u32(_IFLA_MTU, mtu) if mtu else b"",
        nested(_IFLA_LINKINFO, text(_INFO_KIND, "bridge"), nested(_INFO_DATA, data)),
    ]
    return message(NEWLINK, CREATE | EXCLUSIVE, b"".join(body))


def set_vlan_filtering(index: int) -> bytes:
    data = attribute(_BR_VLAN_FILTERING, b"\1")
    info = nested(_IFLA_LINKINFO, text(_INFO_KIND, "bridge"), nested(_INFO_DATA, data))
    return message(NEWLINK, 0, _header(index) + info)


def set_link(index: int, *, flags: int = 0, mac: str = "", mtu: int = 0, master: int = 0) -> bytes:
    """Raise *flags*, and set what else is given."""
    body = _header(index, flags=flags, change=flags)
    body += u32(_IFLA_MASTER, master) if master else b""
    body += attribute(_IFLA_ADDRESS, _mac(mac)) if mac else b""
    body += u32(_IFLA_MTU, mtu) if mtu else b""
    return message(SETLINK, 0, body)


def finish_link(index: int, alias: str) -> bytes:
    """Bring a host side up and write the alias that says it is complete.

    No link-local address is made on it: nothing there listens, and duplicate address
    detection would hold up the first packets.
    """
    no_link_local = nested(
        _IFLA_AF_SPEC,
        nested(socket.AF_INET6, attribute(_INET6_ADDR_GEN_MODE, bytes([_GEN_MODE_NONE]))),
    )
    body = _header(index, flags=UP, change=UP) + text(_IFLA_IFALIAS, alias) + no_link_local
    return message(SETLINK, 0, body)


def without_link_local(index: int) -> bytes:
    spec = nested(
        _IFLA_AF_SPEC,
        nested(socket.AF_INET6, attribute(_INET6_ADDR_GEN_MODE, bytes([_GEN_MODE_NONE]))),
    )
    return message(SETLINK, 0, _header(index) + spec)


def condemn_link(name: str) -> bytes:
    """Take the alias off a host side and put it in the group of links to be deleted.

    What comes after a crash then tells it from an attachment.
    """
    body = _header() + text(_IFLA_IFNAME, name)
    body += attribute(_IFLA_IFALIAS, b"") + u32(_IFLA_GROUP, DELETE_GROUP)
    return message(SETLINK, 0, body)


def delete_link(name: str) -> bytes:
    return message(DELLINK, 0, _header() + text(_IFLA_IFNAME, name))


def delete_group() -> bytes:
    """Every link of our group at once: they share the kernel's grace periods."""
    return message(DELLINK, 0, _header() + u32(_IFLA_GROUP, DELETE_GROUP))


def get_link(index: int = 0, name: str = "") -> bytes:
    """Ask for one link, or to be dumped, for all; without counters, which nobody here reads."""
    body = _header(index) + (text(_IFLA_IFNAME, name) if name else b"")
    body += u32(_IFLA_EXT_MASK, _SKIP_STATS)
    return message(GETLINK, 0, body)


def set_port(index: int, port: BridgePort) -> bytes:
    protinfo = nested(
        _IFLA_PROTINFO,
        attribute(_PORT_MODE, bytes([port.hairpin])),
        attribute(_PORT_ISOLATED, bytes([port.isolated])),
    )
    return message(SETLINK, 0, _header(index, family=_AF_BRIDGE) + protinfo)


def port_vlans(index: int, port: BridgePort) -> list[bytes]:
    """Messages that give a port its VLANs, the default one (1) taken away unless kept."""
    out = []
    if not port.preserve_default_vlan:
        out.append(_vlan(DELLINK, index, (0, 1)))
    if port.vlan:
        out.append(_vlan(SETLINK, index, (_VLAN_PVID | _VLAN_UNTAGGED, port.vlan)))
    for low, high in port.trunk:
        if low == high:
            out.append(_vlan(SETLINK, index, (0, low)))
        else:
            out.append(_vlan(SETLINK, index, (_VLAN_RANGE_BEGIN, low), (_VLAN_RANGE_END, high)))
    return out


def _vlan(kind: int, index: int, *entries: tuple[int, int]) -> bytes:
    infos = [attribute(_BRIDGE_VLAN_INFO, struct.pack("=HH", *entry)) for entry in entries]
    return message(kind, 0, _header(index, family=_AF_BRIDGE) + nested(_IFLA_AF_SPEC, *infos))


def new_address(
    index: int, address: IPInterface, *, dad: bool = False, scope: int = 0, replace: bool = False
) -> bytes:
    """An address with its subnet route; without duplicate address detection unless *dad*."""
    body = _ADDRESS.pack(_family(address), address.network.prefixlen, 0, scope, index)
    body += attribute(2, address.ip.packed) + attribute(1, address.ip.packed)
    if address.version == 4 and address.network.prefixlen < 31:
        body += attribute(4, address.network.broadcast_address.packed)
    if address.version == 6 and not dad:
        body += u32(8, _NODAD)
    return message(NEWADDR, CREATE | (REPLACE if replace else EXCLUSIVE), body)


def delete_address(index: int, address: IPInterface) -> bytes:
    body = _ADDRESS.pack(_family(address), address.network.prefixlen, 0, 0, index)
    return message(DELADDR, 0, body + attribute(2, address.ip.packed))


def new_route(index: int, route: Route, *, protocol: int = 3, exclusive: bool = False) -> bytes:
    """A route out of link *index*; *protocol* 3 is RTPROT_BOOT, what `ip route add` writes.

    Appended, so that two gateways for one destination both stay (ECMP), unless *exclusive*.
    """
    scope = route.scope if route.scope is not None else (0 if route.via else SCOPE_LINK)
    if route.dst.version == 6 and route.scope is None:
        scope = 0
    table = route.table or MAIN_TABLE
    body = _ROUTE.pack(
        _family(route.dst),
        route.dst.prefixlen,
        0,
        0,
        table if table < 256 else 0,
        protocol,
        scope,
        UNICAST,
        _ONLINK if route.on_link else 0,
    )
    body += attribute(1, route.dst.network_address.packed) + u32(4, index) + u32(15, table)
    body += attribute(5, route.via.packed) if route.via else b""
    body += u32(6, route.priority) if route.priority else b""
    metrics = (u32(2, route.mtu) if route.mtu else b"") + (
        u32(8, route.advmss) if route.advmss else b""
    )
    body += nested(8, metrics) if metrics else b""
    return message(NEWROUTE, CREATE | (EXCLUSIVE if exclusive else APPEND), body)


def replace_host_route(index: int, dst: IPNetwork) -> bytes:
    """The host's own route to one pod address, marked as ours.

    Not of link scope, as a route without a gateway mostly is: where route_localnet is on, the
    kernel would speak to the pod from the link's own address, the pod's gateway, though that is
    of host scope (inet_select_addr), and an answer over UDP would come from a stranger.
    """
    body = _ROUTE.pack(_family(dst), dst.prefixlen, 0, 0, MAIN_TABLE, ROUTE_PROTOCOL, 0, UNICAST, 0)
    body += attribute(1, dst.network_address.packed) + u32(4, index)
    return message(NEWROUTE, CREATE | REPLACE, body)


def list_addresses(index: int = 0, family: int = 0) -> bytes:
    return message(GETADDR, 0, _ADDRESS.pack(family, 0, 0, 0, index))


def list_routes(family: int, *, protocol: int = 0, table: int = 0) -> bytes:
    body = _ROUTE.pack(family, 0, 0, 0, table if table < 256 else 0, protocol, 0, 0, 0)
    return message(GETROUTE, 0, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link as the kernel shows it; *peer* is IFLA_LINK (of a veth, the other end)."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    promiscuous: bool
    alias: str
    master: int
    group: int
    peer: int
    hairpin: bool = False
    isolated: bool = False


def parse_link(payload: bytes | memoryview) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    found = attributes(payload, 16)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    port = attributes(info.get(_INFO_SLAVE_DATA, b""))
    return Link(
        index=index,
        name=_string(found.get(_IFLA_IFNAME, b"")),
        kind=_string(info.get(_INFO_KIND, b"")),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(_IFLA_MTU)),
        up=bool(flags & UP),
        promiscuous=bool(flags & 0x100),
        alias=_string(found.get(_IFLA_IFALIAS, b"")),
        master=_number(found.get(_IFLA_MASTER)),
        group=_number(found.get(_IFLA_GROUP)),
        peer=_number(found.get(_IFLA_LINK)),
        hairpin=_number(port.get(_PORT_MODE)) == 1,
        isolated=_number(port.get(_PORT_ISOLATED)) == 1,
    )


def parse_group(payload: bytes | memoryview) -> tuple[str, int]:
    """Name and group alone, a fifth of the work: asked of every link when a few are deleted."""
    name, group = "", 0
    for kind, value in each_attribute(payload, 16):
        if kind == _IFLA_IFNAME:
            name = _string(value)
        elif kind == _IFLA_GROUP:
            group = _number(value)
            break
    return name, group


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of a link; *tentative* and *failed* are of duplicate address detection."""

    index: int
    address: IPInterface
    scope: int
    tentative: bool
    failed: bool


def parse_address(payload: bytes | memoryview) -> Address:
    _, prefix, flags, scope, index = _ADDRESS.unpack_from(payload)
    found = attributes(payload, 8)
    flags = _number(found.get(8)) or flags
    local = found.get(2, found.get(1, b""))
    return Address(
        index=index,
        address=ip_interface((local, prefix)),
        scope=scope,
        tentative=bool(flags & 0x40),
        failed=bool(flags & 0x08),
    )


def parse_addresses(messages: Iterable[tuple[int, memoryview]]) -> Iterator[Address]:
    """The IP addresses of a listing; a kernel may list those of other families with them."""
    for _, payload in messages:
        if payload[0] in (socket.AF_INET, socket.AF_INET6):
            yield parse_address(payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRoute:
    """A route as the kernel shows it; of several next hops the first."""

    dst: IPNetwork
    via: IPAddress | None
    index: int
    table: int
    protocol: int
    kind: int
    priority: int


def parse_route(payload: bytes | memoryview) -> KernelRoute:
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(payload)
    found = attributes(payload, 12)
    empty = b"\0" * (4 if family == socket.AF_INET else 16)
    via, index = found.get(5), _number(found.get(4))
    if 9 in found and len(found[9]) >= 8:
        index = struct.unpack_from("=i", found[9], 4)[0]
        via = attributes(found[9][: struct.unpack_from("=H", found[9])[0]], 8).get(5)
    return KernelRoute(
        dst=ip_network((found.get(1, empty), length)),
        via=ip_address(via) if via else None,
        index=index,
        table=_number(found.get(15)) or table,
        protocol=protocol,
        kind=kind,
        priority=_number(found.get(6)),
    )


def next_hops(payload: bytes | memoryview) -> Iterable[tuple[IPAddress | None, int]]:
    """(gateway, link index) of each next hop of a route."""
    found = attributes(payload, 12)
    if 9 not in found:
        via = found.get(5)
        yield ip_address(via) if via else None, _number(found.get(4))
        return
    data, offset = found[9], 0
    while offset + 8 <= len(data):
        length, _, _, index = struct.unpack_from("=HBBi", data, offset)
        if length < 8:
            return
        inner = dict(each_attribute(data[offset : offset + length], 8))
        yield ip_address(inner[5]) if 5 in inner else None, index
        offset += (length + 3) & ~3


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, "little") if value else 0
