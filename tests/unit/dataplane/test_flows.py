"""Values alone: what is done with them is in test_conntrack.py."""

from ipaddress import ip_address

from dataplane.flows import Flows
from dataplane.nft.objects import Protocol


def test_without_a_target_flows_are_those_to_an_address_whatever_became_of_them() -> None:
    assert Flows(4, ip_address("10.96.0.1"), Protocol.UDP, 53).to is None
