"""Who this node is to ipamd, and which blocks that leaves it.

What ipamd says is durable before it is used, but for what it takes: that holds at once, and the
barrier is up before anything else is asked.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network

from agent.talk import Talk, done
from dataplane.errors import DataplaneError
from ipam.calls import Leave, Register, Registered
from ipam.cluster import Config, NodeState, Pool
from ipam.errors import IPAMError, NotServed
from ipam.holdings import Holdings, OwnBlock, OwnState, registered
from ipam.pools import suitable
from net.address import IPNetwork

RENEW_S = 120.0
UNSETTLED_S = 5.0
ENFORCE_S = 10.0

log = logging.getLogger(__name__)


class Standing:
    """Registers; `renew` makes it do so again, at the next `keep`."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.is_registered = asyncio.Event()
        self._renew_at = 0.0
        self._table_at = 0.0
        self._enforced: frozenset[IPNetwork] | None = None
        self._enforced_at = 0.0

    def renew(self) -> None:
        self._renew_at = 0.0

    async def keep(self) -> None:
        """Register if it is time to, and look after the barrier.  Raises IPAMError."""
        blocks = self._talk.blocks
        if blocks.lost() and self._talk.around.clock() >= self._enforced_at + ENFORCE_S:
            self._enforced = None  # somebody may have flushed the ruleset
        await self.enforce()
        self._require_barrier()
        if not blocks.is_durable:
            await done(blocks.begin())
        if not self.is_registered.is_set() or self._talk.around.clock() >= self._renew_at:
            before = blocks.holdings.epoch
            await self.register()
            is_fenced = self._talk.condition.node_state is NodeState.FENCED
            if is_fenced and blocks.holdings.epoch != before:
                # That is over once ipamd hears that our own store has the new epoch.
                self._require_barrier()
                await self.register()

    def _require_barrier(self) -> None:
        """Raises NotServed: that we register would say that nothing more comes of what is lost."""
        blocks = self._talk.blocks
        if self._enforced != _cidrs(blocks.lost()) and blocks.cut_off():
            raise NotServed("traffic of lost blocks is not dropped yet")

    async def register(self) -> None:
        """Tell ipamd who we are, and take its word on what is ours.  Raises IPAMError."""
        own = self._talk.blocks.holdings
        asked = Register(
            node=self._talk.who.node,
            uid=own.uid,
            boot_id=self._talk.blocks.boot_id,
            instance=self._talk.who.instance,
            epoch=own.epoch,
            generation=own.generation,
            counter=own.counter,
            addresses=await asyncio.to_thread(self._talk.who.addresses),
            labels=self._talk.who.labels(),
            blocks=own.told(),
        )
        reply = await self._talk.ipamd.register(asked)
        if reply.frozen and self._has_to_tell_table(reply):
            # The store may have forgotten others, too: we remember what we were streamed.
            table = self._talk.blocks.remembered
            reply = await self._talk.ipamd.register(replace(asked, table=table))
            self._table_at = self._talk.around.clock() + RENEW_S
        new = registered(own, reply, self._talk.blocks.boot_id)
        if not reply.frozen:
            new = replace(new, blocks=(*new.blocks, *self._strays(new, reply.pools)))
        await self._take(new)
        self._note(reply)
        self.is_registered.set()

    def _has_to_tell_table(self, reply: Registered) -> bool:
        """Not each few seconds: all nodes of a large cluster have all of it."""
        is_new = reply.frozen != self._talk.condition.frozen
        is_due = is_new or self._talk.around.clock() >= self._table_at
        return is_due and bool(self._talk.blocks.remembered)

    def _note(self, reply: Registered) -> None:
        condition = self._talk.condition
        condition.registrations += 1
        if reply.frozen and reply.frozen != condition.frozen:
            log.error("claims are frozen", extra={"why": reply.frozen})
        if not reply.frozen:
            self._talk.blocks.trust_table()
        condition.frozen, condition.node_state = reply.frozen, reply.node_state
        config, labels = Config(pools=reply.pools), self._talk.who.labels()
        self._talk.blocks.families = frozenset(
            family for family in (4, 6) if suitable(config, family, labels)
        )
        # Nothing else tells that a drain is undone: the table does not change by it.
        is_settled = not reply.frozen and reply.node_state is NodeState.ACTIVE
        wait_s = RENEW_S if is_settled else UNSETTLED_S
        self._renew_at = self._talk.around.clock() + wait_s * (
            0.75 + 0.5 * self._talk.around.random.random()
        )

    async def _take(self, new: Holdings) -> None:
        """Make *new* ours; what it takes from us is gone first, and its traffic dropped."""
        before = self._talk.blocks.holdings
        known = _cidrs(before.of_state(OwnState.LOST))
        if gone := {b.cidr: b for b in new.of_state(OwnState.LOST) if b.cidr not in known}:
            await self._lose(before, gone)
        if new != self._talk.blocks.holdings or not self._talk.blocks.is_durable:
            await done(self._talk.blocks.adopt(new))
        await self.enforce()

    def _strays(self, own: Holdings, pools: Collection[Pool]) -> Collection[OwnBlock]:
        """Blocks that attachments of ours have addresses of, and we know nothing about.

        So it is after our store was lost: they were the former store's.  What another plugin
        gave is no block's of ours.
        """
        records = (r for r in self._talk.leases.records() if not self._talk.blocks.is_former(r))
        held = (lease.ip for record in records for lease in record.addresses)
        found: dict[IPNetwork, OwnBlock] = {}
        for ip in held:
            if any(ip in block.cidr for block in own.blocks):
                continue
            for pool in pools:
                if ip in pool.cidr:
                    cidr = ip_network((ip, pool.block_length), strict=False)
                    found[cidr] = OwnBlock(
                        cidr=cidr,
                        pool=pool.name,
                        epoch=own.epoch,
                        revision=0,
                        state=OwnState.LOST,
                    )
        return found.values()

    async def _lose(self, own: Holdings, gone: Mapping[IPNetwork, OwnBlock]) -> None:
        kept = (block for block in own.blocks if block.cidr not in gone)
        lost = replace(own, blocks=(*kept, *gone.values()))
        stored = self._talk.blocks.adopt(lost, at_once=True)
        await self.enforce()
        for cidr in gone:
            log.error("block lost: it is no longer this node's", extra={"block": str(cidr)})
        for record, block in self._talk.blocks.cut_off():
            if block.cidr in gone:
                log.error(
                    "attachment has an address of a lost block: its traffic is dropped",
                    extra={"attachment": str(record.who), "block": str(block.cidr)},
                )
        await done(stored)

    async def leave(self) -> None:
        """Say that this agent ends, if ipamd hears it: else its sign of life runs out by itself."""
        own, who = self._talk.blocks.holdings, self._talk.who
        if self._talk.condition.registrations:
            with suppress(IPAMError):
                leave = Leave(node=who.node, uid=own.uid, instance=who.instance)
                await self._talk.ipamd.leave(leave)

    def enforce_now(self) -> None:
        """Bring the barrier in line with what is lost.  Raises DataplaneError."""
        lost = _cidrs(self._talk.blocks.lost())
        self._enforced = None
        self._talk.around.enforce(lost)
        self._enforced, self._enforced_at = lost, self._talk.around.clock()

    async def enforce(self) -> None:
        if _cidrs(self._talk.blocks.lost()) == self._enforced:
            return
        try:
            await asyncio.to_thread(self.enforce_now)
        except DataplaneError as exc:  # tried again each second
            log.error("traffic of lost blocks is not dropped yet", extra={"error": str(exc)})


def _cidrs(blocks: Iterable[OwnBlock]) -> frozenset[IPNetwork]:
    return frozenset(block.cidr for block in blocks)
