"""Routes and rules of ours, to the kernel and back."""

import struct
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane import rtnl
from dataplane.block_routes import (
    BLOCK_PROTOCOL,
    delete_route,
    delete_rule,
    list_main,
    list_routes,
    list_rules,
    parse_on_link,
    parse_route,
    parse_rule,
    put_route,
    put_rule,
)
from dataplane.fabric_model import BlockRoute, OnLink, Rule
from dataplane.netlink import CREATE, EXCLUSIVE, REPLACE
from net.address import IPAddress, IPNetwork
from tests.unit.dataplane.fakes import kind_of, route_payload

PREFIX, PREFIX6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")
GATEWAY = ip_address("192.0.2.254")


@st.composite
def routes(draw: st.DrawFn) -> BlockRoute:
    version = draw(st.sampled_from((4, 6)))
    bits = 32 if version == 4 else 128
    length = draw(st.integers(1, bits))
    start = draw(st.integers(0, (1 << length) - 1)) << (bits - length)
    dst: IPNetwork = (IPv4Network if version == 4 else IPv6Network)((start, length))
    link = draw(st.sampled_from((0, 2, 300)))
    address = st.ip_addresses(v=version)
    via: IPAddress | None = draw(st.none() | address) if link else None
    return BlockRoute(
        dst,
        draw(st.integers(1, 70000)),
        link,
        via,
        draw(st.none() | address) if link else None,
        draw(st.sampled_from((0, 177))),
    )


@settings(deadline=None)
@given(routes())
def test_a_route_that_was_put_is_read_as_it_was(route: BlockRoute) -> None:
    for made in (put_route(route, replace=False), delete_route(route)):
        assert parse_route(made[16:]) == route


def test_only_what_is_known_to_be_ours_is_replaced() -> None:
    route = BlockRoute(PREFIX, 512)
    flags = [struct.unpack_from("=H", put_route(route, replace=how), 6)[0] for how in (False, True)]

    assert flags[0] & (CREATE | EXCLUSIVE | REPLACE) == CREATE | EXCLUSIVE
    assert flags[1] & (CREATE | EXCLUSIVE | REPLACE) == CREATE | REPLACE
    assert kind_of(delete_route(route)) == rtnl.DELROUTE


def test_an_ipv4_gateway_needs_no_route_to_it() -> None:
    with_gateway = put_route(BlockRoute(PREFIX, 512, 2, GATEWAY), replace=False)[16:]
    without = put_route(BlockRoute(PREFIX6, 512, 2, ip_address("fe80::1")), replace=False)[16:]

    assert struct.unpack_from("=I", with_gateway, 8)[0] == 4
    assert struct.unpack_from("=I", without, 8)[0] == 0


def test_routes_of_others_are_not_ours() -> None:
    assert parse_route(route_payload(PREFIX, (GATEWAY, 2))) is None
    assert parse_route(route_payload(PREFIX, (None, 2), protocol=rtnl.ROUTE_PROTOCOL)) is None


@pytest.mark.parametrize(
    ("payload", "network"),
    [
        (route_payload(PREFIX, (None, 2), protocol=2), OnLink(PREFIX, 2)),
        (route_payload(PREFIX6, (None, 3), protocol=9), OnLink(PREFIX6, 3)),
        (route_payload(PREFIX, (GATEWAY, 2)), None),
        (route_payload(ip_network("0.0.0.0/0"), (None, 2)), None),
        (route_payload(ip_network("fe80::/64"), (None, 2), protocol=2), None),
        (route_payload(PREFIX, (None, 2), table=100), None),
        (route_payload(PREFIX, (None, 1), kind=7), None),
        (route_payload(PREFIX, (None, 2), protocol=rtnl.ROUTE_PROTOCOL), None),
        (route_payload(PREFIX, (None, 2), protocol=BLOCK_PROTOCOL), None),
        (route_payload(PREFIX, (None, 0)), None),
    ],
)
def test_a_network_without_a_router_is_on_a_link(payload: bytes, network: OnLink | None) -> None:
    assert parse_on_link(payload) == network


@pytest.mark.parametrize(
    ("source", "to"),
    [
        (ip_network("10.80.1.0/26"), ip_network("203.0.113.0/28")),
        (ip_network("10.80.1.0/26"), ip_network("0.0.0.0/0")),
        (ip_network("fd80::100/122"), ip_network("2001:db8:2::3/128")),
    ],
)
def test_a_rule_that_was_put_is_read_as_it_was(source: IPNetwork, to: IPNetwork) -> None:
    rule = Rule(source, to, 177)

    assert parse_rule(put_rule(rule)[16:]) == parse_rule(delete_rule(rule)[16:]) == rule
    assert (
        parse_rule(put_rule(rule)[16:].replace(bytes([BLOCK_PROTOCOL, 0, 0, 0]), b"\3\0\0\0"))
        is None
    )


def test_listings_are_narrowed_by_the_kernel() -> None:
    assert list_routes(4)[16:][5] == BLOCK_PROTOCOL
    assert list_main(6)[16:][4] == rtnl.MAIN_TABLE
    assert [list_rules(version)[16] for version in (4, 6)] == [2, 10]
