"""The agent's talk with ipamd: who we are, which blocks are ours, what we hold, who has the rest.

Four conversations go on beside each other, and none is on the path of an ADD or a DEL:

    converse    register; give back what is empty, claim what is wanted      one call after another
    follow      the cluster's table, as a stream; its end means to register anew
    tell        the leases, written behind
    say         what is in our own store, when ipamd asks all nodes
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from math import inf
from typing import Any

from agent.auditing import Auditor
from agent.standing import Standing
from agent.supplies import Supplies
from agent.talk import Pause, Talk, wait
from agent.telling import Teller
from ipam.calls import Update
from ipam.cluster import BlockState
from ipam.errors import IPAMError
from ipam.holdings import OwnState
from ipam.refusals import Stale
from ipam.source import usable

TICK_S = 1.0
TELL_S = 0.2
# One conversation finds out that ipamd is there again, and the others go on then.
PROBE_S = 4.0
SAVE_S = 5.0
# A stream that ended sooner has not shown that ipamd can serve one.
STEADY_S = 10.0

log = logging.getLogger(__name__)


class Cluster:
    """One for the life of an agent; what does not say otherwise is of one event loop.

    `describe`, `problems` and `enforce_now` are not.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._standing = Standing(talk)
        self._supplies = Supplies(talk, self._standing)
        self._teller = Teller(talk)
        self._auditor = Auditor(talk)
        self._work, self._news = asyncio.Event(), asyncio.Event()
        # Set once ipamd answers again, for conversations that pause; another one each time.
        self._again = asyncio.Event()
        self._save_at = 0.0
        # The table's, in which generation of the store.
        self._revision, self._generation = 0, ""

    @property
    def in_sync(self) -> bool:
        """Whether the table was streamed in this life of the agent; from any thread."""
        return self._revision > 0

    @property
    def doubt(self) -> str:
        """Why the table may lack what there is, or ""; from any thread.

        A store that lost its data streams what it has left before it is known to be frozen: so
        until ipamd has answered what it makes of us.
        """
        if not self._standing.is_registered.is_set():
            return "this node is not registered"
        return self._talk.condition.frozen

    def renew(self) -> None:
        """Tell ipamd anew who we are, at once."""
        self._standing.renew()
        self._work.set()
        self._try_again()

    def enforce_now(self) -> None:
        """Drop the traffic of what is lost, before any ADD is served.  Raises DataplaneError."""
        self._standing.enforce_now()

    async def run(self) -> None:
        """Talk until cancelled; whatever ipamd does ends nothing."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if not (self._work.is_set() and self._news.is_set()):
                try:
                    loop.call_soon_threadsafe(self._rouse)
                except RuntimeError:
                    log.debug("nobody to wake: the agent ends")

        self._talk.blocks.wake = wake
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._for_ever(self.converse, PROBE_S))
                tasks.create_task(self._for_ever(self.follow))
                tasks.create_task(self._for_ever(self.tell))
                tasks.create_task(self._for_ever(self.say))
        finally:
            self._talk.blocks.wake = lambda: None
            await self._standing.leave()
            await self._talk.ipamd.close()

    def _rouse(self) -> None:
        self._work.set()
        self._news.set()

    async def _for_ever(
        self,
        conversation: Callable[[Pause], Awaitable[None]],
        longest_s: float = inf,
    ) -> None:
        pause = self._talk.pause(longest_s)
        while True:
            again = self._again
            try:
                await conversation(pause)
                continue
            except IPAMError as exc:
                self.failed(exc)
            except Exception:  # the edge: a bug here must not end the service of others
                log.exception("talk with ipamd failed, will retry")
            if conversation == self.follow:
                again = self._again  # what its own stream brought before it broke is no news
            # The table's stream may bring something often.
            await asyncio.sleep(pause.least())
            await wait(again, pause.longer())

    def _try_again(self) -> None:
        self._again.set()
        self._again = asyncio.Event()

    def failed(self, exc: IPAMError) -> None:
        """Note that a conversation ended so; it is begun again later."""
        blocks = self._talk.blocks
        self._talk.condition.failures += 1
        if isinstance(exc, Stale):
            self._register_anew()
        if str(exc) != blocks.trouble:
            log.warning("ipamd does not serve us, will retry", extra={"error": str(exc)})
        blocks.trouble = str(exc)

    def _register_anew(self) -> None:
        self._standing.is_registered.clear()
        self._work.set()

    async def converse(self, pause: Pause) -> None:
        """Do all there is to do, and wait for more.  Raises IPAMError."""
        await self.converse_once()
        # Only where this is news: a registration may be due to the failure that another pauses
        # for, and says nothing of whether that would work now.
        if pause.is_grown:
            pause.reset()
            self._try_again()
        frozen = self._talk.condition.frozen
        self._talk.blocks.trouble = f"claims are frozen: {frozen}" if frozen else ""
        await wait(self._work, TICK_S)

    async def converse_once(self) -> None:
        self._work.clear()
        await self._standing.keep()
        await self._supplies.provide()
        clock = self._talk.around.clock
        if clock() >= self._save_at:
            self._save_at = clock() + SAVE_S
            self._talk.blocks.save()

    async def follow(self, pause: Pause) -> None:
        """Follow the table until the stream ends.  Raises IPAMError."""
        await self._standing.is_registered.wait()
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            await self._stream()
        finally:
            if clock() - begun >= STEADY_S:
                pause.reset()
            self._talk.condition.connected = False
            self._register_anew()
        await asyncio.sleep(pause.longer())

    async def tell(self, pause: Pause) -> None:
        """Tell what changed, and wait for more.  Raises IPAMError."""
        await self._standing.is_registered.wait()
        self._news.clear()
        await self.tell_once()
        pause.reset()
        if not self._talk.blocks.waiting:
            await wait(self._news, TICK_S)
        await asyncio.sleep(TELL_S)

    async def tell_once(self) -> None:
        await self._teller.tell_once()

    async def say(self, _pause: Pause) -> None:
        """Answer the next audit."""
        await self._auditor.answer_once()

    async def _stream(self) -> None:
        frozen = bool(self._talk.condition.frozen)
        streamed = self._talk.ipamd.watch(after=self._known(), frozen=frozen)
        async with aclosing(streamed) as updates:
            async for update in updates:
                self._talk.condition.connected = True
                self._try_again()  # whatever it says: ipamd follows the store
                self._talk.blocks.streamed(update)
                self._revision = update.revision
                self._generation = self._talk.blocks.holdings.generation
                if update.audit:
                    self._auditor.called(update.audit)
                if update.with_pools:  # rare, and what is inside has to outlive us
                    self._save_at = 0.0
                    self._supplies.ask_again()
                    self._work.set()
                if self._concerns_us(update):
                    self._register_anew()

    def _known(self) -> int:
        """The revision after which nothing is known; 0: of a store that went back, none is."""
        is_same = self._generation == self._talk.blocks.holdings.generation
        return self._revision if is_same and not self._talk.condition.frozen else 0

    def _concerns_us(self, update: Update) -> bool:
        """Whether the table and we differ on what is ours: then ipamd is asked."""
        held = {
            block.cidr: block.state
            for block in self._talk.blocks.holdings.of_state(OwnState.ACTIVE, OwnState.DRAINING)
        }
        missing = update.whole and not held.keys() <= {row.cidr for row in update.rows}
        return (
            missing
            or not held.keys().isdisjoint(update.gone)
            # Pinned to us: it is ours once we register.
            or any(not row.epoch and row.node == self._talk.who.node for row in update.rows)
            or any(
                row.cidr in held
                and (
                    row.node != self._talk.who.node
                    or (row.state is BlockState.ACTIVE) != (held[row.cidr] is OwnState.ACTIVE)
                )
                for row in update.rows
            )
        )

    def describe(self) -> dict[str, Any]:
        """The talk and the blocks as an operator sees them; from any thread."""
        own, condition = self._talk.blocks.holdings, self._talk.condition
        used = self._talk.used(own.blocks)
        return {
            "node": self._talk.who.node,
            "uid": own.uid,
            "epoch": own.epoch,
            "confirmed": own.confirmed_boot == self._talk.blocks.boot_id,
            "generation": own.generation,
            "connected": condition.connected,
            "trouble": self._talk.blocks.trouble,
            "outlook": dict(self._talk.blocks.outlook()),
            "frozen": condition.frozen,
            "registrations": condition.registrations,
            "claims": condition.claims,
            "refusals": condition.refusals,
            "failures": condition.failures,
            "node_state": condition.node_state.value,
            "blocks": [
                {
                    "cidr": str(block.cidr),
                    "pool": block.pool,
                    "state": block.state.value,
                    "used": count,
                    "size": usable(block),
                }
                for block, count in used.items()
            ],
            "pools": {pool.name: str(pool.cidr) for pool in self._talk.blocks.pools},
            "mirror_waiting": self._talk.blocks.waiting,
            "mirror_lag_s": self._talk.blocks.lag_s(),
            "table": len(self._talk.blocks.table),
        }

    def problems(self) -> list[str]:
        """What is wrong with our blocks, a line each; from any thread."""
        return self._talk.blocks.problems()
