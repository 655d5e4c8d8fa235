"""Routes of the host to whole blocks of pods' addresses: messages out, values in.

Pure, as `dataplane.rtnl` is.
"""

import socket
import struct
from ipaddress import IPv4Network, IPv6Network, ip_address

from dataplane import rtnl
from dataplane.fabric_model import BlockRoute, OnLink
from dataplane.netlink import CREATE, EXCLUSIVE, REPLACE, attribute, attributes, message, u32
from net.address import IPNetwork

# Marks what is ours in the kernel's tables (docs/ownership.md).
BLOCK_PROTOCOL = 177

_ROUTE = struct.Struct("=BBBBBBBBI")
_DST, _OIF, _GATEWAY, _PRIORITY, _SOURCE, _TABLE = 1, 4, 5, 6, 7, 15
_UNREACHABLE = 7
_ON_LINK = 0x4
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANY = {socket.AF_INET: bytes(4), socket.AF_INET6: bytes(16)}


def put_route(route: BlockRoute, *, replace: bool) -> bytes:
    """With *replace* in place of one of the same destination and priority, in one step.

    Without, it is refused where somebody else has one.
    """
    return message(rtnl.NEWROUTE, CREATE | (REPLACE if replace else EXCLUSIVE), _body(route))


def delete_route(route: BlockRoute) -> bytes:
    """Ours alone: the protocol is compared."""
    return message(rtnl.DELROUTE, 0, _body(route))


def _body(route: BlockRoute) -> bytes:
    # An IPv4 gateway is taken for on the link, whatever routes say at the moment.
    on_link = _ON_LINK if route.via and route.via.version == 4 else 0
    body = _ROUTE.pack(
        _FAMILY[route.dst.version],
        route.dst.prefixlen,
        0,
        0,
        rtnl.MAIN_TABLE,
        BLOCK_PROTOCOL,
        0,
        rtnl.UNICAST if route.link else _UNREACHABLE,
        on_link,
    )
    body += attribute(_DST, route.dst.network_address.packed) + u32(_PRIORITY, route.priority)
    body += u32(_TABLE, rtnl.MAIN_TABLE)
    body += u32(_OIF, route.link) if route.link else b""
    body += attribute(_GATEWAY, route.via.packed) if route.via else b""
    return body + (attribute(_SOURCE, route.source.packed) if route.source else b"")


def list_main(version: int) -> bytes:
    """All routes of the main table."""
    return rtnl.list_routes(_FAMILY[version], table=rtnl.MAIN_TABLE)


def parse_main(payload: bytes | memoryview) -> BlockRoute | OnLink | None:
    """One of our routes, a network on a link, or None for what is neither."""
    family, length, _, _, _, protocol, scope, kind, _ = _ROUTE.unpack_from(payload)
    if family not in _ANY or protocol == rtnl.ROUTE_PROTOCOL:
        return None
    if protocol != BLOCK_PROTOCOL and (kind != rtnl.UNICAST or not length):
        return None
    found = attributes(payload, 12)
    link = int.from_bytes(found.get(_OIF, b""), "little")
    dst = _network(family, found.get(_DST, _ANY[family]), length)
    if protocol != BLOCK_PROTOCOL:
        linked = link and _GATEWAY not in found and scope in (0, rtnl.SCOPE_LINK)
        # Each link has the same link-local network.
        return OnLink(dst, link) if linked and not dst.is_link_local else None
    via, source = found.get(_GATEWAY), found.get(_SOURCE)
    return BlockRoute(
        dst=dst,
        priority=int.from_bytes(found.get(_PRIORITY, b""), "little"),
        # IPv6 shows loopback as the link of a route that leads nowhere.
        link=link if kind == rtnl.UNICAST else 0,
        via=ip_address(via) if via else None,
        source=ip_address(source) if source else None,
    )


def _network(family: int, address: bytes, length: int) -> IPNetwork:
    kind = IPv4Network if family == socket.AF_INET else IPv6Network
    return kind((address, length))
