"""The unions take both families, and nothing else."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from net.address import IPAddress, IPInterface, IPNetwork


@pytest.mark.parametrize("text", ["10.9.0.2", "fd09::2"])
def test_each_shape_is_there_for_each_family(text: str) -> None:
    assert isinstance(ip_address(text), IPAddress)
    assert isinstance(ip_interface(text), IPInterface)
    assert isinstance(ip_network(text), IPNetwork)


def test_a_network_is_no_address() -> None:
    assert not isinstance(ip_network("10.9.0.0/24"), IPAddress)
    assert not isinstance(ip_address("10.9.0.2"), IPNetwork)
