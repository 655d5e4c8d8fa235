"""Which addresses of a node's blocks pods are given."""

from ipaddress import ip_network

import pytest

from ipam.holdings import OwnBlock, OwnState
from ipam.source import Source, usable


def block(cidr: str, state: OwnState = OwnState.ACTIVE, *reserved: str) -> OwnBlock:
    return OwnBlock(
        cidr=ip_network(cidr),
        pool="p",
        epoch=1,
        revision=1,
        state=state,
        reserved=tuple(map(ip_network, reserved)),
    )


@pytest.mark.parametrize(
    ("cidr", "reserved", "number"),
    [
        ("10.1.0.0/29", (), 5),
        ("10.1.0.0/29", ("10.1.0.0/30", "10.1.0.5"), 2),
        ("fd00::/126", (), 2),
        ("10.1.0.0/29", ("10.1.0.0/29",), 0),
    ],
)
def test_so_many_addresses_pods_can_have_at_least(
    cidr: str, reserved: tuple[str, ...], number: int
) -> None:
    assert usable(block(cidr, OwnState.ACTIVE, *reserved)) == number


@pytest.mark.parametrize(("routed", "gateway"), [(True, "169.254.1.1"), (False, "10.1.0.1")])
def test_the_gateway_is_of_the_link_or_the_bridge(routed: bool, gateway: str) -> None:
    source = Source.of({4: [block("10.1.0.0/29")]}, routed=routed)

    (ranges,) = source.range_sets
    assert [str(one.gateway) for one in ranges] == [gateway]


def test_active_blocks_are_given_from_once_each_a_set_for_each_family() -> None:
    four, six = block("10.1.0.0/29", OwnState.ACTIVE, "10.1.0.5"), block("fd00::/126")
    going = block("10.1.0.8/29", OwnState.DRAINING)
    source = Source.of({4: [four, going, four], 6: [six]}, routed=True)

    assert [str(ranges) for ranges in source.range_sets] == ["10.1.0.0/29", "fd00::/126"]
    assert source.excluded == four.reserved
