"""The table of blocks, and the pools, streamed to any number of agents from one view.

Changes are gathered and sent together: the first at once, the next after a gap several times as
long as handing that to all streams took, because one change costs one message a stream, and calls
wait meanwhile.  All streams read one bounded log, and share its messages; one that falls off its
end gets the table anew.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import islice

from ipam.calls import PoolRow, TableRow, Update
from ipam.view import View, sorted_cidrs
from net.address import IPNetwork

LOGGED = 256
SHORTEST_GAP_S = 0.02
LONGEST_GAP_S = 1.0
# So streams get a ninth of the event loop at most, while changes come one after another.
GAP_PER_SENDING = 8.0


class Feed:
    """Call `note` with what changed; `run` sends it."""

    def __init__(self, view: View, *, logged: int = LOGGED) -> None:
        self._view = view
        # Each with the highest revision of any change in it: our own transactions are known
        # here before the watch, and the view's revision, come to them.
        self._log: deque[tuple[int, Update]] = deque(maxlen=logged)
        self._number = 0
        self._dirty: set[IPNetwork] = set()
        self._pending = asyncio.Event()
        self._sent = asyncio.Event()
        self._whole: Update | None = None
        self._merges: dict[int, Update] = {}
        # As last seen: while they cannot be read, nodes go on with those.
        self._pools: tuple[PoolRow, ...] | None = None
        self._audit = ""
        self.streams = 0
        # Every change after this revision is in the log, or was noted.
        self._from = 0

    def note(self, cidrs: Iterable[IPNetwork]) -> None:
        """Send what became of these blocks, the pools if they changed, and an audit's call."""
        self._dirty.update(cidrs)
        if self._dirty or self._pools_changed() or self._new_audit():
            self._pending.set()

    def restart(self) -> None:
        """Give every stream the whole table: the store is another, or was rolled back."""
        self._number += len(self._log) + 1
        self._log.clear()
        self._dirty.clear()
        self._whole = None
        self._merges.clear()
        self._from = self._view.revision
        self._wake()

    def stir(self) -> None:
        """Send an update that says nothing: the store is there again, so may be asked."""
        self._send(Update(revision=self._view.revision))

    def flush(self) -> None:
        """Send what was noted as one update."""
        self._pending.clear()
        with_pools = self._pools_changed()
        audit = self._new_audit()
        if not self._dirty and not with_pools and not audit:
            return
        self._audit = audit or self._audit
        dirty, self._dirty = sorted_cidrs(self._dirty), set()
        blocks, self._pools = self._view.blocks, self._pools_now()
        update = Update(
            revision=self._view.revision,
            rows=tuple(self._view.row(blocks[cidr]) for cidr in dirty if cidr in blocks),
            gone=tuple(cidr for cidr in dirty if cidr not in blocks),
            with_pools=with_pools,
            pools=(self._pools or ()) if with_pools else (),
            audit=audit,
        )
        self._send(update)

    def _send(self, update: Update) -> None:
        if len(self._log) == self._log.maxlen:
            self._from, self._number = self._log[0][0], self._number + 1
        self._log.append((self._view.highest, update))
        self._whole = None
        self._merges.clear()
        self._wake()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._pending.wait()
            began = time.monotonic()
            self.flush()
            # In one round of the loop streams wake, in the next they send; slow ones are not
            # waited for.
            for _ in range(2):
                await asyncio.sleep(0)
            gap_s = GAP_PER_SENDING * (time.monotonic() - began)
            await asyncio.sleep(min(max(SHORTEST_GAP_S, gap_s), LONGEST_GAP_S))

    async def stream(self, after: int) -> AsyncGenerator[Update, None]:
        """Yield what changed after revision *after*; first the table where that is not known.

        Where nothing changed an update says nothing first, so that the node knows that it follows.
        """
        self.streams += 1
        try:
            place = self._place(after)
            if place == self._number + len(self._log):
                yield Update(revision=after)
            while True:
                signal = self._sent
                update: Update | None
                if place < self._number:
                    place, update = self._number + len(self._log), self._table()
                else:
                    update = self._merged(place - self._number)
                    place = self._number + len(self._log)
                if update is not None:
                    yield update
                elif signal is self._sent:
                    await signal.wait()
        finally:
            self.streams -= 1

    def _place(self, after: int) -> int:
        """Return how many updates, of all ever logged, a stream has that knows *after*."""
        if not (after and self._from <= after <= self._view.revision):
            return -1
        return self._number + sum(1 for highest, _ in self._log if highest <= after)

    def _pools_now(self) -> tuple[PoolRow, ...] | None:
        rows = self._view.pool_rows
        return self._pools if rows is None else rows

    def _pools_changed(self) -> bool:
        return self._pools_now() != self._pools

    def _new_audit(self) -> str:
        call = self._view.audit.call if self._view.audit else ""
        return call if call != self._audit else ""

    def _wake(self) -> None:
        self._sent.set()
        self._sent = asyncio.Event()

    def _table(self) -> Update:
        if self._whole is None:
            view = self._view
            rows = tuple(view.row(view.blocks[cidr]) for cidr in sorted_cidrs(view.blocks))
            pools = self._pools_now()
            self._whole = Update(
                revision=view.revision,
                whole=True,
                rows=rows,
                with_pools=pools is not None,
                pools=pools or (),
                audit=view.audit.call if view.audit else "",
            )
        return self._whole

    def _merged(self, skip: int) -> Update | None:
        """Merge the log but for its first *skip*, once for all streams that are as far."""
        if skip == len(self._log):
            return None
        if (known := self._merges.get(skip)) is None:
            missed = [update for _, update in islice(self._log, skip, None)]
            known = self._merges[skip] = missed[0] if len(missed) == 1 else _merge(missed)
        return known


def _merge(missed: Sequence[Update]) -> Update:
    """Make one of several; the later of two rows of one block counts."""
    rows: dict[IPNetwork, TableRow | None] = {}
    for update in missed:
        rows.update((row.cidr, row) for row in update.rows)
        rows.update((cidr, None) for cidr in update.gone)
    pools = next((update.pools for update in reversed(missed) if update.with_pools), None)
    return Update(
        revision=missed[-1].revision,
        rows=tuple(row for row in rows.values() if row is not None),
        gone=tuple(cidr for cidr, row in rows.items() if row is None),
        with_pools=pools is not None,
        pools=pools or (),
        audit=next((update.audit for update in reversed(missed) if update.audit), ""),
    )
