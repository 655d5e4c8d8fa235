"""One replica's end of the store: its view of it, its transactions, and whether to trust it.

A store is not trusted that is behind what this replica remembers, or is another: then claims
freeze in the whole cluster, by a key that each of them compares, until a recovery has made a
new generation that names the old one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

from ipam.cluster import Meta, NodeState
from ipam.errors import StoreUnavailable
from ipam.feed import Feed
from ipam.keys import Freeze, Keys, write
from ipam.kv import (
    KV,
    Ambiguous,
    Batch,
    Compacted,
    Delete,
    Entry,
    Event,
    KVError,
    Outcome,
    Put,
    Unchanged,
)
from ipam.memory import DaemonMemory, Remembered
from ipam.refusals import Contended, Frozen, NotReady, Refused
from ipam.view import View

TRIES = 8
# Of a pool nearly full, replicas would else take from each other what each has just chosen.
AT_ONCE = 8
RELIST_S = 600.0
SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction to try."""

    conditions: Sequence[Unchanged]
    changes: Sequence[Put | Delete] = ()


@dataclass(slots=True)
class Tally:
    """For the metrics page."""

    transactions: int = 0
    conflicts: int = 0
    claims: int = 0
    refused: int = 0
    second_boots: int = 0


class Replica:
    """Not thread-safe: all of it runs in one event loop."""

    def __init__(self, kv: KV, keys: Keys, memory: DaemonMemory, random: Random) -> None:
        self.kv = kv
        self.keys = keys
        self.view = View(keys)
        self.feed = Feed(self.view)
        self.tally = Tally()
        self._turns = asyncio.Semaphore(AT_ONCE)  # to decide and commit
        self.synced = False
        self._random = random
        self._memory = memory
        self._remembered = memory.load()
        self._kept = self._remembered
        self._keeping = asyncio.Lock()
        self._hurried = 0  # up to which revision puts are known, before the watch brings them
        # Why what was seen could not be made durable when that was last tried, or "".
        self.forgetful = ""
        self._cluster_id = 0
        self._doubt = ""
        self._pause = SHORTEST_PAUSE_S
        self._was_frozen = True
        self.freezes = 0  # how often claims froze
        # Of a replica without memory: the revision it began at, and who has spoken since.
        self._began = 0
        self._spoken: set[str] = set()
        # Told by agents; a recovery names them, so that those who told are believed again.
        self.generations: set[str] = set()

    # Trust.

    @property
    def frozen(self) -> str:
        """Return why claims wait, or ""."""
        if self._doubt or self.view.frozen:
            return self._doubt or self.view.frozen
        if self.view.meta is None:
            return "the store has no generation: run isthmus ipam init, once for a cluster"
        if self._remembered is None:
            silent = len(self._silent())
            return (
                "this ipamd remembers nothing of the store; it waits until each node has "
                f"registered ({silent} have not), or for isthmus ipam init --recover"
            )
        return ""

    @property
    def counter(self) -> int:
        """Return how often the counter was put, at least: our own puts are not seen at once."""
        if self._remembered is None or self.frozen:
            return self.view.counter
        return max(self.view.counter, self._remembered.counter)

    @property
    def remembered_generation(self) -> str:
        return self._remembered.generation if self._remembered else ""

    async def spread_doubt(self) -> None:
        """Freeze claims everywhere, if they are here; without the key this replica alone is."""
        if not self._doubt or self.view.entry(self.keys.frozen) is not None:
            return
        put = Put(self.keys.frozen, write(Freeze(self._doubt)))
        try:
            await self.commit(Change([Unchanged(self.keys.frozen, 0)], [put]))
        except KVError as exc:
            log.warning("cannot write that claims are frozen: %s", exc)

    def has_spoken(self, node: str) -> None:
        """A node has registered, and what it remembers is in the store."""
        self._spoken.add(node)
        self._learn()

    async def trust(self) -> None:
        """An operator says that the store is right as it is now.  Raises NotReady."""
        self._doubt = ""
        self._remembered = self._seen(self.view.meta) if self.view.meta else None
        await self._remember()

    async def keep_memory(self, *, even_if_kept: bool = False) -> None:
        """Make durable what was seen; calls that wait together share one write.

        Raises StoreUnavailable.
        """
        async with self._keeping:
            remembered = self._remembered
            if remembered is None or (remembered == self._kept and not even_if_kept):
                return
            try:
                await asyncio.to_thread(self._memory.keep, remembered)
            except StoreUnavailable as exc:
                self.forgetful = str(exc)
                raise
            self._kept, self.forgetful = remembered, ""

    def _judge(self, floor: Remembered | None) -> None:
        """Compare a list with *floor*, what was remembered when it was asked for."""
        meta = self.view.meta
        seen = self._seen(meta or Meta(generation=""))
        recovered = floor and meta and floor.generation in meta.previous
        if floor and not recovered and (why := _difference(floor, seen)):
            self._distrust(why)
        self._learn()

    def _learn(self) -> None:
        """Remember what the view has, if the store is trusted, or since it is again."""
        meta, old = self.view.meta, self._remembered
        if old is None:
            moved = self.view.entry(self.keys.counter)
            others_grant = moved is not None and moved.mod_revision > self._began
            if meta and not self._doubt and (others_grant or not self._silent()):
                self._remembered = self._seen(meta)
        elif meta and old.generation in meta.previous:
            self._doubt = ""
            self._remembered = self._seen(meta)
        elif meta is None or meta.generation != old.generation:
            found = meta.generation if meta else "none"
            self._distrust(f"the store's generation is {found}, and was {old.generation}")
        elif not self._doubt:
            seen = self._seen(meta)
            self._remembered = replace(
                seen,
                revision=max(seen.revision, old.revision),
                counter=max(seen.counter, old.counter),
            )
        self._announce()

    def _distrust(self, why: str) -> None:
        if not self._doubt:
            log.error("claims are frozen: %s", why)
        self._doubt = self._doubt or why

    def _announce(self) -> None:
        """Give every stream the whole table when claims freeze: see Authority.watch."""
        was, self._was_frozen = self._was_frozen, bool(self.frozen)
        if self._was_frozen and not was:
            self.freezes += 1
            self.feed.restart()

    def _seen(self, meta: Meta) -> Remembered:
        return Remembered(
            cluster_id=self._cluster_id,
            generation=meta.generation,
            revision=self.view.highest,
            counter=self.view.counter,
        )

    def _silent(self) -> set[str]:
        fenced = NodeState.FENCED
        return {n for n, node in self.view.nodes.items() if node.state is not fenced} - self._spoken

    # Transactions.

    def require_synced(self) -> None:
        """Raises NotReady."""
        if not self.synced:
            raise NotReady("this ipamd has not seen the store yet, or cannot reach it")

    def require_thawed(self) -> None:
        """Raises NotReady, Frozen."""
        self.require_synced()
        if self.frozen:
            raise Frozen(f"claims are frozen: {self.frozen}")

    def thawed(self) -> list[Unchanged]:
        """Return the conditions that the store is the one it was, and claims are not frozen."""
        return [self.view.unchanged(self.keys.meta), Unchanged(self.keys.frozen, 0)]

    async def transact(self, keys: Iterable[str], decide: Callable[[int], Change]) -> int:
        """Carry out what *decide* makes of the view, which is read again wherever it was old.

        *decide* gets the number of the attempt, and must find what an earlier one has done.
        *keys* are what it looks at.  Returns the revision.  Raises what *decide* raises on a
        fresh view, Contended, KVError.
        """
        looked_at, fresh = tuple(keys), False
        for attempt in range(TRIES):
            async with self._turns:
                try:
                    change = decide(attempt)
                except Refused:
                    if fresh:
                        self.tally.refused += 1
                        raise
                    await self.refresh(looked_at)
                    fresh = True
                    continue
                concerned = {*looked_at, *(condition.key for condition in change.conditions)}
                try:
                    outcome = await self.commit(change)
                except Ambiguous:
                    await self.refresh(concerned)
                    fresh = True
                    continue
            if outcome.done:
                await self._remember()
                return outcome.revision
            self.tally.conflicts += 1
            await self.refresh(concerned)
            await self._hurry(outcome.revision)
            fresh = True
        raise Contended(f"others were quicker {TRIES} times; try again in a moment")

    async def _hurry(self, revision: int) -> None:
        """Take note of all that was put up to *revision*, which the watch may bring much later.

        In a storm of claims it is some hundred changes behind; of a pool nearly full, a choice
        from such a view would fail again and again.  Raises KVError.
        """
        known = max(self.view.revision, self._hurried)
        if known < revision:
            listing = await self.kv.list(self.keys.state, after=known)
            for entry in listing.entries:
                self.feed.note(self.view.apply(Event(entry.key, entry, entry.mod_revision)))
            self._hurried = listing.revision

    async def _remember(self) -> None:
        """Nothing is answered that this replica could forget; raises NotReady."""
        self._learn()
        try:
            await self.keep_memory()
        except StoreUnavailable as exc:
            raise NotReady(f"this ipamd cannot remember what it did: {exc}") from exc

    async def commit(self, change: Change) -> Outcome:
        """Try one transaction, and take note of what it did.  Raises Frozen, KVError."""
        floor, known = self.view.highest, self._remembered
        self.tally.transactions += 1
        outcome = await self.kv.commit(change.conditions, change.changes)
        if outcome.revision < floor or (
            outcome.revision == floor and outcome.done and change.changes
        ):
            self.synced = False
            why = f"the store's revision went back from {floor} to {outcome.revision}"
            self._distrust(why)
            self._announce()
            raise Frozen(why)
        if outcome.done:
            for one in change.changes:
                self._note(one, outcome.revision)
            self._announce()
            if known and any(one.key == self.keys.counter for one in change.changes):
                self._counted(known)
        return outcome

    def _counted(self, known: Remembered) -> None:
        """The counter is one more, at least, than was known when the transaction was sent."""
        now = self._remembered
        if now and now.generation == known.generation:
            self._remembered = replace(now, counter=max(now.counter, known.counter + 1))

    def _note(self, change: Put | Delete, revision: int) -> None:
        # The counter is put without a comparison: only the watch knows its version.
        if change.key == self.keys.counter:
            return
        before = self.view.entry(change.key)
        entry = None
        if isinstance(change, Put):
            entry = Entry(
                key=change.key,
                value=change.value,
                create_revision=before.create_revision if before else revision,
                mod_revision=revision,
                version=before.version + 1 if before else 1,
                lease=change.lease,
            )
        self.feed.note(self.view.apply(Event(change.key, entry, revision)))

    async def refresh(self, keys: Iterable[str]) -> None:
        """Read *keys* again.  Raises KVError."""
        for key in sorted(keys):
            listing = await self.kv.list(key)
            entry = next((one for one in listing.entries if one.key == key), None)
            known = self.view.entry(key)
            if entry is None and known is not None:
                self.feed.note(self.view.apply(Event(key, None, listing.revision)))
            elif entry is not None and entry != known:
                self.feed.note(self.view.apply(Event(key, entry, entry.mod_revision)))

    # Following.

    async def resync(self) -> None:
        """Begin to follow a store, perhaps another than before.  Raises KVError."""
        floor = self._remembered
        cluster_id = (await self.kv.identity()).cluster_id
        if self._cluster_id not in (0, cluster_id):
            self.synced = False  # what is known is of another store
        self._cluster_id = cluster_id
        listing = await self.kv.list(self.keys.state)
        self._hurried = 0
        back = listing.revision < self.view.highest
        self.feed.note(self.view.replace(listing))
        first = self._began == 0
        if first:
            self._began = listing.revision
        if back or first:  # what went before the first list is not known
            self.feed.restart()
        self._judge(floor)
        if not self.synced:
            self.synced = True
            self.feed.stir()
        await self.spread_doubt()

    async def look(self) -> View:
        """Return a view of all as it is now, beside the one that is followed.  Raises KVError."""
        view = View(self.keys)
        view.replace(await self.kv.list(self.keys.state))
        return view

    def take(self, batch: Batch) -> None:
        """Apply what a watch brought."""
        for event in batch.events:
            self.feed.note(self.view.apply(event))
        self.view.caught_up(batch.revision)
        self._learn()

    async def follow(self) -> None:
        """Keep the view up to date until cancelled.

        Only a watch that brought something, or lasted, ends the growth of pauses: a store that
        answers lists and compacts under each watch is not listed again and again.
        """
        trouble = ""
        while True:
            try:
                await self.resync()
                trouble = ""
                await self._watch()
                self._pause = SHORTEST_PAUSE_S
                continue
            except Compacted as exc:
                log.info("the watch has a gap, listing anew: %s", exc)
            except KVError as exc:
                self.synced = False
                if str(exc) != trouble:  # of an outage of hours one line says all
                    log.warning("the store: %s", exc)
                trouble = str(exc)
            await asyncio.sleep(self._pause * (0.5 + self._random.random()))
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)

    async def _watch(self) -> None:
        """Watch for a while; listing anew now and then is a defence against what we do not know."""
        try:
            async with asyncio.timeout(RELIST_S):
                async for batch in self.kv.watch(self.keys.state, after=self.view.revision):
                    self._pause = SHORTEST_PAUSE_S
                    self.take(batch)
        except TimeoutError:
            return


def _difference(old: Remembered, seen: Remembered) -> str:
    """Return in what way the store cannot be the one that *old* was of, or ""."""
    if seen.generation != old.generation:
        found = seen.generation or "none"
        return f"the store's generation is {found}, and was {old.generation}"
    if seen.cluster_id != old.cluster_id:
        return f"this is etcd cluster {seen.cluster_id:x}, and it was {old.cluster_id:x}"
    if seen.revision < old.revision:
        return f"the store's revision went back from {old.revision} to {seen.revision}"
    if seen.counter < old.counter:
        return f"the claim counter went back from {old.counter} to {seen.counter}"
    return ""
