"""Who holds which address of this node, over all its networks, and which ones idle since when.

One table of holders for all networks, because the data plane's tables are keyed by the pod's
address.  Pools are made as range sets are first seen, and made again from here should more of
them be in use than are kept.  Everything here is a function of its arguments and of what it was
told before.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ipam.leases import Attachment
from ipam.pool import HISTORY, Pool
from ipam.ranges import RangeSet
from net.address import IPAddress, IPNetwork

POOLS = 64
REMEMBERED = HISTORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How full one range set is, in addresses; *idle* had a holder, *cooling* of them lately."""

    ranges: RangeSet
    size: int
    held: int
    idle: int
    cooling: int


class _Family:
    """The tables of one address family, keyed by integer."""

    def __init__(self) -> None:
        self.held: dict[int, Attachment] = {}
        self.idle: OrderedDict[int, int] = OrderedDict()
        self.pools: OrderedDict[tuple[RangeSet, tuple[IPNetwork, ...]], Pool] = OrderedDict()


class Ledger:
    """Keeps every address held at most once, and every released one until it is forgotten."""

    def __init__(self, cooldown_ns: int, *, remembered: int = REMEMBERED) -> None:
        self._cooldown_ns = cooldown_ns
        self._remembered = remembered
        self._families = {4: _Family(), 6: _Family()}

    def holder(self, address: IPAddress) -> Attachment | None:
        return self._families[address.version].held.get(int(address))

    def is_idle(self, address: IPAddress) -> bool:
        """Tell whether *address* had a holder before and has none now."""
        return int(address) in self._families[address.version].idle

    def pool(self, ranges: RangeSet, excluded: tuple[IPNetwork, ...] = ()) -> Pool:
        """Return the pool of *ranges* less *excluded*."""
        family = self._families[ranges.version]
        key = (ranges, excluded)
        if (pool := family.pools.get(key)) is None:
            pool = Pool(ranges, excluded, held=family.held, cooldown_ns=self._cooldown_ns)
            for value, since_ns in family.idle.items():
                if value in pool:
                    pool.free(value, since_ns)
            family.pools[key] = pool
            if len(family.pools) > POOLS:
                family.pools.popitem(last=False)
        family.pools.move_to_end(key)
        return pool

    def take(self, address: IPAddress, who: Attachment) -> None:
        family, value = self._families[address.version], int(address)
        family.held[value] = who
        if family.idle.pop(value, None) is not None:
            for pool in family.pools.values():
                pool.take(value)

    def free(self, address: IPAddress, since_ns: int) -> None:
        """Let *address* cool down from *since_ns* on, which is not before the last one's."""
        family, value = self._families[address.version], int(address)
        family.held.pop(value, None)
        family.idle[value] = since_ns
        for pool in family.pools.values():
            if value in pool:
                pool.free(value, since_ns)

    def forget(self, now_ns: int) -> tuple[IPAddress, ...]:
        """Drop the oldest of a history grown too long, none that still cools; say which.

        Ranges that are no longer configured leave addresses behind that nobody would take.
        """
        forgotten: list[IPAddress] = []
        for version, family in self._families.items():
            make = IPv4Address if version == 4 else IPv6Address
            limit = self._remembered + len(family.held)
            # By the thousand: going round a pool again costs a look at each of its addresses.
            if len(family.idle) < limit + HISTORY:
                continue
            while len(family.idle) > limit:
                value, since_ns = next(iter(family.idle.items()))
                if now_ns - since_ns < self._cooldown_ns:
                    break
                del family.idle[value]
                for pool in family.pools.values():
                    pool.forget(value)
                forgotten.append(make(value))
        return tuple(forgotten)

    def count(self, networks: Sequence[IPNetwork]) -> list[int]:
        """Return how many held addresses are in each of *networks*."""
        held = {version: sorted(family.held) for version, family in self._families.items()}
        return [
            bisect_right(held[one.version], int(one.broadcast_address))
            - bisect_left(held[one.version], int(one.network_address))
            for one in networks
        ]

    def retire(self, range_sets: Collection[RangeSet]) -> None:
        """Drop the pools of *range_sets*: addresses and history stay."""
        for family in self._families.values():
            for key in [key for key in family.pools if key[0] in range_sets]:
                del family.pools[key]

    def usage(self, now_ns: int) -> Iterator[Usage]:
        """Count held and idle addresses of each pool in use."""
        for family in self._families.values():
            for pool in family.pools.values():
                yield Usage(
                    ranges=pool.ranges,
                    size=pool.size,
                    held=sum(value in pool for value in family.held),
                    idle=pool.idle,
                    cooling=pool.cooling(now_ns),
                )

    def held(self) -> Iterator[tuple[IPAddress, Attachment]]:
        for version, family in self._families.items():
            make = IPv4Address if version == 4 else IPv6Address
            for value, who in family.held.items():
                yield make(value), who

    def idle(self) -> Iterator[tuple[IPAddress, int]]:
        """Yield the history, longest idle first within each family."""
        for version, family in self._families.items():
            make = IPv4Address if version == 4 else IPv6Address
            for value, since_ns in family.idle.items():
                yield make(value), since_ns
