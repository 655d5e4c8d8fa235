"""Carries out what ipam.reclaim decides, by this replica's own clock."""

from collections.abc import Callable
from dataclasses import replace

from ipam import reclaim
from ipam.cluster import Block, BlockState, Config, Node, PoolState
from ipam.keys import Counter, write
from ipam.kv import Delete, Put
from ipam.reclaim import Step
from ipam.replica import Change, Replica

STEPS_A_TICK = 200


class Reclaiming:
    """*clock*: monotonic seconds."""

    def __init__(self, replica: Replica, clock: Callable[[], float]) -> None:
        self._replica = replica
        self._clock = clock
        self._silent = reclaim.Patience()
        self._resting = reclaim.Patience()

    async def carry_on(self) -> None:
        """Take each step that is due now.  Raises KVError."""
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

    async def _carry_out(self, step: Step) -> None:
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
