"""VXLAN links and their entries, to the kernel and back."""

import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest

from dataplane.fabric_model import Forward, Neighbour, Tunnel, TunnelLink
from dataplane.netlink import attribute, nested, text, u32
from dataplane.tunnel import (
    TUNNEL_GROUP,
    delete_forward,
    delete_neighbour,
    list_forwards,
    list_neighbours,
    list_tunnels,
    new_tunnel,
    parse_forward,
    parse_neighbour,
    parse_tunnel,
    put_forward,
    put_neighbour,
)
from tests.unit.dataplane.fakes import link_payload

FOUR = Tunnel(
    name="vx4",
    mac="02:00:00:00:00:01",
    vni=4177,
    port=4789,
    local=ip_address("192.0.2.1"),
    mtu=1450,
)
SIX = replace(FOUR, name="vx6", local=ip_address("2001:db8::1"))


@pytest.mark.parametrize("tunnel", [FOUR, SIX])
def test_a_tunnel_that_was_made_is_read_as_it_was(tunnel: Tunnel) -> None:
    assert parse_tunnel(new_tunnel(tunnel)[16:]) == TunnelLink(
        index=0, tunnel=tunnel, name=tunnel.name, up=False, ours=True
    )


@pytest.mark.parametrize("data", [b"", u32(1, 7), attribute(4, bytes(4)) + attribute(7, b"\1")])
def test_a_link_that_learns_or_has_no_address_is_none_of_ours(data: bytes) -> None:
    payload = link_payload(5, "vx4") + nested(18, text(1, "vxlan"), nested(2, data))

    found = parse_tunnel(payload)

    assert (found.index, found.tunnel, found.ours, found.up) == (5, None, False, True)


def test_ours_is_known_by_its_group() -> None:
    assert parse_tunnel(link_payload(5, "other", group=TUNNEL_GROUP)).ours


@pytest.mark.parametrize("remote", ["192.0.2.2", "2001:db8::2"])
def test_a_forwarding_entry_that_was_put_is_read_as_it_was(remote: str) -> None:
    forward = Forward(5, "02:00:00:00:00:02", ip_address(remote))

    assert parse_forward(put_forward(forward)[16:]) == forward
    assert parse_forward(delete_forward(forward)[16:]) == forward


def test_an_entry_without_a_host_is_passed_over() -> None:
    header = struct.pack("=BxxxiHBB", 7, 5, 0x80, 2, 0)

    assert parse_forward(header + attribute(2, bytes(6))) is None


@pytest.mark.parametrize("address", ["10.80.2.0", "fe80::2"])
def test_a_neighbour_that_was_put_is_read_as_it_was(address: str) -> None:
    neighbour = Neighbour(5, ip_address(address), "02:00:00:00:00:02")

    assert parse_neighbour(put_neighbour(neighbour)[16:]) == neighbour
    assert parse_neighbour(delete_neighbour(neighbour)[16:]) == neighbour


def test_a_neighbour_that_was_learnt_is_passed_over() -> None:
    reachable = struct.pack("=BxxxiHBB", 2, 5, 0x02, 0, 0)

    assert parse_neighbour(reachable + attribute(1, bytes(4)) + attribute(2, bytes(6))) is None


def test_listings_name_the_link_or_the_kind() -> None:
    assert b"vxlan\0" in list_tunnels()
    assert struct.unpack_from("=i", list_forwards(5), 20)[0] == 5
    assert list_neighbours(2, 5).endswith(u32(8, 5))
