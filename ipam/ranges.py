"""Ranges of addresses to give from: arithmetic only, nothing here enumerates a range.

The rules are the reference host-local plugin's (containernetworking/plugins, ipam/host-local):
a subnet without host bits and with room for one pod, start and end inside it, the gateway by
default its first address.  Never given are the network address (in IPv6 the subnet-router
anycast address, RFC 4291 2.6.1), IPv4's broadcast address, and the gateway.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network
from itertools import combinations
from typing import Self

from ipam.errors import InvalidRange
from net.address import IPAddress, IPInterface, IPNetwork

_SENSELESS = tuple(
    (ip_network(block), what)
    for block, what in (
        ("0.0.0.0/8", '"this network"'),
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/127", "unspecified and loopback"),
        ("::ffff:0:0/96", "IPv4 written as IPv6"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)
"""Blocks that hosts take for something else (RFC 6890, RFC 4291)."""

Span = tuple[int, int]
"""First and last address of an unbroken run, as integers of one family."""


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses from *start* to *end* of one subnet; made by `of`, which checks them."""

    subnet: IPNetwork
    start: IPAddress
    end: IPAddress
    gateway: IPAddress

    @classmethod
    def of(
        cls,
        subnet: str | IPNetwork,
        start: str | IPAddress | None = None,
        end: str | IPAddress | None = None,
        gateway: str | IPAddress | None = None,
    ) -> Self:
        """Make a range from what a configuration says.  Raises InvalidRange.

        A gateway outside the subnet is right where pods are routed by a link-local next hop;
        host-local takes it too.
        """
        network = _network(subnet)
        lowest, highest = _bounds(network)
        first = _within(network, "rangeStart", start, lowest)
        last = _within(network, "rangeEnd", end, highest)
        make = type(network.network_address)
        if first > last:
            raise InvalidRange(
                f"rangeStart {make(first)} is after rangeEnd {make(last)} in {network}"
            )
        hop = make(lowest) if gateway is None else _address("gateway", gateway)
        if hop.version != network.version:
            raise InvalidRange(f"gateway {hop} is not of the family of subnet {network}")
        # An explicit start or end may be the network's own or the broadcast address.
        first, last = max(first, lowest), min(last, highest)
        if first > last or first == last == int(hop):
            raise InvalidRange(
                f"no address to give in {network}: all from rangeStart to rangeEnd are network,"
                " broadcast or gateway addresses"
            )
        return cls(network, make(first), make(last), hop)

    def __contains__(self, address: IPAddress) -> bool:
        """Tell whether *address* lies from start to end (it may be the gateway)."""
        same = address.version == self.subnet.version
        return same and int(self.start) <= int(address) <= int(self.end)

    def __str__(self) -> str:
        whole = (int(self.start), int(self.end)) == _bounds(self.subnet)
        return str(self.subnet) if whole else f"{self.start}-{self.end}"

    def overlaps(self, other: Self) -> bool:
        """Tell whether an address is in both."""
        return other.start in self or self.start in other

    def refusal(self, address: IPAddress) -> str | None:
        """Say what *address* is in the subnet that it cannot be given; None: nothing special."""
        if address == self.gateway:
            return f"is the gateway of {self.subnet}"
        if address == self.subnet.network_address:
            return f"is the network address of {self.subnet}"
        if address == self.subnet.broadcast_address and self.subnet.version == 4:
            return f"is the broadcast address of {self.subnet}"
        return f"is excluded from {self}" if address in self else None

    def interface(self, address: IPAddress) -> IPInterface:
        """Give *address* the subnet's prefix length."""
        kind = IPv4Interface if self.subnet.version == 4 else IPv6Interface
        return kind((int(address), self.subnet.prefixlen))


@dataclass(frozen=True, slots=True)
class RangeSet:
    """Ranges of one family that are alternatives: an ADD gets one address of them.

    Raises InvalidRange when empty, of both families, or when two ranges overlap.
    """

    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        if not self.ranges:
            raise InvalidRange("a range set needs at least one range")
        if len(self.ranges) > 1:
            families = {one.subnet.version for one in self.ranges}
            if len(families) > 1:
                raise InvalidRange(f"range set mixes IPv4 and IPv6: {self}")
            for one, other in combinations(self.ranges, 2):
                if one.overlaps(other):
                    raise InvalidRange(f"ranges {one} and {other} of one range set overlap")

    @property
    def version(self) -> int:
        return self.ranges[0].subnet.version

    def __iter__(self) -> Iterator[Range]:
        return iter(self.ranges)

    def __contains__(self, address: IPAddress) -> bool:
        return self.find(address) is not None

    def __str__(self) -> str:
        return ", ".join(map(str, self.ranges))

    def find(self, address: IPAddress) -> Range | None:
        """Return the range that *address* is in."""
        return next((one for one in self.ranges if address in one), None)

    def spans(self, excluded: Iterable[IPNetwork] = ()) -> tuple[Span, ...]:
        """Return, in the configuration's order, what may be given: no gateway, none *excluded*."""
        holes = [(int(one.gateway), int(one.gateway)) for one in self.ranges]
        holes += [
            (int(network.network_address), int(network.broadcast_address))
            for network in excluded
            if network.version == self.version
        ]
        spans = [(int(one.start), int(one.end)) for one in self.ranges]
        for hole in holes:
            spans = [part for span in spans for part in _cut(span, hole)]
        return tuple(spans)


def check_disjoint(range_sets: Iterable[RangeSet]) -> None:
    """Refuse range sets that share an address.  Raises InvalidRange."""
    for one, other in combinations(range_sets, 2):
        for mine in one:
            for theirs in other:
                if mine.overlaps(theirs):
                    raise InvalidRange(f"ranges {mine} and {theirs} of two range sets overlap")


def senseless(network: IPNetwork) -> str | None:
    """Say why no pod can use addresses of *network*; None: they are unicast addresses."""
    for block, what in _SENSELESS:
        if block.version == network.version and network.overlaps(block):
            return (
                f"{network} overlaps {block}, which is {what}: unicast addresses are wanted, such"
                " as those of 10.1.0.0/16 or fd00:1::/64"
            )
    return None


def _bounds(network: IPNetwork) -> Span:
    broadcast = network.version == 4
    return int(network.network_address) + 1, int(network.broadcast_address) - broadcast


def _cut(span: Span, hole: Span) -> Iterator[Span]:
    (start, end), (first, last) = span, hole
    if last < start or end < first:
        yield span
        return
    if start < first:
        yield (start, first - 1)
    if last < end:
        yield (last + 1, end)


def _network(value: str | IPNetwork) -> IPNetwork:
    if isinstance(value, str):
        try:
            network = ip_network(value, strict=False)
        except ValueError as exc:
            raise InvalidRange(f"subnet {value!r} is not an IP network: {exc}") from exc
        if str(ip_address(value.partition("/")[0])) != str(network.network_address):
            raise InvalidRange(f"subnet {value} has host bits set: the network is {network}")
    else:
        network = value
    if network.max_prefixlen - network.prefixlen < 2:
        raise InvalidRange(
            f"subnet {network} is too small to allocate from: the smallest is"
            f" /{network.max_prefixlen - 2} (network address, gateway, pod)"
        )
    return network


def _address(name: str, value: str | IPAddress) -> IPAddress:
    if not isinstance(value, str):
        return value
    try:
        address = ip_address(value)
    except ValueError as exc:
        raise InvalidRange(f"{name} {value!r} is not an IP address") from exc
    if "%" in value:
        raise InvalidRange(f"{name} {value!r} has a zone: an address alone is wanted")
    return address


def _within(network: IPNetwork, name: str, value: str | IPAddress | None, default: int) -> int:
    if value is None:
        return default
    address = _address(name, value)
    if address not in network:
        raise InvalidRange(f"{name} {address} is not in subnet {network}")
    return int(address)
