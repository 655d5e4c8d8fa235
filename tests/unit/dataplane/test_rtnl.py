"""What goes to the kernel, byte by byte where it matters, and what is read from it."""

import struct
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane import rtnl
from dataplane.model import BridgePort, Route, Veth
from dataplane.netlink import attribute, attributes, each_attribute, text, u32
from tests.unit.dataplane.fakes import address_payload, link_payload, route_payload

VETH = Veth(
    host_name="isth1",
    host_mac="02:00:00:00:00:0a",
    pod_name="eth0",
    pod_mac="02:00:00:00:00:0b",
    mtu=1400,
    alias="a",
)


def head(message: bytes) -> tuple[int, int]:
    """Type and flags."""
    _, kind, flags, _, _ = struct.unpack_from("=IHHII", message)
    return kind, flags


def link_part(message: bytes) -> tuple[int, int, int, int]:
    """Family, index, flags and their mask."""
    family, index, flags, change = struct.unpack_from("=Bxxxi II", message, 16)
    return family, index, flags, change


def test_a_veth_is_made_with_both_ends_at_once() -> None:
    made = rtnl.new_veth(VETH, netns_fd=9, master=7)

    found = attributes(made, 32)
    info = attributes(found[18])
    peer = attributes(attributes(info[2])[1], 16)
    assert head(made) == (16, 0x1 | 0x200 | 0x400)
    assert (found[3], found[1], found[4], found[10]) == (
        b"isth1\0",
        bytes.fromhex("02000000000a"),
        struct.pack("=I", 1400),
        struct.pack("=I", 7),
    )
    assert info[1] == b"veth\0"
    assert (peer[3], peer[1], peer[4], peer[28]) == (
        b"eth0\0",
        bytes.fromhex("02000000000b"),
        struct.pack("=I", 1400),
        struct.pack("=I", 9),
    )


def test_neither_end_of_a_veth_is_brought_up_at_once() -> None:
    made = rtnl.new_veth(VETH, netns_fd=9)
    peer = attributes(attributes(attributes(made, 32)[18])[2])[1]

    assert link_part(made) == (0, 0, 0, 0)
    assert peer[:16] == bytes(16)
    assert 10 not in attributes(made, 32)


def test_a_bridge_is_made_up_with_its_mac() -> None:
    made = rtnl.new_bridge("br0", "02:00:00:00:00:0c", 0, vlan_filtering=True)

    found = attributes(made, 32)
    assert link_part(made) == (0, 0, rtnl.UP, rtnl.UP)
    assert 4 not in found
    assert attributes(attributes(found[18])[2])[7] == b"\1"
    plain = attributes(rtnl.new_bridge("br0", VETH.pod_mac, 1400, vlan_filtering=False), 32)
    assert attributes(plain[18])[2] == b""
    assert plain[4] == struct.pack("=I", 1400)


def test_a_host_side_comes_up_with_its_alias_and_without_link_local() -> None:
    made = rtnl.finish_link(4, "isthmus/1 …")

    found = attributes(made, 32)
    assert link_part(made) == (0, 4, rtnl.UP, rtnl.UP)
    assert found[20].decode() == "isthmus/1 …\0"
    assert attributes(attributes(found[26])[10]) == {8: b"\1"}


def test_a_condemned_link_has_no_alias_and_our_group() -> None:
    found = attributes(rtnl.condemn_link("isth1"), 32)

    assert found == {3: b"isth1\0", 20: b"", 27: struct.pack("=I", rtnl.DELETE_GROUP)}


def test_a_group_is_deleted_by_its_number_alone() -> None:
    made = rtnl.delete_group()

    assert head(made)[0] == rtnl.DELLINK
    assert link_part(made) == (0, 0, 0, 0)
    assert attributes(made, 32) == {27: struct.pack("=I", rtnl.DELETE_GROUP)}


def test_a_port_is_set_in_the_bridges_family() -> None:
    made = rtnl.set_port(4, BridgePort(hairpin=True))

    assert link_part(made) == (7, 4, 0, 0)
    assert attributes(attributes(made, 32)[12]) == {4: b"\1", 33: b"\0"}


def vlans(message: bytes) -> tuple[int, list[tuple[int, int]]]:
    infos = each_attribute(attributes(message, 32)[26])
    return head(message)[0], [struct.unpack("=HH", info) for _, info in infos]


def test_a_port_gets_its_vlan_untagged_and_loses_the_default_one() -> None:
    made = rtnl.port_vlans(4, BridgePort(vlan=100, preserve_default_vlan=False))

    assert list(map(vlans, made)) == [
        (rtnl.DELLINK, [(0, 1)]),
        (rtnl.SETLINK, [(2 | 4, 100)]),
    ]


def test_a_trunk_is_single_vlans_and_ranges() -> None:
    made = rtnl.port_vlans(4, BridgePort(trunk=((101, 101), (200, 210))))

    assert list(map(vlans, made)) == [
        (rtnl.SETLINK, [(0, 101)]),
        (rtnl.SETLINK, [(8, 200), (16, 210)]),
    ]


@pytest.mark.parametrize(
    ("address", "broadcast"),
    [("10.9.0.2/24", "10.9.0.255"), ("10.9.0.2/31", None), ("10.9.0.2/32", None)],
)
def test_an_ipv4_address_has_a_broadcast_address_where_there_is_one(
    address: str, broadcast: str | None
) -> None:
    made = rtnl.new_address(4, ip_interface(address))

    found = attributes(made, 24)
    assert found[2] == found[1] == ip_address("10.9.0.2").packed
    assert found.get(4) == (ip_address(broadcast).packed if broadcast else None)
    assert 8 not in found


def test_an_ipv6_address_is_usable_at_once_unless_detection_is_wanted() -> None:
    at_once = rtnl.new_address(4, ip_interface("fd09::2/64"))
    detected = rtnl.new_address(4, ip_interface("fd09::2/64"), dad=True)

    assert attributes(at_once, 24)[8] == struct.pack("=I", 0x02)
    assert 8 not in attributes(detected, 24)


def route_part(message: bytes) -> dict[str, int]:
    names = ("family", "length", "_", "tos", "table", "protocol", "scope", "kind", "flags")
    return dict(zip(names, struct.unpack_from("=BBBBBBBBI", message, 16), strict=True))


def test_a_plain_route_is_of_link_scope() -> None:
    made = rtnl.new_route(5, Route(dst=ip_network("10.8.0.0/16")))

    part, found = route_part(made), attributes(made, 28)
    assert (part["family"], part["length"], part["scope"], part["kind"]) == (2, 16, 253, 1)
    assert (part["table"], part["protocol"], part["flags"]) == (254, 3, 0)
    assert found == {
        1: ip_address("10.8.0.0").packed,
        4: struct.pack("=I", 5),
        15: struct.pack("=I", 254),
    }


def test_a_route_says_all_that_is_asked_of_it() -> None:
    made = rtnl.new_route(
        5,
        Route(
            dst=ip_network("0.0.0.0/0"),
            via=ip_address("10.9.0.1"),
            on_link=True,
            mtu=1400,
            advmss=1360,
            priority=7,
            table=1000,
        ),
    )

    part, found = route_part(made), attributes(made, 28)
    assert (part["scope"], part["table"], part["flags"]) == (0, 0, 4)
    assert found[5] == ip_address("10.9.0.1").packed
    assert (found[6], found[15]) == (struct.pack("=I", 7), struct.pack("=I", 1000))
    assert attributes(found[8]) == {2: struct.pack("=I", 1400), 8: struct.pack("=I", 1360)}


@pytest.mark.parametrize(
    ("route", "scope"),
    [
        (Route(dst=ip_network("10.8.0.0/16"), scope=254), 254),
        (Route(dst=ip_network("10.8.0.0/16"), scope=0), 0),
        (Route(dst=ip_network("10.8.0.0/16"), via=ip_address("10.9.0.1")), 0),
        (Route(dst=ip_network("fd08::/64")), 0),
        (Route(dst=ip_network("fd08::/64"), scope=253), 253),
    ],
)
def test_scope_is_what_is_said_or_what_fits(route: Route, scope: int) -> None:
    assert route_part(rtnl.new_route(5, route))["scope"] == scope


def test_equal_routes_add_up_unless_only_one_may_be() -> None:
    route = Route(dst=ip_network("0.0.0.0/0"), via=ip_address("10.9.0.1"))

    assert head(rtnl.new_route(5, route))[1] == 0x1 | 0x400 | 0x800
    assert head(rtnl.new_route(5, route, exclusive=True))[1] == 0x1 | 0x400 | 0x200


def test_host_routes_are_marked_as_ours() -> None:
    for dst in (ip_network("10.9.0.2/32"), ip_network("fd09::2/128")):
        made = rtnl.replace_host_route(4, dst)

        assert route_part(made)["protocol"] == 176
        assert head(made) == (24, 0x1 | 0x100 | 0x400)
        assert attributes(made, 28)[4] == struct.pack("=I", 4)


def test_a_link_is_read_whole() -> None:
    payload = link_payload(
        4,
        "isth1",
        kind="veth",
        mac="02:00:00:00:00:0a",
        mtu=1400,
        promiscuous=True,
        alias="isthmus/1 …",
        master=7,
        group=9,
        peer=5,
        port=(1, 1),
    )

    assert rtnl.parse_link(payload) == rtnl.Link(
        index=4,
        name="isth1",
        kind="veth",
        mac="02:00:00:00:00:0a",
        mtu=1400,
        up=True,
        promiscuous=True,
        alias="isthmus/1 …",
        master=7,
        group=9,
        peer=5,
        hairpin=True,
        isolated=True,
    )


def test_name_and_group_are_read_alone() -> None:
    assert rtnl.parse_group(link_payload(7, "isth0", group=9, alias="a")) == ("isth0", 9)


def test_a_link_that_says_little_is_read_too() -> None:
    found = rtnl.parse_link(link_payload(1, "lo", up=False))

    assert (found.kind, found.alias, found.master, found.peer, found.up) == ("", "", 0, 0, False)


@pytest.mark.parametrize("address", ["10.9.0.2/24", "fd09::2/64"])
@pytest.mark.parametrize(
    ("flags", "tentative", "failed"), [(0, False, False), (0x40, True, False), (0x48, True, True)]
)
def test_an_address_is_read(address: str, flags: int, tentative: bool, failed: bool) -> None:
    found = rtnl.parse_address(address_payload(4, ip_interface(address), flags))

    assert found == rtnl.Address(
        index=4, address=ip_interface(address), scope=0, tentative=tentative, failed=failed
    )


def test_of_a_pair_of_addresses_the_local_one_counts() -> None:
    payload = struct.pack("=BBBBI", 2, 32, 0, 0, 4)
    payload += attribute(1, ip_address("10.0.0.2").packed)
    payload += attribute(2, ip_address("10.0.0.1").packed)

    assert rtnl.parse_address(payload).address == ip_interface("10.0.0.1/32")


@pytest.mark.parametrize("dst", ["0.0.0.0/0", "10.9.0.2/32", "::/0", "fd09::/64"])
@pytest.mark.parametrize("table", [254, 1000])
def test_a_route_is_read(dst: str, table: int) -> None:
    via = ip_address("10.9.0.1" if "." in dst else "fe80::1")

    found = rtnl.parse_route(route_payload(ip_network(dst), (via, 4), table=table, protocol=9))

    assert found == rtnl.KernelRoute(
        dst=ip_network(dst), via=via, index=4, table=table, protocol=9, kind=1, priority=0
    )


HOPS: Any = [(ip_address("10.9.0.1"), 4), (None, 5), (ip_address("10.9.0.3"), 6)]


def test_all_next_hops_of_a_route_are_found() -> None:
    several = route_payload(ip_network("0.0.0.0/0"), *HOPS)
    single = route_payload(ip_network("0.0.0.0/0"), HOPS[0])

    assert list(rtnl.next_hops(several)) == HOPS
    assert list(rtnl.next_hops(single)) == HOPS[:1]
    assert list(rtnl.next_hops(route_payload(ip_network("10.0.0.0/8"), (None, 3)))) == [(None, 3)]


def test_of_several_next_hops_a_route_shows_the_first() -> None:
    found = rtnl.parse_route(route_payload(ip_network("0.0.0.0/0"), *HOPS))

    assert (found.via, found.index) == HOPS[0]


def test_lists_are_narrowed_by_protocol_and_table() -> None:
    made = rtnl.list_routes(2, protocol=176, table=254)

    assert (route_part(made)["protocol"], route_part(made)["table"]) == (176, 254)
    assert head(rtnl.list_addresses(4))[0] == rtnl.GETADDR


def test_a_link_is_asked_for_by_index_or_name() -> None:
    assert link_part(rtnl.get_link(7))[1] == 7
    assert attributes(rtnl.get_link(name="eth0"), 32)[3] == b"eth0\0"


def test_only_what_is_given_is_set() -> None:
    assert attributes(rtnl.set_link(4, flags=rtnl.UP), 32) == {}
    assert attributes(rtnl.set_link(4, mtu=1400, master=7, mac=VETH.pod_mac), 32) == {
        10: struct.pack("=I", 7),
        1: bytes.fromhex("02000000000b"),
        4: struct.pack("=I", 1400),
    }


@given(st.binary(max_size=64))
def test_links_of_any_attributes_are_read_without_harm(data: bytes) -> None:
    found = rtnl.parse_link(bytes(16) + data)

    assert isinstance(found.name, str)


def test_a_name_that_is_no_text_is_read_without_harm() -> None:
    payload = bytes(16) + attribute(3, b"\xff\xfe\0") + u32(4, 1) + text(20, "x")

    assert rtnl.parse_link(payload).name == "\ufffd\ufffd"
