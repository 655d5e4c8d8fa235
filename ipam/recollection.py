"""Rows of others that nodes remember, put back while claims are frozen, where nothing stands.

A store that went back may have lost blocks of nodes that are away, and cannot say so themselves.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ipam import pools
from ipam.calls import TableRow
from ipam.cluster import Block
from ipam.keys import Counter, write
from ipam.kv import Ambiguous, Put, Unchanged
from ipam.replica import Change, Replica
from net.address import IPNetwork

# Of etcd's 128 comparisons in one transaction, one is of the freeze.
AT_ONCE = 100
# Other replicas put back the same rows.
TRIES = 3

log = logging.getLogger(__name__)


class Recollection:
    """Whose the rows are takes them up when it registers, or hands them back."""

    def __init__(self, replica: Replica, *, at_once: int = AT_ONCE) -> None:
        self._replica = replica
        self._at_once = at_once
        self._turn = asyncio.Lock()

    async def put_back(self, node: str, table: Sequence[TableRow]) -> None:
        """Write what *node* remembers, and nobody else has written.  Raises KVError."""
        async with self._turn:  # each node has all rows: who comes next finds most of them there
            replica, frozen = self._replica, self._replica.keys.frozen
            await replica.refresh([frozen])
            still_frozen = replica.view.unchanged(frozen)
            rows = [row for row in table if row.cidr not in replica.view.blocks]
            while rows and still_frozen.mod_revision:
                part, rows = rows[: self._at_once], rows[self._at_once :]
                if not await self._put(node, part, still_frozen):
                    return

    async def _put(self, node: str, part: Sequence[TableRow], still_frozen: Unchanged) -> bool:
        """Tell whether claims still wait for an operator."""
        replica, keys = self._replica, self._replica.keys
        for _ in range(TRIES):
            missing = self._missing(node, part)
            if not missing:
                return True
            puts = [Put(keys.block(row.cidr), write(_block(row))) for row in missing]
            conditions = [Unchanged(put.key, 0) for put in puts]
            counter = Put(keys.counter, write(Counter()))
            change = Change([*conditions, still_frozen], [*puts, counter])
            with suppress(Ambiguous):
                if (await replica.commit(change)).done:
                    return True
            await replica.refresh([keys.frozen, *(put.key for put in puts)])
            if replica.view.unchanged(keys.frozen) != still_frozen:
                return False
        log.warning("%d rows of %s are not put back: others write them", len(part), node)
        return True

    def _missing(self, node: str, part: Iterable[TableRow]) -> list[TableRow]:
        """Return what of *part* can be a block, and is in the way of none."""
        view = self._replica.view
        known = view.config.pools if view.config else ()
        # Of one length two overlap only if they are the same.
        taken: dict[tuple[int, int], set[IPNetwork]] = {}
        for cidr in view.blocks:
            taken.setdefault((cidr.version, cidr.prefixlen), set()).add(cidr)
        missing = []
        for row in part:
            if _overlaps(row.cidr, taken):
                continue
            # Where no pool is known, or readable, it may be of one.
            if known and not any(pools.is_block(row.cidr, pool) for pool in known):
                log.warning("%s told of %s: no block of a pool", node, row.cidr)
                continue
            missing.append(row)
            taken.setdefault((row.cidr.version, row.cidr.prefixlen), set()).add(row.cidr)
        return missing


def _overlaps(cidr: IPNetwork, taken: dict[tuple[int, int], set[IPNetwork]]) -> bool:
    kind = (cidr.version, cidr.prefixlen)
    return cidr in taken.get(kind, ()) or any(
        cidr.overlaps(other)
        for (version, length), others in taken.items()
        if version == cidr.version and length != cidr.prefixlen
        for other in others
    )


def _block(row: TableRow) -> Block:
    """One that its node has yet to say is its own: of no uid, and no pool."""
    return Block(cidr=row.cidr, pool="", node=row.node, uid="", epoch=row.epoch, nonce="")
