"""The table of blocks, streamed to any number of agents from one view.

Changes are gathered and sent together: the first at once, the next no sooner than a gap that
grows with the number of streams, because one change costs one message a stream.  All streams
read one bounded log, and share its messages; one that falls off its end gets the table anew.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from itertools import islice

from ipam.calls import TableRow, Update
from ipam.view import View, sorted_cidrs
from net.address import IPNetwork

LOGGED = 256
SHORTEST_GAP_S = 0.02
# Measured: a bare grpc.aio server sends about 15 messages a millisecond on one core.
GAP_S_PER_STREAM = 0.0003


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
        self.streams = 0
        # Every change after this revision is in the log, or was noted.
        self._from = 0

    def note(self, cidrs: Iterable[IPNetwork]) -> None:
        self._dirty.update(cidrs)
        if self._dirty:
            self._pending.set()

    def restart(self) -> None:
        """Give every stream the whole table: the store is another, or was rolled back."""
        self._number += len(self._log) + 1
        self._log.clear()
        self._dirty.clear()
        self._whole = None
        self._from = self._view.revision
        self._wake()

    def flush(self) -> None:
        """Send what was noted as one update."""
        self._pending.clear()
        if not self._dirty:
            return
        dirty, self._dirty = sorted_cidrs(self._dirty), set()
        blocks = self._view.blocks
        update = Update(
            revision=self._view.revision,
            rows=tuple(self._view.row(blocks[cidr]) for cidr in dirty if cidr in blocks),
            gone=tuple(cidr for cidr in dirty if cidr not in blocks),
        )
        if len(self._log) == self._log.maxlen:
            self._from, self._number = self._log[0][0], self._number + 1
        self._log.append((self._view.highest, update))
        self._whole = None
        self._wake()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._pending.wait()
            self.flush()
            await asyncio.sleep(max(SHORTEST_GAP_S, GAP_S_PER_STREAM * self.streams))

    async def stream(self, after: int) -> AsyncGenerator[Update, None]:
        """Yield what changed after revision *after*; first the table where that is not known."""
        self.streams += 1
        try:
            place = self._place(after)
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

    def _wake(self) -> None:
        self._sent.set()
        self._sent = asyncio.Event()

    def _table(self) -> Update:
        if self._whole is None:
            view = self._view
            rows = tuple(view.row(view.blocks[cidr]) for cidr in sorted_cidrs(view.blocks))
            self._whole = Update(revision=view.revision, whole=True, rows=rows)
        return self._whole

    def _merged(self, skip: int) -> Update | None:
        """Merge the log but for its first *skip*; the later of two rows of one block counts."""
        missed = [update for _, update in islice(self._log, skip, None)]
        if len(missed) < 2:
            return missed[0] if missed else None
        rows: dict[IPNetwork, TableRow | None] = {}
        for update in missed:
            rows.update((row.cidr, row) for row in update.rows)
            rows.update((cidr, None) for cidr in update.gone)
        return Update(
            revision=missed[-1].revision,
            rows=tuple(row for row in rows.values() if row is not None),
            gone=tuple(cidr for cidr, row in rows.items() if row is None),
        )
