"""The reference network's configuration, as text."""

from ipaddress import ip_address, ip_network

from tests.cluster.reference import Node, conflist, planned, routes

ADDRESSES = {
    "b": (ip_address("172.30.0.3"), ip_address("fc00::3")),
    "a": (ip_address("172.30.0.2"), ip_address("fc00::2")),
}
PODS = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))


def test_nodes_have_blocks_of_each_family_in_the_order_of_their_names() -> None:
    nodes = planned(ADDRESSES, PODS)

    blocks = [(node.name, *map(str, node.blocks)) for node in nodes]
    assert blocks == [
        ("a", "10.244.0.0/24", "fd00:10:244::/112"),
        ("b", "10.244.1.0/24", "fd00:10:244::1:0/112"),
    ]


def test_blocks_of_the_others_are_reached_by_their_addresses_of_that_family() -> None:
    first, second = planned(ADDRESSES, PODS)

    assert routes(first, [first, second]) == [
        "route replace 10.244.1.0/24 via 172.30.0.3 proto 99",
        "route replace fd00:10:244::1:0/112 via fc00::3 proto 99",
    ]


def test_pods_get_an_address_and_a_default_route_of_each_family() -> None:
    node = Node("a", ADDRESSES["a"], PODS)

    ipam = conflist(node)["plugins"][0]["ipam"]

    assert ipam["ranges"] == [[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:10:244::/56"}]]
    assert ipam["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
