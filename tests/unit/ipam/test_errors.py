"""Messages of the errors that carry data."""

from ipaddress import ip_address

from ipam.errors import AddressUnavailable


def test_unavailable_address_is_named_and_carried() -> None:
    error = AddressUnavailable(ip_address("10.0.0.9"), "is not in 10.1.0.0/24")

    assert str(error) == "requested address 10.0.0.9 is not in 10.1.0.0/24"
    assert error.address == ip_address("10.0.0.9")
