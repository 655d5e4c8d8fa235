"""Routes of the host to whole blocks of pods' addresses, and its rules: messages and values.

Pure, as `dataplane.rtnl` is.
"""

import socket
import struct
from ipaddress import IPv4Network, IPv6Network, ip_address

from dataplane import rtnl
from dataplane.fabric_model import BlockRoute, OnLink, Rule
from dataplane.netlink import CREATE, EXCLUSIVE, REPLACE, attribute, attributes, message, u32
from net.address import IPNetwork

# Marks what is ours in the kernel's tables (docs/ownership.md).
BLOCK_PROTOCOL = 177
RULE_PRIORITY = 1770

_ROUTE = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBxxBI")
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_RULE_DESTINATION, _RULE_SOURCE, _RULE_PRIORITY, _RULE_PROTOCOL, _TO_TABLE = 1, 2, 6, 21, 1
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
    table = route.table or rtnl.MAIN_TABLE
    body = _ROUTE.pack(
        _FAMILY[route.dst.version],
        route.dst.prefixlen,
        0,
        0,
        table,
        BLOCK_PROTOCOL,
        0,
        rtnl.UNICAST if route.link else _UNREACHABLE,
        on_link,
    )
    body += attribute(_DST, route.dst.network_address.packed) + u32(_PRIORITY, route.priority)
    body += u32(_TABLE, table)
    body += u32(_OIF, route.link) if route.link else b""
    body += attribute(_GATEWAY, route.via.packed) if route.via else b""
    return body + (attribute(_SOURCE, route.source.packed) if route.source else b"")


def list_routes(version: int) -> bytes:
    """Ours, of all tables."""
    return rtnl.list_routes(_FAMILY[version], protocol=BLOCK_PROTOCOL)


def parse_route(payload: bytes | memoryview) -> BlockRoute | None:
    """None for a route that is not ours."""
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(payload)
    if family not in _ANY or protocol != BLOCK_PROTOCOL:
        return None
    found = attributes(payload, 12)
    via, source = found.get(_GATEWAY), found.get(_SOURCE)
    return BlockRoute(
        dst=_network(family, found.get(_DST, _ANY[family]), length),
        priority=_number(found.get(_PRIORITY)),
        # IPv6 shows loopback as the link of a route that leads nowhere.
        link=_number(found.get(_OIF)) if kind == rtnl.UNICAST else 0,
        via=ip_address(via) if via else None,
        source=ip_address(source) if source else None,
        table=0 if table == rtnl.MAIN_TABLE else table,
    )


def list_main(version: int) -> bytes:
    """All routes of the main table."""
    return rtnl.list_routes(_FAMILY[version], table=rtnl.MAIN_TABLE)


def parse_on_link(payload: bytes | memoryview) -> OnLink | None:
    """None for what is no network on a link."""
    family, length, _, _, table, protocol, scope, kind, _ = _ROUTE.unpack_from(payload)
    if family not in _ANY or kind != rtnl.UNICAST or not length or table != rtnl.MAIN_TABLE:
        return None
    if protocol in (rtnl.ROUTE_PROTOCOL, BLOCK_PROTOCOL) or scope not in (0, rtnl.SCOPE_LINK):
        return None
    found = attributes(payload, 12)
    dst, link = _network(family, found.get(_DST, _ANY[family]), length), _number(found.get(_OIF))
    # Each link has the same link-local network.
    if not link or _GATEWAY in found or dst.is_link_local:
        return None
    return OnLink(dst, link)


def put_rule(rule: Rule) -> bytes:
    return message(_NEWRULE, CREATE | EXCLUSIVE, _rule(rule))


def delete_rule(rule: Rule) -> bytes:
    """Ours alone: the protocol is compared."""
    return message(_DELRULE, 0, _rule(rule))


def list_rules(version: int) -> bytes:
    return message(_GETRULE, 0, _RULE.pack(_FAMILY[version], 0, 0, 0, 0, 0, 0))


def parse_rule(payload: bytes | memoryview) -> Rule | None:
    """None for a rule that is not ours."""
    family, to_length, from_length, _, table, _, _ = _RULE.unpack_from(payload)
    found = attributes(payload, 12)
    if _number(found.get(_RULE_PROTOCOL)) != BLOCK_PROTOCOL or _RULE_SOURCE not in found:
        return None
    return Rule(
        _network(family, found[_RULE_SOURCE], from_length),
        _network(family, found.get(_RULE_DESTINATION, _ANY[family]), to_length),
        table,
    )


def _rule(rule: Rule) -> bytes:
    to, source = rule.destination, rule.source
    header = _RULE.pack(
        _FAMILY[source.version], to.prefixlen, source.prefixlen, 0, rule.table, _TO_TABLE, 0
    )
    return (
        header
        + attribute(_RULE_DESTINATION, to.network_address.packed)
        + attribute(_RULE_SOURCE, source.network_address.packed)
        + u32(_RULE_PRIORITY, RULE_PRIORITY)
        + attribute(_RULE_PROTOCOL, bytes([BLOCK_PROTOCOL]))
    )


def _network(family: int, address: bytes, length: int) -> IPNetwork:
    kind = IPv4Network if family == socket.AF_INET else IPv6Network
    return kind((address, length))


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "little")
