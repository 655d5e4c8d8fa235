"""What operators ask of ipamd: the generation, pools and settings, drains, forced releases."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any

from ipam import pools
from ipam.calls import Drain, Drained, Init, Initialized, Pin
from ipam.cluster import Block, BlockState, Config, Meta, Node, NodeState, Pool, Purpose
from ipam.keys import Counter, alone, write
from ipam.kv import Ambiguous, Delete, Put
from ipam.liveness import Liveness
from ipam.reclaim import is_fenced
from ipam.refusals import (
    AlreadyThere,
    Contended,
    Forbidden,
    Frozen,
    Invalid,
    Stale,
    Unknown,
)
from ipam.replica import TRIES, Change, Replica
from net.address import IPNetwork


class Administration:
    """Every method raises a Refused or a KVError, nothing else."""

    def __init__(self, replica: Replica, liveness: Liveness, random: Random) -> None:
        self._replica = replica
        self._liveness = liveness
        self._random = random

    async def init(self, asked: Init) -> Initialized:
        """Make the generation; or, to recover, a new one, which ends a freeze.

        Raises AlreadyThere.
        """
        self._replica.require_synced()
        view, keys = self._replica.view, self._replica.keys
        fresh = f"{self._random.getrandbits(128):032x}"
        made = True

        def decide(attempt: int) -> Change:
            nonlocal made
            meta = view.meta
            if attempt and meta and meta.generation == fresh:
                return Change([view.unchanged(keys.meta)])
            if asked.recover:
                return self._recovery(fresh)
            made = meta is None and view.entry(keys.meta) is None
            known = self._replica.generations | {self._replica.remembered_generation} - {""}
            if made and known:
                raise Forbidden(
                    f"the store is empty, and was not: generation {', '.join(sorted(known))} is "
                    "remembered; to go on with it as it is: --recover"
                )
            if not made and not asked.if_new:
                raise AlreadyThere("the generation is there; to end a freeze: --recover")
            new = Meta(generation=fresh)
            puts = [Put(keys.meta, write(new))] if made else []
            return Change([view.unchanged(keys.meta)], puts)

        await self._replica.transact([keys.meta, keys.frozen], decide)
        if made:
            await self._replica.trust()
        return Initialized(generation=view.meta.generation if view.meta else fresh, made=made)

    def _recovery(self, fresh: str) -> Change:
        view, keys = self._replica.view, self._replica.keys
        known = [self._replica.remembered_generation, *sorted(self._replica.generations)]
        if view.meta:
            known += [view.meta.generation, *view.meta.previous]
        meta = Meta(generation=fresh, previous=tuple(dict.fromkeys(one for one in known if one)))
        conditions = [view.unchanged(keys.meta), view.unchanged(keys.frozen)]
        return Change(conditions, [Put(keys.meta, write(meta)), Delete(keys.frozen)])

    async def put_pool(self, pool: Pool, *, create: bool = False) -> None:
        """Raises Invalid, AlreadyThere, Forbidden where blocks in use would lose their pool."""

        def change(config: Config) -> tuple[Config, Pool | None, Pool | None]:
            old = next((one for one in config.pools if one.name == pool.name), None)
            if old and create:
                raise AlreadyThere(f"pool {pool.name} is there already ({old.cidr})")
            others = tuple(one for one in config.pools if one.name != pool.name)
            return replace(config, pools=(*others, pool)), old, pool

        await self._configure(change)

    async def change_pool(self, name: str, /, **changes: Any) -> None:
        """Change these fields and no others, whoever else changes what.

        Raises Invalid, Unknown, Forbidden where what is in use would lose its pool.
        """
        if not changes or {"name", "purpose"} & changes.keys():
            raise Invalid(
                "say which fields change; name and purpose are for ever: make another pool"
            )

        def change(config: Config) -> tuple[Config, Pool | None, Pool | None]:
            old = _pool(config, name)
            new = replace(old, **changes)
            kept = tuple(new if one is old else one for one in config.pools)
            return replace(config, pools=kept), old, new

        await self._configure(change)

    async def delete_pool(self, name: str) -> None:
        """Raises Unknown, Forbidden where it has blocks in use."""

        def change(config: Config) -> tuple[Config, Pool | None, Pool | None]:
            old = _pool(config, name)
            kept = tuple(one for one in config.pools if one is not old)
            return replace(config, pools=kept), old, None

        await self._configure(change)

    async def change_settings(self, **changes: Any) -> None:
        """Change these and no others.  Raises Invalid."""
        await self._configure(
            lambda config: (
                replace(config, settings=replace(config.settings, **changes)),
                None,
                None,
            )
        )

    async def _configure(
        self, change: Callable[[Config], tuple[Config, Pool | None, Pool | None]]
    ) -> None:
        """Make of the configuration what *change* does: the new one, and which pool became what."""
        self._replica.require_synced()
        keys, wanted = self._replica.keys, Config()
        for attempt in range(TRIES):
            # The check is of all blocks, and must not be older than the comparison.
            view = await self._replica.look()
            if view.config is None:
                raise Forbidden(f"{keys.config} cannot be read, so it was edited by hand: mend it")
            if attempt and view.config == wanted:
                return
            wanted, old, new = change(view.config)
            pools.validate(wanted)
            if new and not (old and new.cidr == old.cidr):
                _spare_nodes(old, new, view.nodes.values())
            conditions = [view.unchanged(keys.meta), view.unchanged(keys.config)]
            if old and not pools.only_adds(old, new):
                pools.check_change(old, new, (*view.blocks, *map(alone, view.addresses)))
                # Whatever gives a block or an address also puts the counter.
                conditions.append(view.unchanged(keys.counter))
            with contextlib.suppress(Ambiguous):
                put = Put(keys.config, write(wanted))
                if (await self._replica.commit(Change(conditions, [put]))).done:
                    return
        raise Contended("the configuration or the blocks changed each time; try again")

    async def drain(self, asked: Drain) -> Drained:
        """Raises Unknown, Forbidden where the node is seen alive, or its state may serve again."""
        self._replica.require_synced()
        view, keys = self._replica.view, self._replica.keys
        looked_at = [keys.node(asked.node), keys.alive(asked.node), keys.meta, keys.frozen]
        result: Node | None = None

        def decide(attempt: int) -> Change:
            nonlocal result
            old = view.nodes.get(asked.node)
            if attempt and result is not None and old == result:
                return Change([view.unchanged(keys.node(asked.node))])
            result = self._drained(old, asked)
            conditions = [
                view.unchanged(keys.node(asked.node)),
                view.unchanged(keys.alive(asked.node)),
                view.unchanged(keys.meta),
            ]
            if result == old:
                return Change(conditions)
            puts = [Put(keys.node(asked.node), write(result))]
            if asked.fenced:
                puts.append(Put(keys.counter, write(Counter())))
            return Change(conditions, puts)

        await self._replica.transact(looked_at, decide)
        blocks = tuple(block.cidr for block in view.of_node(asked.node))
        return Drained(state=result.state if result else NodeState.DRAINING, blocks=blocks)

    def _drained(self, node: Node | None, asked: Drain) -> Node:
        if asked.fenced:
            return self._fenced(node, asked)
        if node is None:
            raise Unknown(f"no node {asked.node}")
        if node.state is NodeState.FENCED:
            raise Forbidden(
                f"node {asked.node} is fenced ({node.fenced_by}); it is active again once it "
                "registers"
            )
        if asked.undo:
            return replace(node, state=NodeState.ACTIVE, drained_by="")
        by = node.drained_by if node.state is NodeState.DRAINING else asked.by
        return replace(node, state=NodeState.DRAINING, drained_by=by)

    def _fenced(self, node: Node | None, asked: Drain) -> Node:
        view = self._replica.view
        if self._replica.frozen:
            raise Frozen(f"nothing can be fenced now: {self._replica.frozen}")
        if asked.undo:
            raise Forbidden("a fence is not undone; the node is active again once it registers")
        if view.alive(asked.node) and not asked.force:
            raise Forbidden(
                f"node {asked.node} is seen alive; switch it off or cut it off first, or --force"
            )
        blocks = [block for block in view.of_node(asked.node) if not block.is_pinned]
        if node is None:
            if not blocks:
                raise Unknown(f"no node {asked.node}")
            node = Node(
                name=asked.node,
                uid=blocks[0].uid,
                epoch=max(block.epoch for block in blocks),
                boot_id="",
            )
        may_serve = node.unconfirmed or (view.config or Config()).settings.unconfirmed_boots
        if may_serve and not asked.wiped:
            raise Forbidden(
                f"node {asked.node} may serve after a boot that nobody confirmed; say --wiped "
                "if its state is gone"
            )
        # Who has taken blocks up in this epoch, and not come again, is fenced anew.
        taken_up = any(block.epoch >= node.epoch for block in blocks)
        if node.state is NodeState.FENCED and not taken_up:
            return replace(node, wiped=node.wiped or asked.wiped)
        epoch = node.epoch + 1
        state = NodeState.FENCED
        return replace(node, state=state, epoch=epoch, fenced_by=asked.by, wiped=asked.wiped)

    async def pin(self, asked: Pin) -> None:
        """Keep a block for one node: it has it once it registers, registers again, or claims.

        Raises Invalid, Forbidden where another has it, Frozen.
        """
        pools.name(asked.node, "node name")
        view, keys = self._replica.view, self._replica.keys
        key, node_key = keys.block(asked.cidr), keys.node(asked.node)

        def decide(attempt: int) -> Change:
            self._replica.require_thawed()
            block, change = view.blocks.get(asked.cidr), self._pin(asked)
            conditions = [view.unchanged(one) for one in (key, node_key, keys.config)]
            if change is None or (change == block and not asked.undo):
                return Change(conditions)
            put = Delete(key) if asked.undo else Put(key, write(change))
            counter = Put(keys.counter, write(Counter()))
            return Change([*conditions, *self._replica.thawed()], [put, counter])

        await self._replica.transact([key, node_key, keys.config, keys.meta, keys.frozen], decide)

    def _pin(self, asked: Pin) -> Block | None:
        """Return the block as it shall be, or the one that shall go; None: there is none."""
        view = self._replica.view
        block, node = view.blocks.get(asked.cidr), view.nodes.get(asked.node)
        if block and (block.node != asked.node or (asked.undo and not block.is_pinned)):
            how = "pinned" if block.is_pinned else block.state
            raise Forbidden(f"block {asked.cidr} is {block.node}'s ({how})")
        if asked.undo or (block and not block.is_pinned):
            return block
        if view.config is None:
            raise Forbidden(f"{self._replica.keys.config} cannot be read: mend it")
        if node and node.state is not NodeState.ACTIVE:
            raise Forbidden(f"node {asked.node} is {node.state}: it gets no blocks")
        pool = pools.of_block(view.config, asked.cidr, asked.pool)
        if any(asked.cidr.overlaps(cidr) for cidr in view.blocks if cidr != asked.cidr):
            raise Forbidden(f"{asked.cidr} overlaps a block that is there")
        return Block(cidr=asked.cidr, pool=pool, node=asked.node, uid="", epoch=0, nonce="")

    async def release_block(self, cidr: IPNetwork, *, mod_revision: int) -> None:
        """Free a block whose owner has handed it back or is fenced, without the wait.

        Raises Unknown, Stale, Forbidden, Frozen.
        """
        self._replica.require_thawed()
        view, keys = self._replica.view, self._replica.keys
        key, sent = keys.block(cidr), False

        def decide(attempt: int) -> Change:
            nonlocal sent
            block, entry = view.blocks.get(cidr), view.entry(key)
            if sent and entry is None:
                return Change([view.unchanged(key)])
            if block is None or entry is None:
                raise Unknown(f"no block {cidr}")
            if entry.mod_revision != mod_revision:
                raise Stale(
                    f"block {cidr} is at revision {entry.mod_revision}, not {mod_revision}: "
                    "look again"
                )
            if block.is_pinned:
                raise Forbidden(
                    f"block {cidr} waits for {block.node}: isthmus ipam pin {block.node} {cidr} "
                    "--undo"
                )
            node = view.nodes.get(block.node)
            if block.state is not BlockState.QUARANTINED and not is_fenced(block, node):
                raise Forbidden(
                    f"block {cidr} is {block.node}'s, which is not fenced; if that machine is "
                    f"off: isthmus ipam drain {block.node} --fenced"
                )
            conditions = [view.unchanged(key), view.unchanged(keys.node(block.node))]
            counter = Put(keys.counter, write(Counter()))
            sent = True
            return Change([*conditions, *self._replica.thawed()], [Delete(key), counter])

        block = view.blocks.get(cidr)
        node_keys = [keys.node(block.node)] if block else []
        await self._replica.transact([key, keys.meta, keys.frozen, *node_keys], decide)


def _spare_nodes(old: Pool | None, pool: Pool, nodes: Iterable[Node]) -> None:
    """Raises Invalid where Services, or pods, would get the address of a node.

    For pods reserving it does not do: packets to all of its block would go to another node.
    """
    is_for_pods = pool.purpose is Purpose.PODS
    if is_for_pods and old and old.cidr == pool.cidr:
        return  # as one that drains
    mend = "choose others for pods" if is_for_pods else "reserve it"
    spared = () if is_for_pods else pool.reservations
    for node in nodes:
        for address in node.addresses:
            if address in pool.cidr and not any(address in one for one in spared):
                raise Invalid(
                    f"pool {pool.name}: {address} is an address of node {node.name}; {mend}"
                )


def _pool(config: Config, name: str) -> Pool:
    """Raises Unknown."""
    for pool in config.pools:
        if pool.name == name:
            return pool
    names = ", ".join(one.name for one in config.pools) or "none"
    raise Unknown(f"no pool {name}; there are: {names}")
