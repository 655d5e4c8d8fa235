"""The leases of all nodes as they were told, written behind; nothing is decided by them."""

import contextlib
from collections.abc import Collection
from itertools import islice

from ipam.calls import Mirror
from ipam.keys import MirrorHead, write
from ipam.kv import Ambiguous, Delete, Put, Unchanged
from ipam.pools import name
from ipam.refusals import Contended, Exhausted, Forbidden, Stale, Unknown
from ipam.replica import TRIES, Change, Replica

# Of etcd's 128 operations in one transaction, one is the head.
AT_ONCE = 100
# Of one node: as its blocks have addresses, and some for those that it lost; never more than MOST.
SPARE = 4096
MOST = 1 << 16


class Mirrors:
    """Sequences of one store of a node only grow, so a late message changes nothing."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def put(self, asked: Mirror) -> int:
        """Store what *asked* says; return how far the mirror is now.

        Raises Stale for a node that is not who is registered, Exhausted for one that tells of
        more than its blocks can have, Contended, KVError.
        """
        name(asked.node, "node name")
        node = self._replica.view.nodes.get(asked.node)
        if node is None or (node.uid, node.epoch) != (asked.uid, asked.epoch):
            raise Stale(f"node {asked.node} is not registered with this store and epoch")
        for _ in range(TRIES):
            # Ambiguous: the head, read again, says how it went.
            with contextlib.suppress(Ambiguous):
                if (stored := await self._try(asked)) is not None:
                    return stored
        raise Contended(f"the mirror of {asked.node} is written by another call; try again")

    async def drop(self, node: str, *, mod_revision: int) -> None:
        """Forget what *node* told up to *mod_revision*, if it can tell nothing more as that.

        Raises Unknown, Stale where it told something since, Forbidden where it is alive.
        """
        replica, keys = self._replica, self._replica.keys
        record, entry = replica.view.nodes.get(node), await replica.kv.get(keys.mirror(node))
        if entry is None:
            raise Unknown(f"node {node} told nothing, or that is forgotten already")
        if entry.mod_revision != mod_revision:
            raise Stale(f"node {node} told something since: look again")
        head = keys.read(entry)
        if not isinstance(head, MirrorHead):
            raise Forbidden(f"{entry.key} cannot be read, so it was edited by hand: mend it")
        if replica.view.alive(node) or (record and record.epoch <= head.epoch):
            raise Forbidden(f"node {node} is not fenced: what it told is its own")
        listing = await replica.kv.list(keys.leases(node))
        left = [Delete(one.key) for one in listing.entries]
        revision = mod_revision
        while True:
            part, left = left[:AT_ONCE], left[AT_ONCE:]
            done = Put(keys.mirror(node), entry.value) if left else Delete(keys.mirror(node))
            conditions = [
                Unchanged(keys.mirror(node), revision),
                replica.view.unchanged(keys.node(node)),
            ]
            outcome = await replica.commit(Change(conditions, [*part, done]))
            if not outcome.done:
                raise Stale(f"node {node} came back meanwhile: look again")
            if not left:
                return
            revision = outcome.revision

    async def _try(self, asked: Mirror) -> int | None:
        replica, keys = self._replica, self._replica.keys
        entry = await replica.kv.get(keys.mirror(asked.node))
        head = keys.read(entry) if entry else None
        so_far = head if isinstance(head, MirrorHead) and head.uid == asked.uid else None
        if so_far and so_far.sequence >= asked.sequence:
            return so_far.sequence
        revision = entry.mod_revision if entry else 0
        all_changes = await self._changes(asked)
        before = so_far.leases if so_far else 0
        after = await self._count(asked, before, all_changes)
        changes = iter(all_changes)
        done = MirrorHead(asked.uid, asked.epoch, asked.sequence, after)
        # The sequence comes with the last part; before, the head only keeps others out.
        part_done = MirrorHead(
            asked.uid, asked.epoch, so_far.sequence if so_far else 0, before + len(all_changes)
        )
        while True:
            part = list(islice(changes, AT_ONCE))
            last = len(part) < AT_ONCE
            put = Put(keys.mirror(asked.node), write(done if last else part_done))
            condition = Unchanged(keys.mirror(asked.node), revision)
            outcome = await replica.commit(Change([condition], [*part, put]))
            if not outcome.done:
                return None
            if last:
                return asked.sequence
            revision = outcome.revision

    async def _count(self, asked: Mirror, before: int, changes: Collection[Put | Delete]) -> int:
        """Return how many leases there are afterwards, at most.  Raises Exhausted."""
        keys, view = self._replica.keys, self._replica.view
        put = {change.key for change in changes if isinstance(change, Put)}
        after = len(put) if asked.whole else before + len(put)
        sizes = (block.cidr.num_addresses for block in view.of_node(asked.node))
        room = min(SPARE + sum(sizes), MOST)
        if after > room and not asked.whole:
            # What is told to be gone is not counted: it may never have been there.
            listing = await self._replica.kv.list(keys.leases(asked.node))
            after = len(put | {entry.key for entry in listing.entries})
        if after > room:
            raise Exhausted(
                f"node {asked.node} tells of {after} leases; with its blocks it may have {room}"
            )
        return after

    async def _changes(self, asked: Mirror) -> Collection[Put | Delete]:
        """Return one change for each key, of a whole mirror also for what is to go."""
        keys = self._replica.keys
        changes: dict[str, Put | Delete] = {}
        if asked.whole:
            listing = await self._replica.kv.list(keys.leases(asked.node))
            changes = {entry.key: Delete(entry.key) for entry in listing.entries}
        for lease in asked.leases:
            key = keys.lease(asked.node, lease)
            changes[key] = Delete(key) if lease.gone else Put(key, write(lease))
        return changes.values()
