"""Names that every node computes alike."""

from ipaddress import ip_address

from routing.names import (
    ROUTE_PRIORITY,
    UNREACHABLE_PRIORITY,
    tunnel_gateway,
    tunnel_mac,
    tunnel_name,
)


def test_a_nodes_mac_is_of_its_name_alone_and_of_no_vendor() -> None:
    macs = {tunnel_mac(f"node-{number}") for number in range(1000)}

    assert tunnel_mac("node-1") == "02:8d:f9:1f:ea:95"
    assert len(macs) == 1000
    assert {mac[:3] for mac in macs} == {"02:"}


def test_the_gateway_is_the_link_local_address_of_the_mac() -> None:
    assert tunnel_gateway("02:e7:86:38:4c:dd") == ip_address("fe80::e7:86ff:fe38:4cdd")


def test_a_link_has_a_name_that_the_kernel_takes() -> None:
    assert tunnel_name("vxisthmus", 6) == "vxisthmus6"
    assert len(tunnel_name("x" * 14, 4)) < 16


def test_what_leads_nowhere_comes_last() -> None:
    kernels_own_ipv6 = 256

    assert kernels_own_ipv6 < ROUTE_PRIORITY < UNREACHABLE_PRIORITY
