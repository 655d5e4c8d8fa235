"""Blocks given to nodes, and taken back at their own word: one guarded transaction each."""

from dataclasses import replace
from random import Random

from ipam import pools
from ipam.calls import Claim, Claimed, Held, Release
from ipam.cluster import Block, BlockState, Config, Node, NodeState
from ipam.keys import Counter, write
from ipam.kv import Delete, Put
from ipam.liveness import Liveness
from ipam.refusals import Exhausted, Forbidden, Invalid, Stale, Unknown
from ipam.replica import Change, Replica
from ipam.view import HOLDING
from net.address import IPNetwork

# etcd takes 128 comparisons in one transaction.
MOST_LISTED = 110


class Claiming:
    """Every method raises a Refused or a KVError, nothing else."""

    def __init__(self, replica: Replica, liveness: Liveness, random: Random) -> None:
        self._replica = replica
        self._liveness = liveness
        self._random = random

    async def claim(self, asked: Claim) -> Claimed:
        """Give one block for each family, one that waits for the node first, in one transaction.

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
                *(view.unchanged(keys.block(block.cidr)) for block in chosen),
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
            if waiting := [
                b for b in mine if b.is_pinned and b.pool and asked.pool in ("", b.pool)
            ]:
                own = replace(waiting[0], uid=node.uid, epoch=node.epoch, nonce=asked.nonce)
                chosen.append(own)
                continue
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


def _families(config: Config, asked: Claim) -> list[int]:
    """Of which families to give a block: a named pool is of one, which a node need not know."""
    named = [pool.cidr.version for pool in config.pools if pool.name == asked.pool]
    wanted = [family for family in asked.families if family in named]
    return sorted(set(wanted or asked.families))
