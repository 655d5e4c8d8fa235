"""Ranges: host-local's rules, and arithmetic that enumerates nothing."""

from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.errors import InvalidRange
from ipam.ranges import Range, RangeSet, check_disjoint, senseless


def bounds(one: Range) -> tuple[str, str, str]:
    return str(one.start), str(one.end), str(one.gateway)


def test_defaults_leave_out_network_broadcast_and_gateway() -> None:
    one = Range.of("10.1.0.0/24")

    assert bounds(one) == ("10.1.0.1", "10.1.0.254", "10.1.0.1")
    assert spans("10.1.0.0/24") == [("10.1.0.2", "10.1.0.254")]


def test_ipv6_has_no_broadcast_address() -> None:
    assert bounds(Range.of("fd00::/64")) == ("fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1")


def spans(subnet: str, *args: str, excluded: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    one = Range.of(subnet, *args)
    found = RangeSet((one,)).spans(tuple(map(ip_network, excluded)))
    make = type(one.start)
    return [(str(make(start)), str(make(end))) for start, end in found]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("10.1.2.3/24",), "subnet 10.1.2.3/24 has host bits set: the network is 10.1.2.0/24"),
        (("fd00::1/64",), "subnet fd00::1/64 has host bits set: the network is fd00::/64"),
        (("10.1.0.0/33",), "subnet '10.1.0.0/33' is not an IP network"),
        (("ten",), "subnet 'ten' is not an IP network"),
        (("",), "subnet '' is not an IP network"),
        (("10.1.0.0/31",), "subnet 10.1.0.0/31 is too small to allocate from: the smallest is /30"),
        (("10.1.0.4",), "subnet 10.1.0.4/32 is too small"),
        (("fd00::/127",), "too small to allocate from: the smallest is /126"),
        (("10.1.0.0/24", "10.2.0.1"), "rangeStart 10.2.0.1 is not in subnet 10.1.0.0/24"),
        (("10.1.0.0/24", "fd00::1"), "rangeStart fd00::1 is not in subnet 10.1.0.0/24"),
        (("10.1.0.0/24", None, "10.1.1.0"), "rangeEnd 10.1.1.0 is not in subnet 10.1.0.0/24"),
        (
            ("10.1.0.0/24", "10.1.0.9", "10.1.0.8"),
            "rangeStart 10.1.0.9 is after rangeEnd 10.1.0.8 in 10.1.0.0/24",
        ),
        (("10.1.0.0/24", "x"), "rangeStart 'x' is not an IP address"),
        (("10.1.0.0/24", None, None, "x"), "gateway 'x' is not an IP address"),
        (("10.1.0.0/24", None, None, "fe80::1"), "gateway fe80::1 is not of the family of subnet"),
        (("fd00::/64", None, None, "fe80::1%eth0"), "gateway 'fe80::1%eth0' has a zone"),
        (("10.1.0.0/24", "10.1.0.1", "10.1.0.1"), "no address to give in 10.1.0.0/24"),
        (("10.1.0.0/24", "10.1.0.255", "10.1.0.255"), "no address to give in 10.1.0.0/24"),
        (("10.1.0.0/24", "10.1.0.0", "10.1.0.0"), "no address to give in 10.1.0.0/24"),
    ],
)
def test_wrong_range_is_refused_by_name(args: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidRange) as caught:
        Range.of(*args)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("subnet", "what"),
    [
        ("0.0.0.0/0", '0.0.0.0/8, which is "this network"'),
        ("0.1.0.0/16", "this network"),
        ("127.1.0.0/16", "127.0.0.0/8, which is loopback"),
        ("224.0.0.0/8", "multicast"),
        ("255.255.255.0/24", "reserved"),
        ("::/64", "unspecified and loopback"),
        ("::ffff:10.1.0.0/112", "IPv4 written as IPv6"),
        ("fe80::/64", "link-local"),
        ("ff02::/64", "multicast"),
    ],
)
def test_a_subnet_of_addresses_that_no_pod_can_use_is_said_to_be_so(subnet: str, what: str) -> None:
    fault = senseless(ip_network(subnet))

    assert fault is not None
    assert what in fault
    assert "10.1.0.0/16" in fault


@pytest.mark.parametrize(
    "subnet", ["1.0.0.0/8", "100.64.0.0/10", "169.254.7.0/24", "223.255.255.0/24", "2001:db8::/32"]
)
def test_any_subnet_of_unicast_addresses_can_be_used(subnet: str) -> None:
    assert senseless(ip_network(subnet)) is None


def test_gateway_outside_the_subnet_is_taken() -> None:
    one = Range.of("10.1.0.0/24", gateway="169.254.1.1")

    assert str(one.gateway) == "169.254.1.1"
    assert spans("10.1.0.0/30", None, None, "169.254.1.1") == [("10.1.0.1", "10.1.0.2")]


def test_start_and_end_may_name_network_and_broadcast_which_are_left_out() -> None:
    one = Range.of("10.1.0.0/24", "10.1.0.0", "10.1.0.255")

    assert one == Range.of("10.1.0.0/24")


def test_smallest_subnet_has_one_address_to_give() -> None:
    assert spans("10.1.0.0/30") == [("10.1.0.2", "10.1.0.2")]


def test_excluded_networks_and_the_gateway_are_holes() -> None:
    found = spans(
        "10.1.0.0/24", "10.1.0.10", "10.1.0.100", "10.1.0.50",
        excluded=("10.1.0.64/28", "10.1.0.8/30", "10.1.0.100/32", "fd00::/64", "10.9.0.0/16"),
    )  # fmt: skip

    assert found == [
        ("10.1.0.12", "10.1.0.49"),
        ("10.1.0.51", "10.1.0.63"),
        ("10.1.0.80", "10.1.0.99"),
    ]


def test_range_says_whether_it_has_an_address_of_any_family() -> None:
    one = Range.of("10.1.0.0/24", "10.1.0.10", "10.1.0.20")

    assert ip_address("10.1.0.10") in one
    assert ip_address("10.1.0.21") not in one
    assert ip_address("::10.1.0.15") not in one


def test_range_gives_its_prefix_to_an_address() -> None:
    four, six = Range.of("10.1.0.0/24"), Range.of("fd00::/64")

    assert four.interface(ip_address("10.1.0.5")) == IPv4Interface("10.1.0.5/24")
    assert six.interface(ip_address("fd00::5")) == IPv6Interface("fd00::5/64")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.1.0.1", "is the gateway of 10.1.0.0/24"),
        ("10.1.0.0", "is the network address of 10.1.0.0/24"),
        ("10.1.0.255", "is the broadcast address of 10.1.0.0/24"),
        ("10.1.0.5", "is excluded from 10.1.0.0/24"),
        ("10.2.0.5", None),
    ],
)
def test_refusal_says_what_the_address_is(address: str, reason: str | None) -> None:
    assert Range.of("10.1.0.0/24").refusal(ip_address(address)) == reason


def test_names_are_the_subnet_or_the_two_ends() -> None:
    some = RangeSet((Range.of("10.1.0.0/24"), Range.of("10.2.0.0/24", "10.2.0.9", "10.2.0.19")))

    assert str(some) == "10.1.0.0/24, 10.2.0.9-10.2.0.19"


def test_range_set_finds_the_range_of_an_address() -> None:
    first, second = Range.of("10.1.0.0/24"), Range.of("10.2.0.0/24")
    both = RangeSet((first, second))

    assert both.find(ip_address("10.2.0.7")) is second
    assert ip_address("10.1.0.7") in both
    assert ip_address("10.3.0.7") not in both


@pytest.mark.parametrize(
    ("subnets", "message"),
    [
        ((), "a range set needs at least one range"),
        (("10.1.0.0/24", "fd00::/64"), "range set mixes IPv4 and IPv6: 10.1.0.0/24, fd00::/64"),
        (
            ("10.1.0.0/24", "10.1.0.0/16"),
            "ranges 10.1.0.0/24 and 10.1.0.0/16 of one range set overlap",
        ),
    ],
)
def test_wrong_range_set_is_refused_by_name(subnets: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidRange) as caught:
        RangeSet(tuple(map(Range.of, subnets)))

    assert message in str(caught.value)


def test_range_sets_that_share_an_address_are_refused() -> None:
    one = RangeSet((Range.of("10.1.0.0/24"),))
    apart = RangeSet((Range.of("10.2.0.0/24"),))
    within = RangeSet((Range.of("10.1.0.0/24", "10.1.0.254"),))
    six = RangeSet((Range.of("fd00::/64"),))

    check_disjoint([one, apart, six])
    with pytest.raises(InvalidRange, match="of two range sets overlap"):
        check_disjoint([one, six, within])


@given(
    prefix=st.integers(20, 28),
    holes=st.lists(st.tuples(st.integers(0, 4095), st.integers(24, 32)), max_size=6),
)
def test_spans_are_exactly_what_may_be_given(prefix: int, holes: list[tuple[int, int]]) -> None:
    ranges = RangeSet((Range.of(f"10.0.0.0/{prefix}"),))
    excluded = [ip_network((0x0A000000 + at, length), strict=False) for at, length in holes]

    found = [value for start, end in ranges.spans(excluded) for value in range(start, end + 1)]

    assert found == [
        int(address)
        for address in ip_network(f"10.0.0.0/{prefix}").hosts()
        if not any(address in network for network in excluded) and str(address) != "10.0.0.1"
    ]
