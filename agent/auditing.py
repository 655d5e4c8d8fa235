"""What is in this node's own store, told when ipamd asks all nodes for it."""

import asyncio
import logging
from collections.abc import Iterable

from agent.talk import Talk
from ipam.calls import Audit
from ipam.errors import IPAMError
from ipam.leases import Record

SPREAD_S = 1.0

log = logging.getLogger(__name__)


class Auditor:
    """Answers the latest audit; one that is over by then is nobody's trouble."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._call = ""
        self._called = asyncio.Event()

    def called(self, call: str) -> None:
        self._call = call
        self._called.set()

    async def answer_once(self) -> None:
        """Wait for a call, and answer it: not at the same moment as all other nodes."""
        await self._called.wait()
        self._called.clear()
        await asyncio.sleep(SPREAD_S * self._talk.around.random.random())
        try:
            await self._talk.ipamd.audit(self._answer(self._call))
        except IPAMError as exc:
            log.info("audit not answered", extra={"audit": self._call, "error": str(exc)})

    def _answer(self, call: str) -> Audit:
        blocks, records = self._talk.blocks, self._talk.leases.records()
        leases = (self._talk.told_of(record) for record in records)
        return Audit(
            audit=call,
            blocks=blocks.holdings.told(),
            leases=tuple(lease for lease in leases if lease is not None),
            problems=tuple(blocks.problems()) + self._strays(records),
            **self._talk.me(),
        )

    def _strays(self, records: Iterable[Record]) -> tuple[str, ...]:
        """Name who has an address of a pool that no block of ours has: it was never lost."""
        pools = [pool.cidr for pool in self._talk.blocks.pools]
        ours = [block.cidr for block in self._talk.blocks.holdings.blocks]
        return tuple(
            f"{record.who} has {one.ip}, of a pool and of no block of this node"
            for record in records
            for one in record.addresses
            if any(one.ip in pool for pool in pools) and not any(one.ip in cidr for cidr in ours)
        )
