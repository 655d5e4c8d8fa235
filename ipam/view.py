"""The state of cluster IPAM as one replica has seen it: entries, and what they say, by kind.

Filled from lists, from a watch and from the replica's own transactions, in any order: of one key
the highest revision counts.  Does no I/O.
"""

from collections.abc import Iterable, Mapping

from ipam.calls import Held, PoolRow, TableRow
from ipam.cluster import (
    AddressRecord,
    Block,
    BlockState,
    Config,
    Meta,
    Node,
    Pool,
    Purpose,
    ServiceRecord,
)
from ipam.given import Given
from ipam.keys import Alive, AuditCall, Foreign, Freeze, Keys, Record, alone
from ipam.kv import Entry, Event, Listing, Unchanged
from ipam.pools import Space, reserved_in, validate
from ipam.refusals import Invalid
from net.address import IPAddress, IPNetwork

HOLDING = (BlockState.ACTIVE, BlockState.DRAINING)


def sorted_cidrs(cidrs: Iterable[IPNetwork]) -> list[IPNetwork]:
    return sorted(cidrs, key=lambda cidr: (cidr.version, int(cidr.network_address)))


class View:
    """What stands under `Keys.state`; all of it is known up to *revision*, some up to *highest*."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.revision = 0
        self._listed = 0
        self.highest = 0
        self._entries: dict[str, Entry] = {}
        self._gone: dict[str, int] = {}
        self._records: dict[str, Record] = {}
        self._foreign: dict[str, Foreign] = {}
        self._nodes: dict[str, Node] = {}
        self._blocks: dict[IPNetwork, Block] = {}
        self._of_node: dict[str, set[IPNetwork]] = {}
        self._given = Given()
        self._claimed: set[IPNetwork] = set()
        self._spaces: dict[str, Space] | None = None

    # What is known.

    @property
    def meta(self) -> Meta | None:
        record = self._records.get(self.keys.meta)
        return record if isinstance(record, Meta) else None

    @property
    def config(self) -> Config | None:
        """Return None where it cannot be read or contradicts itself; see `foreign`."""
        if self.keys.config in self._foreign:
            return None
        record = self._records.get(self.keys.config)
        return record if isinstance(record, Config) else Config()

    @property
    def pool_rows(self) -> tuple[PoolRow, ...] | None:
        """Return what every node is told of the pools; None where they are not known.

        That is so where they cannot be read, and in a store that was wiped, or not begun.
        """
        config = self.config
        if config is None or not (config.pools or self.meta):
            return None
        return tuple(
            PoolRow(name=one.name, cidr=one.cidr, masquerade=one.masquerade)
            for one in config.pools_for(Purpose.PODS)
        )

    @property
    def audit(self) -> AuditCall | None:
        """Return what all nodes are being asked, if they are."""
        record = self._records.get(self.keys.audit)
        return record if isinstance(record, AuditCall) else None

    @property
    def frozen(self) -> str:
        """Return why the store says that claims wait, or ""."""
        if self.keys.frozen in self._foreign:
            return "the frozen key is there, and cannot be read"
        record = self._records.get(self.keys.frozen)
        return record.why if isinstance(record, Freeze) else ""

    @property
    def counter(self) -> int:
        entry = self._entries.get(self.keys.counter)
        return entry.version if entry else 0

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes

    @property
    def blocks(self) -> Mapping[IPNetwork, Block]:
        return self._blocks

    @property
    def addresses(self) -> Mapping[IPAddress, AddressRecord]:
        """Return what Services have, by address."""
        return self._given.addresses

    @property
    def services(self) -> Mapping[str, ServiceRecord]:
        """Return the same by Service, as namespace/name."""
        return self._given.services

    @property
    def foreign(self) -> Iterable[Foreign]:
        return self._foreign.values()

    def entry(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def unchanged(self, key: str) -> Unchanged:
        """Return the condition that *key* is as it was seen here."""
        entry = self._entries.get(key)
        return Unchanged(key, entry.mod_revision if entry else 0)

    def alive(self, node: str) -> Alive | None:
        record = self._records.get(self.keys.alive(node))
        return record if isinstance(record, Alive) else None

    def of_node(self, node: str) -> tuple[Block, ...]:
        return tuple(self._blocks[cidr] for cidr in sorted_cidrs(self._of_node.get(node, ())))

    def held(self, block: Block) -> Held:
        """Say what its node may know of *block*, which is in this view."""
        pool = next((p for p in self._pools() if p.name == block.pool), None)
        return Held(
            cidr=block.cidr,
            pool=block.pool,
            epoch=block.epoch,
            revision=self._entries[self.keys.block(block.cidr)].create_revision,
            state=block.state,
            reserved=reserved_in(block.cidr, pool) if pool else (),
        )

    def row(self, block: Block) -> TableRow:
        """Say where packets to *block* go: nowhere where it is not its node's any more."""
        node = self._nodes.get(block.node)
        ours = node is not None and node.epoch == block.epoch and block.state in HOLDING
        return TableRow(
            cidr=block.cidr,
            node=block.node,
            epoch=block.epoch,
            addresses=node.addresses if node and ours else (),
            state=block.state,
        )

    def space(self, pool: str) -> Space:
        if self._spaces is None:
            self._spaces = {one.name: self._space_of(one) for one in self._pools()}
        return self._spaces[pool]

    # What is being claimed here, so that no two calls choose the same.

    def begin_claim(self, cidrs: Iterable[IPNetwork]) -> None:
        for cidr in cidrs:
            self._claimed.add(cidr)
            self._take(cidr)

    def end_claim(self, cidrs: Iterable[IPNetwork]) -> None:
        for cidr in cidrs:
            self._claimed.discard(cidr)
            if cidr not in self._blocks and not self._given.has(cidr):
                self._give_back(cidr)

    # How it comes to be known.

    def replace(self, listing: Listing) -> set[IPNetwork]:
        """Make the view what *listing* says and nothing else; return the rows that changed."""
        before = {block.cidr: self.row(block) for block in self._blocks.values()}
        there = {entry.key for entry in listing.entries}
        self._gone.clear()
        for key in [key for key in self._entries if key not in there]:
            self._forget(key)
        for entry in listing.entries:
            if self._entries.get(entry.key) != entry:
                self._learn(entry)
        self.revision = self.highest = self._listed = listing.revision
        after = {block.cidr: self.row(block) for block in self._blocks.values()}
        return {
            cidr for cidr in before.keys() | after.keys() if before.get(cidr) != after.get(cidr)
        }

    def apply(self, event: Event) -> set[IPNetwork]:
        """Take note of one change, unless a later one is known; return the rows it touches."""
        known = self._entries.get(event.key)
        latest = known.mod_revision if known else self._gone.get(event.key, 0)
        # What was listed later knows of it: it must not bring back what went in between.
        if event.revision <= self._listed or event.revision < latest:
            return set()
        if not event.key.startswith(self.keys.state):
            return set()
        if event.revision == latest and event.entry == known:
            return set()
        self.highest = max(self.highest, event.revision)
        before, touched = self._records.get(event.key), self._rows_of(event.key)
        if event.entry is None:
            self._forget(event.key)
            self._gone[event.key] = event.revision
        else:
            self._gone.pop(event.key, None)
            self._learn(event.entry)
        if before is not None and before == self._records.get(event.key):
            return set()  # each claim puts its node again, as it is
        return touched | self._rows_of(event.key)

    def caught_up(self, revision: int) -> None:
        """All changes up to *revision* were applied."""
        self.revision = max(self.revision, revision)
        self.highest = max(self.highest, revision)
        for key in [key for key, gone in self._gone.items() if gone <= revision]:
            del self._gone[key]

    def _rows_of(self, key: str) -> set[IPNetwork]:
        match self._records.get(key):
            case Block() as block:
                return {block.cidr}
            case Node() as node:
                return set(self._of_node.get(node.name, ()))
            case _:
                return set()

    def _learn(self, entry: Entry) -> None:
        self._forget(entry.key)
        self._entries[entry.key] = entry
        record = self.keys.read(entry)
        if isinstance(record, Config):
            try:
                validate(record)
            except Invalid as exc:
                record = Foreign(entry.key, f"contradicts itself: {exc}")
        match record:
            case Foreign():
                self._foreign[entry.key] = record
                self._spaces = None
                return
            case Node():
                self._nodes[record.name] = record
            case Block():
                self._blocks[record.cidr] = record
                self._of_node.setdefault(record.node, set()).add(record.cidr)
                self._take(record.cidr)
            case AddressRecord() | ServiceRecord():
                self._take(*self._given.learn(record))
            case Config():
                self._spaces = None
        self._records[entry.key] = record

    def _forget(self, key: str) -> None:
        self._entries.pop(key, None)
        if self._foreign.pop(key, None):
            self._spaces = None
        match self._records.pop(key, None):
            case Node() as node:
                del self._nodes[node.name]
            case Block() as block:
                del self._blocks[block.cidr]
                self._of_node[block.node].discard(block.cidr)
                if not self._of_node[block.node]:
                    del self._of_node[block.node]
                self._give_back(block.cidr)
            case AddressRecord() | ServiceRecord() as given:
                self._give_back(*self._given.forget(given))
            case Config():
                self._spaces = None

    def _pools(self) -> tuple[Pool, ...]:
        return self.config.pools if self.config else ()

    def _space_of(self, pool: Pool) -> Space:
        """Fill it; what overlaps it and is not one of its blocks is in the way all the same."""
        held = (*self._blocks, *map(alone, self._given.addresses))
        inside = [cidr for cidr in held if cidr.overlaps(pool.cidr)]
        foreign = [one.cidr for one in self._foreign.values() if one.cidr is not None]
        odd = [cidr for cidr in inside if cidr.prefixlen != pool.block_length]
        space = Space(pool, (*foreign, *odd))
        for cidr in (*inside, *self._claimed):
            space.take(cidr)
        return space

    def _take(self, *cidrs: IPNetwork) -> None:
        for cidr in cidrs:
            self._check_length(cidr)
            for space in (self._spaces or {}).values():
                space.take(cidr)

    def _check_length(self, cidr: IPNetwork) -> None:
        """A block of another length than its pool's is a hole: count anew."""
        if any(p.block_length != cidr.prefixlen and p.cidr.overlaps(cidr) for p in self._pools()):
            self._spaces = None

    def _give_back(self, *cidrs: IPNetwork) -> None:
        for cidr in cidrs:
            self._check_length(cidr)
            for space in (self._spaces or {}).values():
                if cidr not in self._claimed:
                    space.give_back(cidr)
