"""What of a node decides who gets which endpoint."""

from ipaddress import ip_network

from net.address import IPNetwork
from proxy.model import NodeView
from proxy.view import EVERYWHERE, ZONE, collapsed, view_of


def view(*nodeport_addresses: IPNetwork) -> NodeView:
    return view_of(
        "here",
        labels={ZONE: "z1"},
        addresses=["192.0.2.1", "192.0.2.9", "2001:db8::1"],
        pods=[ip_network("10.244.0.0/24"), ip_network("10.244.1.0/24")],
        service_cidrs=[ip_network("10.96.0.0/16"), ip_network("10.96.7.0/24")],
        nodeport_addresses=nodeport_addresses,
    )


def test_node_ports_are_at_the_first_address_of_each_family() -> None:
    assert list(map(str, view().addresses)) == ["192.0.2.1/32", "2001:db8::1/128"]
    assert view().zone == "z1"


def test_node_ports_are_where_an_operator_says() -> None:
    assert view(*EVERYWHERE).addresses == EVERYWHERE


def test_ranges_that_overlap_are_one() -> None:
    assert list(map(str, view().pods)) == ["10.244.0.0/23"]
    assert list(map(str, view().service_cidrs)) == ["10.96.0.0/16"]
    assert collapsed([]) == ()
