"""The calls of ipamd, over a store: see docs/design/0005.

Any number of these run at once, each on its own view of one store; whatever they decide is
decided again by the comparisons of one transaction.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from random import Random

from ipam import audit, pools, reclaim, registration, reports
from ipam.administration import Administration
from ipam.assigning import Assigning
from ipam.auditing import Auditing
from ipam.calls import (
    Audit,
    Claim,
    Claimed,
    Finding,
    Leave,
    Mirror,
    Register,
    Registered,
    Release,
    Update,
)
from ipam.claiming import MOST_LISTED, Claiming
from ipam.cluster import Config, Meta, Node, NodeState, Purpose
from ipam.errors import StoreUnavailable
from ipam.keys import Alive, Counter, Freeze, Keys, write
from ipam.kv import KV, Delete, KVError, LeaseGone, Put
from ipam.liveness import Liveness
from ipam.memory import DaemonMemory
from ipam.mirror import Mirrors
from ipam.reclaiming import Reclaiming
from ipam.recollection import Recollection
from ipam.refusals import Invalid, NotReady, Refused, SecondBoot
from ipam.replica import Change, Replica
from net.address import IPNetwork

TICK_S = 2.0
# In which a lease is mirrored, and a claim comes to its node.
AGAIN_S = 2.0
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
    second_boots: int
    streams: int
    nodes: int
    blocks: int
    free: Mapping[str, int]
    oldest_unheard_s: float
    frozen: bool
    forgetful: bool
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
        self._claiming = Claiming(replica, self._liveness, random)
        self.assigning = Assigning(replica, random)
        self._mirrors = Mirrors(replica)
        self._recollection = Recollection(replica)
        self._auditing = Auditing(replica, random)
        self._reclaiming = Reclaiming(replica, clock)
        self._unheard = reclaim.Patience()
        self._oldest_unheard_s = 0.0
        # By node, the last that was refused as one: store and boot.
        self._second_boots: dict[str, tuple[str, str]] = {}

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
        trouble = ""
        while True:
            await asyncio.sleep(TICK_S * (0.75 + 0.5 * self._random.random()))
            try:
                await self.tick()
                trouble = ""
            except (KVError, Refused, StoreUnavailable) as exc:
                if str(exc) != trouble:
                    log.warning("housekeeping waits: %s", exc)
                trouble = str(exc)

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
            except SecondBoot as exc:
                self._report(asked, exc)
                raise
        raise NotReady("liveness is being set up anew; try again")

    def _report(self, asked: Register, refusal: SecondBoot) -> None:
        """Log each second boot of a node once: it asks again and again."""
        self._replica.tally.second_boots += 1
        which = (asked.uid, asked.boot_id)
        if self._second_boots.get(asked.node) != which:
            log.warning("refused: %s", refusal)
        self._second_boots[asked.node] = which

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
            # A store that went back is found by all nodes: one of them froze claims.
            froze_them = plan.freeze == replica.view.frozen
            log.log(
                logging.ERROR if froze_them else logging.INFO, "claims are frozen: %s", plan.freeze
            )
        else:
            replica.has_spoken(asked.node)
        if replica.frozen:
            await self._recollection.put_back(asked.node, asked.table)
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
            pools=(view.config or Config()).pools_for(Purpose.PODS),
        )

    async def claim(self, asked: Claim) -> Claimed:
        """Give one block for each family.

        Raises Invalid, Frozen, Stale, Forbidden, Exhausted, Unknown, Contended.
        """
        return await self._claiming.claim(asked)

    async def release(self, asked: Release) -> tuple[IPNetwork, ...]:
        """Take back what the node says is empty; return what is its own no more.

        Raises Invalid, Stale, Frozen.
        """
        return await self._claiming.release(asked)

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

    async def watch(
        self, node: str, *, after: int = 0, frozen: bool = False
    ) -> AsyncGenerator[Update, None]:
        """Stream the table; *node* is taken for alive as long as this is open (aclose it).

        After a revision that this replica does not know all that followed, the whole comes first.
        It ends when claims freeze, and where they are and the node was not told so (*frozen*),
        before it brings what the store has left: the node registers anew then, and tells what it
        remembers.
        """
        self._replica.require_synced()
        freezes = self._replica.freezes
        with self._liveness.stream(node):
            async with aclosing(self._replica.feed.stream(after)) as updates:
                async for update in updates:
                    is_news = bool(self._replica.frozen) and not frozen
                    if is_news or self._replica.freezes != freezes:
                        return
                    yield update

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
            await self._reclaiming.carry_on()

    # What can be looked at.

    async def check(self) -> tuple[Finding, ...]:
        """Compare all that is in the store with itself, and with what nodes say they hold.

        What nodes say changes meanwhile: only what is seen twice is told.  Raises KVError,
        Contended.
        """
        answers = await self._auditing.ask()
        all_ = await self._look_below(self._replica.keys.root)
        found = await asyncio.to_thread(reports.compare, all_, answers)
        if found:
            await asyncio.sleep(AGAIN_S)
            answers = await self._auditing.ask()
            all_ = await self._look_below(self._replica.keys.root)
            found = reports.both(found, await asyncio.to_thread(reports.compare, all_, answers))
        with suppress(StoreUnavailable):  # it is told as a finding
            await self._replica.keep_memory(even_if_kept=True)
        return audit.check(all_, self._replica.frozen, self._replica.forgetful) + found

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
        keys = self._replica.keys
        of_all = await self._look_below(keys.root if what in audit.OF_LEASES else keys.state)
        return audit.show(of_all, what, argument)

    async def _look_below(self, prefix: str) -> audit.Whole:
        replica = self._replica
        behind = await replica.kv.list(prefix)
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
            second_boots=tally.second_boots,
            streams=replica.feed.streams,
            nodes=len(view.nodes),
            blocks=len(view.blocks),
            free={pool.name: view.space(pool.name).free for pool in config.pools},
            oldest_unheard_s=self._oldest_unheard_s,
            frozen=bool(replica.frozen),
            forgetful=bool(replica.forgetful),
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
    for address in asked.addresses:
        if address.is_unspecified or address.is_multicast:
            raise Invalid(f"{address} is no node's: others reach a node by its addresses")
