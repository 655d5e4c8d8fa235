"""What pods are given of a node's blocks.  Pure.

Not a block's network address (in IPv6 the subnet-router anycast address), not IPv4's broadcast
address, nothing reserved; on a bridge not the first one, which is the bridge's own.  In routed
mode the gateway is of the link, so the first one is a pod's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby
from typing import Self

from ipam.holdings import OwnBlock, OwnState
from ipam.ranges import Range, RangeSet
from net.address import IPNetwork

_LINK_GATEWAY = {4: ip_address("169.254.1.1"), 6: ip_address("fe80::1")}


@dataclass(frozen=True, slots=True)
class Source:
    """What one kind of network is given from."""

    range_sets: tuple[RangeSet, ...]
    excluded: tuple[IPNetwork, ...]

    @classmethod
    def of(cls, by_family: Mapping[int, Iterable[OwnBlock]], *, routed: bool) -> Self:
        """Take the active ones of these blocks, sorted by IP version."""
        active = [b for some in by_family.values() for b in some if b.state is OwnState.ACTIVE]
        # Two of the pools may serve the same block.
        active = list({block.cidr: block for block in active}.values())
        return cls(
            tuple(
                RangeSet(tuple(_range(block, routed) for block in blocks))
                for _, blocks in groupby(active, key=lambda block: block.cidr.version)
            ),
            tuple(network for block in active for network in block.reserved),
        )


def usable(block: OwnBlock) -> int:
    """Return how many addresses of *block* pods can have, at least."""
    ranges = RangeSet((Range.of(block.cidr),))
    return sum(end - start + 1 for start, end in ranges.spans(block.reserved))


def _range(block: OwnBlock, routed: bool) -> Range:
    gateway = _LINK_GATEWAY[block.cidr.version] if routed else None
    return Range.of(block.cidr, gateway=gateway)
