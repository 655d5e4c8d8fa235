"""Pools: which are valid, which changes may be made, where a free block is.  Pure.

In a pool for load balancers each address is a block.
"""

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import combinations

from ipam.cluster import Config, Pool, PoolState, Purpose, Settings
from ipam.ranges import senseless
from ipam.refusals import Forbidden, Invalid
from net.address import IPNetwork

_LINK_LOCAL = IPv4Network("169.254.0.0/16")
NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,251}[a-zA-Z0-9])?")
LONGEST = {4: 30, 6: 126}
DEFAULT_LENGTH = {4: 26, 6: 122}
ONE_ADDRESS = {4: 32, 6: 128}
# Of each family.  etcd takes 128 operations in one transaction; registering may write all blocks.
MOST_BLOCKS = 50
# Every node keeps pods' addresses between each two of them.
MOST_POOLS = 64
# Every node is told all of them when it registers.
MOST_RESERVATIONS = 256
LONGEST_WAIT_S = 1e9


def name(text: str, what: str) -> str:
    """Return *text* if it can be part of a key.  Raises Invalid."""
    if not NAME.fullmatch(text):
        raise Invalid(f"{what} {text!r}: letters, digits, '.', '_' and '-' are allowed, up to 253")
    return text


def validate(config: Config) -> None:
    """Raises Invalid for the first thing that is wrong with *config*."""
    if len(config.pools) > MOST_POOLS:
        raise Invalid(f"{len(config.pools)} pools; {MOST_POOLS} are allowed")
    for pool in config.pools:
        _validate_pool(pool)
    for one, other in combinations(config.pools, 2):
        if one.name == other.name:
            raise Invalid(f"two pools are called {one.name}")
        if one.cidr.overlaps(other.cidr):
            raise Invalid(f"pool {other.name} ({other.cidr}) overlaps pool {one.name} ({one.cidr})")
    _validate_settings(config.settings)


def _validate_pool(pool: Pool) -> None:
    name(pool.name, "pool name")
    cidr, longest = pool.cidr, LONGEST[pool.cidr.version]
    if fault := senseless(cidr):
        raise Invalid(f"pool {pool.name}: {fault}")
    if cidr.overlaps(_LINK_LOCAL):
        raise Invalid(f"pool {pool.name}: {cidr} overlaps {_LINK_LOCAL}, of which links are made")
    if pool.purpose is Purpose.LOAD_BALANCERS:
        _validate_for_services(pool)
    elif pool.block_length < cidr.prefixlen:
        fitting = f"blocks of /{cidr.prefixlen} to /{longest} would fit"
        raise Invalid(
            f"pool {pool.name}: {cidr} is smaller than one block of /{pool.block_length}; "
            f"{fitting if cidr.prefixlen <= longest else f'/{longest} is the smallest pool'}"
        )
    elif pool.block_length > longest:
        raise Invalid(f"pool {pool.name}: blocks of /{pool.block_length}; /{longest} at most")
    _validate_reservations(pool)


def _validate_reservations(pool: Pool) -> None:
    if len(pool.reservations) > MOST_RESERVATIONS:
        raise Invalid(
            f"pool {pool.name}: {len(pool.reservations)} reservations; {MOST_RESERVATIONS} are "
            "allowed: take larger ranges"
        )
    for reserved in pool.reservations:
        if not reserved.overlaps(pool.cidr):
            raise Invalid(f"pool {pool.name}: reservation {reserved} is not in {pool.cidr}")


def _validate_for_services(pool: Pool) -> None:
    if pool.block_length != ONE_ADDRESS[pool.cidr.version]:
        raise Invalid(f"pool {pool.name}: Services get single addresses, it has no block length")
    if pool.state is PoolState.DRAINING:
        raise Invalid(
            f"pool {pool.name}: a Service keeps its address until it goes; the state of a pool "
            f"for {pool.purpose} is {PoolState.ACTIVE} or {PoolState.DISABLED}"
        )


def _validate_settings(settings: Settings) -> None:
    if not 1 <= settings.blocks_per_node <= MOST_BLOCKS:
        raise Invalid(f"blocks_per_node {settings.blocks_per_node}: 1 to {MOST_BLOCKS} are allowed")
    for what, seconds in (
        ("silence_s", settings.silence_s),
        ("quarantine_s", settings.quarantine_s),
    ):
        if not 0 <= seconds <= LONGEST_WAIT_S:  # nan is neither
            raise Invalid(f"{what} {seconds}: seconds, not negative, {LONGEST_WAIT_S:,.0f} at most")


def check_change(old: Pool, new: Pool | None, blocks: Iterable[IPNetwork]) -> None:
    """Refuse to take the ground from under *blocks*, those in use.  Raises Forbidden."""
    for block in blocks:
        if not block.overlaps(old.cidr):
            continue
        if old.purpose is Purpose.LOAD_BALANCERS:
            if new is None or not is_block(block, new):
                raise Forbidden(f"a Service has {block.network_address} of pool {old.name}")
            continue
        if new is None:
            raise Forbidden(f"pool {old.name} has blocks in use ({block}); drain it first")
        if block.prefixlen != new.block_length:
            raise Forbidden(
                f"pool {old.name} has blocks of /{block.prefixlen} in use ({block}); "
                "for another length make another pool, and drain this one"
            )
        if not within(block, new.cidr):
            raise Forbidden(f"pool {old.name} has {block} in use, which is not in {new.cidr}")


def only_adds(old: Pool, new: Pool | None) -> bool:
    """Tell whether whatever is a block of *old* is a block of *new*."""
    return (
        new is not None
        and (new.purpose, new.block_length) == (old.purpose, old.block_length)
        and within(old.cidr, new.cidr)
    )


def within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.overlaps(outer)
    )


def is_block(cidr: IPNetwork, pool: Pool) -> bool:
    """Tell whether *pool* is cut into blocks of which *cidr* is one."""
    return cidr.prefixlen == pool.block_length and within(cidr, pool.cidr)


def of_block(config: Config, cidr: IPNetwork, wanted: str = "") -> str:
    """Return the name of the pool of which *cidr* is a block; *wanted* if it is yet to be made.

    Raises Invalid.
    """
    for pool in config.pools:
        if is_block(cidr, pool) and pool.purpose is Purpose.PODS:
            return pool.name
        if wanted == pool.name or cidr.overlaps(pool.cidr):
            raise Invalid(
                f"{cidr} is no block of pool {pool.name}: {pool.cidr}, blocks of /"
                f"{pool.block_length}"
            )
    if not wanted:
        raise Invalid(f"{cidr} is in no pool")
    return name(wanted, "pool name")


def selects(pool: Pool, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in pool.selector.items())


def suitable(
    config: Config,
    family: int,
    labels: Mapping[str, str],
    wanted: str = "",
    *,
    purpose: Purpose = Purpose.PODS,
) -> tuple[Pool, ...]:
    """Return the pools of *family* that may give one of *labels* a block, first choice first."""
    return tuple(
        sorted(
            (
                pool
                for pool in config.pools_for(purpose)
                if pool.cidr.version == family
                and pool.state is PoolState.ACTIVE
                and wanted in ("", pool.name)
                and selects(pool, labels)
            ),
            key=lambda pool: (pool.order, pool.name),
        )
    )


def reserved_in(block: IPNetwork, pool: Pool) -> tuple[IPNetwork, ...]:
    """Return what part of *block* is reserved."""
    return tuple(
        block if within(block, one) else one for one in pool.reservations if one.overlaps(block)
    )


def start(node: str, nth: int) -> int:
    """Return where *node* begins to look for its *nth* block: the same at each return."""
    return int.from_bytes(blake2b(f"{node}/{nth}".encode(), digest_size=12).digest())


class Space:
    """The blocks of one pool, numbered without those that are excluded; which are taken.

    *excluded*: reservations, and whatever stands in the store across our blocks.  A block only
    partly reserved is given; one only partly under a foreign key is not.
    """

    def __init__(self, pool: Pool, foreign: Iterable[IPNetwork] = ()) -> None:
        self._pool = pool
        self._shift = pool.cidr.max_prefixlen - pool.block_length
        self._first = int(pool.cidr.network_address) >> self._shift
        self._all = 1 << (pool.block_length - pool.cidr.prefixlen)
        self._holes = self._merged(
            [self._whole(one) for one in _collapsed(pool)] + [self._touched(f) for f in foreign]
        )
        self.size = self._all - sum(high - low for low, high in self._holes)
        self._taken: list[int] = []

    @property
    def free(self) -> int:
        return self.size - len(self._taken)

    def take(self, block: IPNetwork) -> None:
        """Idempotent; a block that is not of this pool, or excluded, changes nothing."""
        rank = self._rank(block)
        if rank is not None and not self._has(rank):
            insort(self._taken, rank)

    def is_free(self, block: IPNetwork) -> bool:
        """Tell whether it may be given."""
        rank = self._rank(block)
        return rank is not None and not self._has(rank)

    def give_back(self, block: IPNetwork) -> None:
        rank = self._rank(block)
        if rank is not None and self._has(rank):
            del self._taken[bisect_left(self._taken, rank)]

    def pick(self, seed: int) -> IPNetwork | None:
        """Return the free block at *seed*, else the one that *seed* falls on among the free.

        So a node finds its place again, and racers for the last gaps spread over them.
        """
        if self.free <= 0:
            return None
        rank = seed % self.size
        if self._has(rank):
            nth = seed % self.free
            # taken[i] - i free ranks are before taken[i]: count the taken ones before the nth.
            before = range(len(self._taken))
            rank = nth + bisect_right(before, nth, key=lambda i: self._taken[i] - i)
        return self._block(rank)

    def _has(self, rank: int) -> bool:
        at = bisect_left(self._taken, rank)
        return at < len(self._taken) and self._taken[at] == rank

    def _block(self, rank: int) -> IPNetwork:
        index = rank
        for low, high in self._holes:
            if index < low:
                break
            index += high - low
        address = ((self._first + index) << self._shift, self._pool.block_length)
        return IPv4Network(address) if self._pool.cidr.version == 4 else IPv6Network(address)

    def _rank(self, block: IPNetwork) -> int | None:
        if block.prefixlen != self._pool.block_length or not within(block, self._pool.cidr):
            return None
        index = (int(block.network_address) >> self._shift) - self._first
        rank = index
        for low, high in self._holes:
            if low <= index < high:
                return None
            if low < index:
                rank -= high - low
        return rank

    def _whole(self, reserved: IPNetwork) -> tuple[int, int]:
        """Return the numbers of the blocks that are all reserved."""
        if reserved.prefixlen > self._pool.block_length:
            return 0, 0
        return self._touched(reserved)

    def _touched(self, cidr: IPNetwork) -> tuple[int, int]:
        if not cidr.overlaps(self._pool.cidr):
            return 0, 0
        low = (int(cidr.network_address) >> self._shift) - self._first
        high = (int(cidr.broadcast_address) >> self._shift) - self._first + 1
        return max(low, 0), min(high, self._all)

    @staticmethod
    def _merged(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        merged: list[tuple[int, int]] = []
        for low, high in sorted(span for span in spans if span[0] < span[1]):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        return tuple(merged)


def _collapsed(pool: Pool) -> Iterable[IPNetwork]:
    if pool.cidr.version == 4:
        return collapse_addresses(r for r in pool.reservations if isinstance(r, IPv4Network))
    return collapse_addresses(r for r in pool.reservations if isinstance(r, IPv6Network))
