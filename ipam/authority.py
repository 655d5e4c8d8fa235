"""The calls of ipamd, over a store: see docs/design/0005.

Any number of these run at once, each on its own view of one store; whatever they decide is
decided again by the comparisons of one transaction.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random

from ipam import audit, pools, reclaim, registration, reports
from ipam.administration import Administration
from ipam.auditing import Auditing
from ipam.calls import (
    Audit,
    Claim,
    Claimed,
    Finding,
    Held,
    Leave,
    Mirror,
    Register,
    Registered,
    Release,
    TableRow,
    Update,
)
from ipam.cluster import Block, BlockState, Config, Meta, Node, NodeState, PoolState
from ipam.errors import StoreUnavailable
from ipam.keys import Alive, Counter, Freeze, Keys, write
from ipam.kv import KV, Delete, KVError, LeaseGone, Put, Unchanged
from ipam.liveness import Liveness
from ipam.memory import DaemonMemory
from ipam.mirror import Mirrors
from ipam.refusals import Exhausted, Forbidden, Invalid, NotReady, Refused, Stale, Unknown
from ipam.replica import Change, Replica
from ipam.view import HOLDING, View
from net.address import IPNetwork

TICK_S = 2.0
# In which a lease is mirrored, and a claim comes to its node.
AGAIN_S = 2.0
STEPS_A_TICK = 200
# etcd takes 128 comparisons in one transaction.
MOST_LISTED = 110
# Each block's row has the addresses of its node, in every stream.
MOST_ADDRESSES = 16
MOST_LABELS = 256
# Each fence makes it one more, and what is above 63 bits is in no message.
HIGHEST_EPOCH = 1 << 48

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """For the metrics page; *free* by pool, in blocks."""

    claims: int
    conflicts: int
    transactions: int
    refused: int
    streams: int
    nodes: int
    blocks: int
    free: Mapping[str, int]
    oldest_unheard_s: float
    frozen: bool
    synced: bool


class Authority(Administration):
    """Every method raises a Refused (ipam.refusals) or a KVError (ipam.kv), nothing else.

    *clock*: monotonic seconds.  Raises StoreDamaged where the memory cannot be read.
    """

    def __init__(
        self,
        kv: KV,
        *,
        cluster: str,
        memory: DaemonMemory,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        keys = Keys(pools.name(cluster, "cluster name"))
        replica = Replica(kv, keys, memory, random)
        super().__init__(replica, Liveness(replica, clock), random)
        self._clock = clock
        self._mirrors = Mirrors(replica)
        self._auditing = Auditing(replica, random)
        self._silent = reclaim.Patience()
        self._resting = reclaim.Patience()
        self._unheard = reclaim.Patience()
        self._oldest_unheard_s = 0.0

    @property
    def replica(self) -> Replica:
        return self._replica

    async def run(self) -> None:
        """Follow the store, keep liveness and reclaim, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._replica.follow())
            tasks.create_task(self._replica.feed.run())
            tasks.create_task(self._tick_for_ever())

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S * (0.75 + 0.5 * self._random.random()))
            try:
                await self.tick()
            except (KVError, Refused, StoreUnavailable) as exc:
                log.warning("housekeeping waits: %s", exc)

    # What nodes ask.

    async def register(self, asked: Register) -> Registered:
        """Say who the node is now, and what is its own; find out whether the store went back.

        Raises Invalid, SecondBoot, Forbidden.
        """
        _validate(asked)
        self._replica.generations |= {asked.generation} - {""}
        replica, view, keys = self._replica, self._replica.view, self._replica.keys
        replica.require_synced()
        if view.meta is None or asked.counter > view.counter:
            await replica.refresh([keys.meta, keys.counter])
        for _ in range(2):
            try:
                return await self._registered(asked, await self._plan(asked))
            except LeaseGone:
                self._liveness.lease_gone()
        raise NotReady("liveness is being set up anew; try again")

    async def _plan(self, asked: Register) -> registration.Plan:
        """Carry out what registering comes to, and return it."""
        keys = self._replica.keys
        put_alive = await self._liveness.put(asked.node, _alive(asked))
        plans: list[registration.Plan] = []

        def decide(attempt: int) -> Change:
            plans.append(registration.plan(asked, self._known(asked.node)))
            return self._registering(asked, plans[-1], put_alive)

        looked_at = [keys.node(asked.node), keys.alive(asked.node), keys.meta, keys.frozen]
        await self._replica.transact(looked_at, decide)
        return plans[-1]

    async def _registered(self, asked: Register, plan: registration.Plan) -> Registered:
        replica = self._replica
        self._liveness.registered(asked.node, _alive(asked))
        if plan.freeze:
            log.error("claims are frozen: %s", plan.freeze)
        else:
            replica.has_spoken(asked.node)
        if replica.frozen:
            await self._assert_table(asked)
        return self._answer(plan.node, plan.lost)

    def _known(self, node: str) -> registration.Known:
        view, key = self._replica.view, self._replica.keys.node(node)
        return registration.Known(
            # Without one, whoever remembers one finds that the store is not what it was.
            meta=view.meta or Meta(generation=""),
            node=view.nodes.get(node),
            alive=view.alive(node),
            counter=view.counter,
            blocks=view.blocks,
            unconfirmed_boots=(view.config or Config()).settings.unconfirmed_boots,
            edited=any(one.key == key for one in view.foreign),
            unreadable=[one.cidr for one in view.foreign if one.cidr],
        )

    def _registering(self, asked: Register, plan: registration.Plan, alive: Put) -> Change:
        """Compare all that the plan looked at, so that it holds when it is carried out."""
        view, keys = self._replica.view, self._replica.keys
        cidrs = [*(held.cidr for held in asked.blocks), *(block.cidr for block in plan.blocks)]
        mine = map(keys.block, cidrs)
        looked_at = dict.fromkeys(
            [keys.meta, keys.node(asked.node), keys.alive(asked.node), keys.config, *mine]
        )
        changes: list[Put | Delete] = [Put(keys.block(b.cidr), write(b)) for b in plan.blocks]
        if plan.blocks or plan.freeze:
            changes.append(Put(keys.counter, write(Counter())))
        if plan.freeze and view.entry(keys.frozen) is None:
            looked_at[keys.frozen] = None
            changes.append(Put(keys.frozen, write(Freeze(plan.freeze))))
        if plan.node != view.nodes.get(asked.node) and not plan.keep:
            changes.append(Put(keys.node(asked.node), write(plan.node)))
        if not self._liveness.is_shown(asked.node, _alive(asked)):
            changes.append(alive)
        return Change([view.unchanged(key) for key in looked_at], changes)

    async def _assert_table(self, asked: Register) -> None:
        """While frozen, put back the rows of others that a node had streamed, where nothing is."""
        view, keys = self._replica.view, self._replica.keys
        await self._replica.refresh([keys.frozen])
        if view.entry(keys.frozen) is None:
            return
        still_frozen = view.unchanged(keys.frozen)
        for row in asked.table:
            # Each node has all rows: of most, another has just put them back.
            if row.cidr in view.blocks or _overlaps(view, row):
                continue
            block = Block(cidr=row.cidr, pool="", node=row.node, uid="", epoch=row.epoch, nonce="")
            conditions = [Unchanged(keys.block(row.cidr), 0), still_frozen]
            puts = [Put(keys.block(row.cidr), write(block)), Put(keys.counter, write(Counter()))]
            await self._replica.commit(Change(conditions, puts))

    def _answer(self, node: Node, lost: tuple[IPNetwork, ...]) -> Registered:
        view = self._replica.view
        return Registered(
            epoch=node.epoch,
            generation=view.meta.generation if view.meta else "",
            counter=self._replica.counter,
            node_state=node.state,
            blocks=tuple(
                view.held(block)
                for block in view.of_node(node.name)
                if block.uid == node.uid and block.epoch == node.epoch
            ),
            lost=lost,
            unconfirmed_boots=(view.config or Config()).settings.unconfirmed_boots,
            frozen=self._replica.frozen,
            pools=(view.config or Config()).pools,
        )

    async def claim(self, asked: Claim) -> Claimed:
        """Give one block for each family, all in one transaction.

        Raises Invalid, Frozen, Stale, Forbidden, Exhausted, Contended.
        """
        if not asked.nonce or not asked.families or not set(asked.families) <= {4, 6}:
            raise Invalid("a claim needs a nonce, and families out of 4 and 6")
        replica, view, keys = self._replica, self._replica.view, self._replica.keys
        chosen: list[Block] = []

        def decide(attempt: int) -> Change:
            replica.require_thawed()
            view.end_claim(block.cidr for block in chosen)
            node = self._claimant(asked)
            chosen[:] = self._granted(asked)
            if chosen:
                same = [keys.node(asked.node), *(keys.block(block.cidr) for block in chosen)]
                return Change([view.unchanged(key) for key in same])
            chosen[:] = self._choose(asked, node, attempt)
            view.begin_claim(block.cidr for block in chosen)
            # The node's record is put again, as it is: of two claims of one node that do not
            # know of each other, one a repetition perhaps, the second then fails.
            conditions = [
                *replica.thawed(),
                view.unchanged(keys.config),
                view.unchanged(keys.node(asked.node)),
                *(Unchanged(keys.block(block.cidr), 0) for block in chosen),
            ]
            puts = [Put(keys.block(block.cidr), write(block)) for block in chosen]
            again = [Put(keys.node(node.name), write(node)), Put(keys.counter, write(Counter()))]
            return Change(conditions, [*puts, *again])

        looked_at = [keys.meta, keys.frozen, keys.config, keys.node(asked.node)]
        try:
            await replica.transact(looked_at, decide)
        finally:
            view.end_claim(block.cidr for block in chosen)
        self._liveness.heard(asked.node)
        replica.tally.claims += 1
        # Deleted in the same moment by another replica: the node learns it when it registers.
        there = [view.blocks[block.cidr] for block in chosen if block.cidr in view.blocks]
        return Claimed(blocks=tuple(map(view.held, there)), counter=replica.counter)

    def _claimant(self, asked: Claim | Release) -> Node:
        node = self._replica.view.nodes.get(asked.node)
        if node is None or node.uid != asked.uid:
            raise Stale(f"node {asked.node} is not registered with store {asked.uid}: register")
        if node.epoch != asked.epoch:
            raise Stale(f"node {asked.node} is in epoch {node.epoch}, not {asked.epoch}: register")
        return node

    def _granted(self, asked: Claim) -> list[Block]:
        """Return what this claim got before, if this is a repetition."""
        got = [b for b in self._replica.view.of_node(asked.node) if b.nonce == asked.nonce]
        if any(b.state not in HOLDING or b.epoch != asked.epoch for b in got):
            raise Stale("this claim was answered, and what it got was given back since")
        return got

    def _choose(self, asked: Claim, node: Node, attempt: int) -> list[Block]:
        view = self._replica.view
        if node.state is not NodeState.ACTIVE:
            raise Forbidden(f"node {node.name} is {node.state}: it gets no blocks")
        if view.config is None:
            raise Forbidden("the configuration in the store cannot be read; see isthmus ipam check")
        chosen = []
        for family in _families(view.config, asked):
            mine = [b for b in view.of_node(node.name) if b.cidr.version == family]
            limit = view.config.settings.blocks_per_node
            holding = sum(block.state in HOLDING for block in mine)
            if holding >= limit:
                raise Exhausted(f"node {node.name} has {holding} blocks of IPv{family}, the limit")
            seed = self._random.getrandbits(96) if attempt else pools.start(node.name, len(mine))
            pool, cidr = self._find(view.config, node, family, asked.pool, seed)
            chosen.append(
                Block(
                    cidr=cidr,
                    pool=pool,
                    node=node.name,
                    uid=node.uid,
                    epoch=node.epoch,
                    nonce=asked.nonce,
                )
            )
        return chosen

    def _find(
        self, config: Config, node: Node, family: int, wanted: str, seed: int
    ) -> tuple[str, IPNetwork]:
        """Raises Unknown for a pool that is not there, Exhausted with the reason."""
        if wanted and all(pool.name != wanted for pool in config.pools):
            raise Unknown(f"no pool {wanted}")
        suitable = pools.suitable(config, family, node.labels, wanted)
        for pool in suitable:
            if (cidr := self._replica.view.space(pool.name).pick(seed)) is not None:
                return pool.name, cidr
        if suitable:
            names = ", ".join(f"{pool.name} ({pool.cidr})" for pool in suitable)
            raise Exhausted(f"no free block of IPv{family} for node {node.name} in {names}")
        which = f"pool {wanted} is" if wanted else "no pool is"
        raise Exhausted(
            f"{which}{' not' if wanted else ''} active, of IPv{family} and for the labels of "
            f"node {node.name}"
        )

    async def release(self, asked: Release) -> tuple[IPNetwork, ...]:
        """Take back what the node says is empty; return what is its own no more.

        A repetition, late or not, touches no other grant.  Raises Stale, Frozen.
        """
        replica, view, keys = self._replica, self._replica.view, self._replica.keys

        def decide(attempt: int) -> Change:
            replica.require_thawed()
            node = view.nodes.get(asked.node)
            if node is None or node.uid != asked.uid:
                raise Stale(f"node {asked.node} is not registered with store {asked.uid}")
            if view.meta is None or view.meta.generation != asked.generation:
                raise Stale(f"generation {asked.generation or 'none'} is over: register")
            conditions = [*replica.thawed(), view.unchanged(keys.node(asked.node))]
            puts: list[Put | Delete] = []
            for held in asked.blocks:
                block, key = view.blocks.get(held.cidr), keys.block(held.cidr)
                conditions.append(view.unchanged(key))
                if block and self._is_grant(block, held, node):
                    block = replace(block, state=BlockState.QUARANTINED)
                    puts.append(Put(key, write(block)))
            if puts:
                puts.append(Put(keys.counter, write(Counter())))
            return Change(conditions, puts)

        if len(asked.blocks) > MOST_LISTED:
            raise Invalid(f"{len(asked.blocks)} blocks at once; {MOST_LISTED} at most")
        mine = [keys.block(held.cidr) for held in asked.blocks]
        await replica.transact(
            [keys.meta, keys.frozen, keys.node(asked.node), *dict.fromkeys(mine)], decide
        )
        self._liveness.heard(asked.node)
        return tuple(dict.fromkeys(held.cidr for held in asked.blocks))

    def _is_grant(self, block: Block, held: Held, node: Node) -> bool:
        entry = self._replica.view.entry(self._replica.keys.block(block.cidr))
        return (
            (block.node, block.uid) == (node.name, node.uid)
            and entry is not None
            and entry.create_revision == held.revision
            and block.state is not BlockState.QUARANTINED
        )

    async def mirror(self, asked: Mirror) -> int:
        """Store leases, behind; return up to which sequence they are."""
        self._replica.require_synced()
        sequence = await self._mirrors.put(asked)
        self._liveness.heard(asked.node)
        return sequence

    async def leave(self, asked: Leave) -> None:
        """Take back the sign of life of one run of an agent.  Raises KVError."""
        self._replica.require_synced()
        await self._liveness.leave(asked.node, asked.uid, asked.instance)

    async def watch(self, node: str, *, after: int = 0) -> AsyncGenerator[Update, None]:
        """Stream the table; *node* is taken for alive as long as this is open (aclose it).

        After a revision that this replica does not know all that followed, the whole comes first.
        It ends when claims freeze: the node then registers anew, and tells what it remembers.
        """
        self._replica.require_synced()
        was_frozen = bool(self._replica.frozen)
        with self._liveness.stream(node):
            async with aclosing(self._replica.feed.stream(after)) as updates:
                async for update in updates:
                    yield update
                    frozen = bool(self._replica.frozen)
                    if frozen and not was_frozen:
                        return
                    was_frozen = frozen

    # What goes on by itself.

    async def tick(self) -> None:
        """Do the housekeeping once.  Raises KVError, Refused, StoreUnavailable."""
        replica = self._replica
        await replica.keep_memory()
        replica.require_synced()
        await replica.spread_doubt()
        await self._liveness.renew()
        nodes, fenced = replica.view.nodes, NodeState.FENCED
        gone = [n for n in nodes if nodes[n].state is not fenced and not replica.view.alive(n)]
        unheard = self._unheard.watch(gone, self._clock())
        self._oldest_unheard_s = max(unheard.values(), default=0.0)
        if not replica.frozen:
            await self._reclaim()

    async def _reclaim(self) -> None:
        view, now = self._replica.view, self._clock()
        config = view.config or Config()
        settings = config.settings
        drained = {pool.name for pool in config.pools if pool.state is PoolState.DRAINING}
        silent = self._silent.watch([n for n in view.nodes if not view.alive(n)], now)
        resting = self._resting.watch(
            [self._grant(b) for b in view.blocks.values() if b.state is BlockState.QUARANTINED],
            now,
        )
        steps = []
        for block in view.blocks.values():
            node = view.nodes.get(block.node)
            quiet = 0 < settings.silence_s <= silent.get(block.node, 0.0)
            rested = resting.get(self._grant(block), -1.0) >= settings.quarantine_s
            unwanted = quiet or block.pool in drained
            if step := reclaim.step(block, node, unwanted=unwanted, rested=rested):
                steps.append(step)
        for step in steps[:STEPS_A_TICK]:
            await self._carry_out(step)
        for node in list(view.nodes.values()):
            if reclaim.is_forgettable(node, view.of_node(node.name)):
                await self._forget(node)

    def _grant(self, block: Block) -> str:
        key = self._replica.keys.block(block.cidr)
        return f"{key}@{self._replica.view.unchanged(key).mod_revision}"

    async def _carry_out(self, step: reclaim.Step) -> None:
        """Try it; where something has changed the next tick decides anew."""
        replica, keys = self._replica, self._replica.keys
        view, key = replica.view, keys.block(step.block.cidr)
        if view.blocks.get(step.block.cidr) != step.block or replica.frozen:
            return
        conditions = [view.unchanged(key), view.unchanged(keys.node(step.block.node))]
        change: Put | Delete = Delete(key)
        if step.state is not None:
            change = Put(key, write(replace(step.block, state=step.state)))
        counter = Put(keys.counter, write(Counter()))
        outcome = await replica.commit(Change([*replica.thawed(), *conditions], [change, counter]))
        if not outcome.done:
            await replica.refresh(condition.key for condition in conditions)

    async def _forget(self, node: Node) -> None:
        """Drop the record of a node that was wiped, and holds nothing."""
        replica, key = self._replica, self._replica.keys.node(node.name)
        conditions = [*replica.thawed(), replica.view.unchanged(key)]
        counter = Put(replica.keys.counter, write(Counter()))
        await replica.commit(Change(conditions, [Delete(key), counter]))

    # What can be looked at.

    async def check(self) -> tuple[Finding, ...]:
        """Compare all that is in the store with itself, and with what nodes say they hold.

        What nodes say changes meanwhile: only what is seen twice is told.  Raises KVError,
        Contended.
        """
        answers = await self._auditing.ask()
        all_ = await self._look_at_all()
        found = await asyncio.to_thread(reports.compare, all_, answers)
        if found:
            await asyncio.sleep(AGAIN_S)
            answers = await self._auditing.ask()
            all_ = await self._look_at_all()
            found = reports.both(found, await asyncio.to_thread(reports.compare, all_, answers))
        return audit.check(all_, self._replica.frozen) + found

    async def audited(self, asked: Audit) -> None:
        """Take note of what a node says it holds.  Raises Stale, Invalid."""
        self._replica.require_synced()
        await self._auditing.answer(asked)
        self._liveness.heard(asked.node)

    async def release_mirror(self, node: str, *, mod_revision: int) -> None:
        """Forget the leases that a node told, which will not come back as who it was then.

        Raises Stale where it told something since, Forbidden where they are its own now.
        """
        self._replica.require_thawed()
        await self._mirrors.drop(pools.name(node, "node name"), mod_revision=mod_revision)

    async def show(self, what: str, argument: str = "") -> object:
        """Return what json can write of pools, blocks, nodes, an address or a pod.

        Raises Invalid, KVError.
        """
        return audit.show(await self._look_at_all(), what, argument)

    async def _look_at_all(self) -> audit.Whole:
        replica = self._replica
        behind = await replica.kv.list(replica.keys.root)
        # In a cluster of many pods this takes seconds.
        return await asyncio.to_thread(audit.whole, replica.keys, behind)

    def counts(self) -> Counts:
        """Return what the metrics page shows."""
        replica = self._replica
        view, tally = replica.view, replica.tally
        config = view.config or Config()
        return Counts(
            claims=tally.claims,
            conflicts=tally.conflicts,
            transactions=tally.transactions,
            refused=tally.refused,
            streams=replica.feed.streams,
            nodes=len(view.nodes),
            blocks=len(view.blocks),
            free={pool.name: view.space(pool.name).free for pool in config.pools},
            oldest_unheard_s=self._oldest_unheard_s,
            frozen=bool(replica.frozen),
            synced=replica.synced,
        )


def _alive(asked: Register) -> Alive:
    return Alive(instance=asked.instance, boot_id=asked.boot_id, uid=asked.uid)


def _validate(asked: Register) -> None:
    pools.name(asked.node, "node name")
    for what, text in (("uid", asked.uid), ("boot id", asked.boot_id)):
        if not text:
            raise Invalid(f"a node registers with its {what}; there is none")
    if not 0 <= asked.epoch <= HIGHEST_EPOCH or asked.counter < 0:
        raise Invalid(f"epoch {asked.epoch}, counter {asked.counter}: these cannot be")
    for what, given, most in (
        ("blocks", asked.blocks, MOST_LISTED),
        ("addresses", asked.addresses, MOST_ADDRESSES),
        ("labels", asked.labels, MOST_LABELS),
    ):
        if len(given) > most:
            raise Invalid(f"{len(given)} {what} listed; {most} at most")


def _families(config: Config, asked: Claim) -> list[int]:
    """Of which families to give a block: a named pool is of one, which a node need not know."""
    named = [pool.cidr.version for pool in config.pools if pool.name == asked.pool]
    wanted = [family for family in asked.families if family in named]
    return sorted(set(wanted or asked.families))


def _overlaps(view: View, row: TableRow) -> bool:
    return any(row.cidr.overlaps(cidr) for cidr in view.blocks)
