"""Which nodes this replica hears, shown to the others by keys on an etcd lease of its own.

Liveness makes suspicion, never ownership.  One lease for all nodes of a replica: it costs one
renewal, and goes with the replica; agents then register with another.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ipam.keys import Alive, write
from ipam.kv import Ambiguous, Delete, Entry, KVError, LeaseGone, Put
from ipam.replica import Change, Replica

TTL_S = 15


class Liveness:
    """*clock*: monotonic seconds."""

    def __init__(self, replica: Replica, clock: Callable[[], float]) -> None:
        self._replica = replica
        self._clock = clock
        self._lease = 0
        self._granting = asyncio.Lock()
        self._heard: dict[str, float] = {}
        self._open: dict[str, int] = {}
        self._mine: dict[str, Alive] = {}
        self._unheard: set[Entry] = set()

    def heard(self, node: str) -> None:
        if node in self._mine:
            self._heard[node] = self._clock()

    @contextmanager
    def stream(self, node: str) -> Iterator[None]:
        """Take *node* for alive as long as this is open; when it closes it may be starting anew."""
        self._open[node] = self._open.get(node, 0) + 1
        try:
            yield
        finally:
            self._open[node] -= 1
            if not self._open[node]:
                del self._open[node]

    async def put(self, node: str, alive: Alive) -> Put:
        """Return the change that shows *node* alive.  Raises KVError."""
        async with self._granting:  # a thousand nodes that come at once share one
            if not self._lease:
                self._lease = await self._replica.kv.grant(TTL_S)
        return Put(self._replica.keys.alive(node), write(alive), self._lease)

    def is_shown(self, node: str, alive: Alive) -> bool:
        """Tell whether the store has *alive* for *node*, on the lease of this replica."""
        return self._mine.get(node) == alive and self._stands(node, alive)

    def _stands(self, node: str, alive: Alive) -> bool:
        entry = self._replica.view.entry(self._replica.keys.alive(node))
        is_ours = entry is not None and 0 < entry.lease == self._lease
        return is_ours and self._replica.view.alive(node) == alive

    def registered(self, node: str, alive: Alive) -> None:
        self._mine[node] = alive
        self._heard[node] = self._clock()

    def lease_gone(self) -> None:
        self._lease = 0

    async def renew(self) -> None:
        """Keep the lease, or show all that are heard anew; drop who is not.  Raises KVError."""
        for node in [node for node, since in self._heard.items() if self._is_quiet(node, since)]:
            await self._drop(node)
        if self._lease and not await self._replica.kv.keep_alive(self._lease):
            self._lease = 0
        await self._take_back()
        is_kept = bool(self._lease)
        for node, alive in list(self._mine.items()):
            # Who is gone, and is not streamed the table, may have left by another replica.
            is_missed = self._replica.view.alive(node) is None and node in self._open
            if is_missed or not is_kept:
                await self._show(node, alive)

    async def _take_back(self) -> None:
        """Delete what our lease keeps and nobody told us: a store that was restored has it again.

        Else a former boot of a node would be seen alive, and the present one refused, for ever.
        Only what was so the last time, too: one that registers is shown before it is noted.
        """
        view, keys, unheard = self._replica.view, self._replica.keys, set[Entry]()
        for node in view.nodes:
            entry = view.entry(keys.alive(node))
            if (
                entry
                and 0 < entry.lease == self._lease
                and view.alive(node) != self._mine.get(node)
            ):
                unheard.add(entry)
        again, self._unheard = unheard & self._unheard, unheard
        for entry in again:
            await self._replica.commit(Change([view.unchanged(entry.key)], [Delete(entry.key)]))

    def _is_quiet(self, node: str, since: float) -> bool:
        return node not in self._open and self._clock() - since > TTL_S

    async def _show(self, node: str, alive: Alive) -> None:
        """Put the key where there is none: another replica may hear the node by now."""
        key = self._replica.keys.alive(node)
        put = await self.put(node, alive)
        try:
            await self._replica.commit(Change([self._replica.view.unchanged(key)], [put]))
        except (LeaseGone, Ambiguous):
            self._lease = 0

    async def leave(self, node: str, uid: str, instance: str) -> None:
        """Show *node* alive no more, unless another run of its agent is.  Raises KVError."""
        await self._replica.refresh([self._replica.keys.alive(node)])
        alive = self._replica.view.alive(node)
        if alive is not None and (alive.uid, alive.instance) == (uid, instance):
            self._mine.pop(node, None)
            self._heard.pop(node, None)
            await self._delete(node)

    async def _drop(self, node: str) -> None:
        """Show *node* alive no more, unless another replica does, which hears it by now."""
        alive = self._mine.pop(node)
        self._heard.pop(node, None)
        if self._stands(node, alive):
            await self._delete(node)

    async def _delete(self, node: str) -> None:
        key = self._replica.keys.alive(node)
        try:
            await self._replica.commit(Change([self._replica.view.unchanged(key)], [Delete(key)]))
        except KVError:
            # It goes with the lease, at the latest.
            return
