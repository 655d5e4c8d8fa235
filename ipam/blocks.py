"""The blocks of this node, as the verbs and the client of ipamd both see them.

A verb asks `wanted` what to give from; it is answered from memory, which the disk follows: a
block is used once it is durable, and is not used from the moment that it is lost.  Whoever talks
to ipamd brings `adopt` what came of it.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from ipam.calls import PoolRow, TableRow, Update
from ipam.errors import NoFreeAddress, NotServed, PoolOfAnotherLink
from ipam.formers import Formers
from ipam.holdings import Holdings, OwnBlock, OwnState
from ipam.leases import Attachment, Record, State, Wanted
from ipam.ranges import RangeSet
from ipam.source import Source
from ipam.store import Change, Own, Snapshot
from ipam.table import Table
from net.address import IPAddress, IPNetwork

DEMAND_S = 600.0
_EVERY = ("",)


class Leases(Protocol):
    """The allocator, as far as blocks need it."""

    def keep(self, changes: Sequence[Change]) -> Future[None]: ...
    def bar(self, network: IPNetwork) -> bool: ...
    def unbar(self, network: IPNetwork) -> None: ...
    def retire(self, range_sets: Collection[RangeSet]) -> None: ...
    def records(self) -> Sequence[Record]: ...


class Blocks:
    """Thread-safe.  *pod_of* says whom a record is for, as a key of former addresses, or "".

    *link_of* says on which bridge a record's address is, "" in routed mode, None if unknown.
    *is_former* says whether another plugin gave a record's addresses.
    *wake* is called, in any thread, when whoever talks to ipamd has something to do; *clock* is
    monotonic seconds.
    """

    def __init__(
        self,
        leases: Leases,
        stored: Snapshot,
        *,
        boot_id: str,
        new_uid: Callable[[], str],
        pod_of: Callable[[Record], str],
        clock: Callable[[], float],
    ) -> None:
        self._leases = leases
        self._boot_id = boot_id
        self._pod_of = pod_of
        self._clock = clock
        self._lock = threading.Lock()
        self._stored = stored.holdings
        self._own = stored.holdings or Holdings(uid=new_uid())
        self._sources: dict[tuple[tuple[str, ...], str], Source] = {}
        # By pool: on which link its addresses are.  Never taken inside the allocator, as _lock is.
        self._links: dict[str, str] = {}
        self._linking = threading.Lock()
        self._formers = Formers(stored.formers, pod_of)
        self._table = Table(stored)
        self._followers: tuple[Callable[[], None], ...] = ()
        self._dirty: dict[Attachment, float] = {}
        # Why no block comes: by pool, "" for the default ones.
        self._outlook: dict[str, str] = {}
        # When an ADD last asked for a pool by its name; a restart is as if all had just done so.
        self._asked = dict.fromkeys(
            (b.pool for b in self._own.blocks if not b.default), self._clock()
        )
        self.exhausted = 0
        # Those of which the cluster has a pool for this node; None: ipamd has not said yet.
        self.families: frozenset[int] | None = None
        self._trouble, self._since = "", 0.0
        self.wake: Callable[[], None] = lambda: None
        self.link_of: Callable[[Record], str | None] = lambda record: None
        self.is_former: Callable[[Record], bool] = lambda record: False

    # For the verbs.

    @property
    def boot_id(self) -> str:
        return self._boot_id

    @property
    def holdings(self) -> Holdings:
        return self._own

    @property
    def trouble(self) -> str:
        """Why nothing can be asked of ipamd for now; "": it can."""
        return self._trouble

    @trouble.setter
    def trouble(self, why: str) -> None:
        if why and not self._trouble:
            self._since = self._clock()
        self._trouble = why

    @property
    def unserved(self) -> str:
        """Say why no ADD may use a block in this boot; "" if one may."""
        own = self._own
        if self._boot_id == own.confirmed_boot or (own.epoch and own.unconfirmed_boots):
            return ""
        what = "has not registered with" if not own.epoch else "was started anew, and waits for"
        return f"this node {what} ipamd{self._because(_EVERY)}"

    def wanted(
        self,
        pools: tuple[str, ...],
        *,
        bridge: str = "",
        network: str = "",
        pod: str = "",
        requested: tuple[IPAddress, ...] = (),
    ) -> Wanted:
        """What to ask of the allocator for a network of these *pools* (none: the default ones).

        *bridge* "" is routed mode.  Raises NotServed, which says what is waited for, and
        PoolOfAnotherLink.
        """
        pools = pools or _EVERY
        if reason := self.unserved:
            raise NotServed(reason)
        if pools != _EVERY:
            with self._lock:
                self._asked |= dict.fromkeys(filter(None, pools), self._clock())
        source = self._sources.get((pools, bridge))
        if source is None:
            source = self._make_source(pools, bridge, network)
        former = self._former(pod) if pod else ()
        return Wanted(
            range_sets=source.range_sets,
            requested=requested,
            preferred=former,
            excluded=source.excluded,
        )

    def exhaustion(self, pools: tuple[str, ...], error: NoFreeAddress) -> NoFreeAddress:
        """*error* with the pools of its blocks, and what is known of another block."""
        pools = pools or _EVERY
        self.exhausted += 1
        self.wake()
        serving = [block for block in self._own.blocks if any(map(block.serves, pools))]
        full = [block for block in serving if str(block.cidr) in str(error)]
        names = sorted({block.pool for block in full or serving})
        why = self._because(pools) or ": another block is being asked for"
        return NoFreeAddress(f"{error} (blocks of pool {', '.join(names)}){why}")

    def _make_source(self, pools: tuple[str, ...], bridge: str, network: str) -> Source:
        with self._linking:
            self._join_link(pools, bridge, network)
            return self._gather(pools, bridge)

    def _join_link(self, pools: tuple[str, ...], bridge: str, network: str) -> None:
        """Have the blocks of *pools* on this link, unless another network's are on another.

        A block's subnet is on one link.  Raises PoolOfAnotherLink.
        """
        blocks = [b for b in self._own.blocks if any(map(b.serves, pools))]
        joined = {b.pool for b in blocks if self._links.get(b.pool) != bridge}
        for record in self._leases.records() if joined else ():
            link = self.link_of(record)
            if link is None or link == bridge:
                continue
            for block in blocks:
                if block.pool in joined and any(one.ip in block.cidr for one in record.addresses):
                    raise PoolOfAnotherLink(
                        f"network {network} ({_mode(bridge)}) cannot have addresses of pool "
                        f"{block.pool}: network {record.who.network} ({_mode(link)}) has some on "
                        "this node; give both the same mode and bridge, or name another pool"
                    )
        if joined:
            with self._lock:
                self._links |= dict.fromkeys(joined, bridge)
                # Whoever was served on another link asks again, and is looked at then.
                former, self._sources = self._sources, {}
            self._retire(former.values())

    def _gather(self, pools: tuple[str, ...], bridge: str) -> Source:
        with self._lock:
            own = self._own
            blocks = [block for pool in pools for block in own.blocks if block.serves(pool)]
            missing = [p for p in pools if not any(block.serves(p) for block in own.blocks)]
            by_family = {
                version: [block for block in blocks if block.cidr.version == version]
                for version in (4, 6)
            }
            idle = [
                version
                for version, some in by_family.items()
                if some and not any(block.state is OwnState.ACTIVE for block in some)
            ]
            if not missing and not idle:
                source = Source.of(by_family, routed=not bridge)
                self._sources[pools, bridge] = source
                return source
        self.wake()
        why = self._because(pools)
        if missing:
            which = f"of pool {', '.join(missing)}" if missing != [""] else "yet"
            raise NotServed(f"this node has no block {which}{why}")
        states = ", ".join(f"{b.cidr} is {b.state}" for v in idle for b in by_family[v])
        raise NotServed(f"no usable IPv{idle[0]} block: {states}{why}")

    def _because(self, pools: tuple[str, ...]) -> str:
        with self._lock:
            refusals = "; ".join(self._outlook[pool] for pool in pools if pool in self._outlook)
        why = refusals
        if self._trouble:
            why = f"{self._trouble} (for {self._clock() - self._since:.0f} s)"
        return f": {why}" if why else ""

    def _former(self, pod: str) -> tuple[IPAddress, ...]:
        with self._lock:
            return self._formers.of(pod, self._own.blocks)

    # As the allocator's companion.

    def settled(self, who: Attachment, record: Record | None) -> None:
        with self._lock:
            self._dirty.setdefault(who, self._clock())
            if record is not None and record.state is State.HELD and record.addresses:
                self._formers.note(record)
        self.wake()

    def to_memory(self, found: Snapshot) -> Sequence[Change]:
        with self._lock:
            self._stored = None
            self._formers.rewrite(found.formers)
            self._table.rewrite(found)
            return (Own(self._own), *self._formers.unsaved(), *self._table.unsaved())

    # For whoever talks to ipamd.

    def adopt(self, own: Holdings, *, at_once: bool = False) -> Future[None]:
        """Make *own* durable, and use it from then on; *at_once*: from now on.

        What is lost is not waited for.  Fails with StoreUnavailable; then it is to be tried again.
        """
        if at_once:
            self._use(own)
        stored = self._leases.keep((Own(own),))
        done: Future[None] = Future()

        def finish(result: Future[None]) -> None:
            if error := result.exception():
                done.set_exception(error)
                return
            self._stored = own
            self._use(own)
            done.set_result(None)

        stored.add_done_callback(finish)
        return done

    def begin(self) -> Future[None]:
        """Make the node's uid durable before anybody is told of it."""
        return self.adopt(self._own)

    @property
    def is_durable(self) -> bool:
        return self._stored == self._own

    @property
    def demanded(self) -> frozenset[str]:
        """The pools that an ADD asked for by name within DEMAND_S."""
        with self._lock:
            since = self._clock() - DEMAND_S
            self._asked = {pool: asked for pool, asked in self._asked.items() if asked > since}
            return frozenset(self._asked)

    def explain(self, pool: str, outlook: str) -> None:
        """Say why *pool* ("": the default ones) gives no further block; "": nothing is wrong."""
        with self._lock:
            if outlook:
                self._outlook[pool] = outlook
            else:
                self._outlook.pop(pool, None)

    def outlook(self) -> Mapping[str, str]:
        with self._lock:
            return dict(self._outlook)

    def streamed(self, update: Update) -> None:
        """Take note of what the cluster's table, and its pools, became."""
        with self._lock:
            self._table.streamed(update)
        self._tell_followers()

    def follow(self, told: Callable[[], None]) -> None:
        """Have *told* called after each change of `table`, `pools` or `holdings`.

        It is called in any thread, with nothing locked, and also when nothing changed after all;
        it must return at once.
        """
        self._followers += (told,)

    @property
    def table(self) -> Mapping[IPNetwork, TableRow]:
        """The cluster's table as last streamed, or as stored by a former life of this agent.

        Each change makes another mapping, so one that was taken stays as it is.
        """
        return self._table.rows

    @property
    def remembered(self) -> tuple[TableRow, ...]:
        """The table, and what it lost to whole ones since the store was last known to be right."""
        with self._lock:
            return self._table.remembered

    def trust_table(self) -> None:
        """The store is the one that it was: what went from the table is gone."""
        with self._lock:
            self._table.trust()

    @property
    def pools(self) -> tuple[PoolRow, ...]:
        """The cluster's pools, known as the table is."""
        return self._table.pools

    def _tell_followers(self) -> None:
        for told in self._followers:
            told()

    def save(self) -> Future[None] | None:
        """Write behind what may lag: former addresses, and the table; None: nothing to write."""
        with self._lock:
            self._formers.digest(self._own.blocks)
            changes: list[Change] = [*self._formers.unsaved(), *self._table.unsaved()]
        return self._leases.keep(changes) if changes else None

    def take_dirty(self, limit: int) -> dict[Attachment, float]:
        """Up to *limit* attachments that changed, the longest waiting first, and since when."""
        with self._lock:
            taken = dict(list(self._dirty.items())[:limit])
            for who in taken:
                del self._dirty[who]
            return taken

    def put_back(self, taken: Mapping[Attachment, float]) -> None:
        """Note that *taken* could not be told, and comes first again."""
        with self._lock:
            self._dirty = {**taken, **{w: s for w, s in self._dirty.items() if w not in taken}}

    def lag_s(self) -> float:
        """For how long the mirror has not been told the oldest change."""
        with self._lock:
            oldest = next(iter(self._dirty.values()), None)
        return 0.0 if oldest is None else self._clock() - oldest

    @property
    def waiting(self) -> int:
        return len(self._dirty)

    def lost(self) -> tuple[OwnBlock, ...]:
        return self._own.of_state(OwnState.LOST)

    def pod_of(self, record: Record) -> str:
        return self._pod_of(record)

    def cut_off(self) -> list[tuple[Record, OwnBlock]]:
        """The records with an address in a block that is lost."""
        lost = self.lost()
        return [
            (record, block)
            for record in (self._leases.records() if lost else ())
            for block in lost
            if any(address.ip in block.cidr for address in record.addresses)
        ]

    def problems(self) -> list[str]:
        """What is wrong with this node's blocks, a line each."""
        found = [
            f"{record.who} has an address in {block.cidr}, which is no longer this node's: "
            "its traffic is dropped"
            for record, block in self.cut_off()
        ]
        found += self._strangers()
        if reason := self.unserved:
            found.append(f"no ADD is served from blocks: {reason}")
        return found

    def _strangers(self) -> Iterator[str]:
        """Say what another plugin gave of a pool, and could be another node's by now."""
        pools = [pool.cidr for pool in self.pools]
        for record in self._leases.records() if pools else ():
            for ip in (one.ip for one in record.addresses if self.is_former(record)):
                if any(ip in one for one in pools) and not any(
                    ip in b.cidr for b in self._own.blocks
                ):
                    yield (
                        f"{ip} is in use here ({record.who}), in a pool, and in no block of this "
                        "node: isthmus ipam pin, or drain that pool"
                    )

    def _use(self, own: Holdings) -> None:
        with self._lock:
            before, self._own = self._own, own
            if before.blocks == own.blocks:
                return
            former, self._sources = self._sources, {}
        self._retire(former.values())
        still = {block.cidr for block in own.of_state(OwnState.RETURNING)}
        for block in before.of_state(OwnState.RETURNING):
            if block.cidr not in still:
                self._leases.unbar(block.cidr)
        self._tell_followers()

    def _retire(self, sources: Iterable[Source]) -> None:
        self._leases.retire({ranges for one in sources for ranges in one.range_sets})


def _mode(bridge: str) -> str:
    return f"bridge {bridge}" if bridge else "routed"
