"""Keeps the tables of `cni.nat` as all attachments together want them.

Verbs call from many threads.  Whoever comes first commits for all who wait by then, so a burst
of ADDs is a few transactions.  After a failure it is unknown what the kernel has: the next
change observes first.  A table exists from the first element that it is needed for.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol as Seam

from cni.desired import Desired
from cni.journal import Journal
from cni.nat import Flow, Published, flows
from dataplane.errors import DataplaneError, NetlinkError, NftUnavailable
from dataplane.nft.objects import Element, Family, Protocol
from ipam.leases import Attachment
from net.address import IPAddress

log = logging.getLogger(__name__)


class Table(Seam):
    """One table of the kernel."""

    def observe(self) -> frozenset[Element] | None: ...
    def replace(self, elements: Collection[Element]) -> None: ...
    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None: ...


class Conntrack(Seam):
    """The kernel's memory of flows."""

    def flush_port(
        self, protocol: Protocol, port: int, host_ip: IPAddress | None = None
    ) -> None: ...


class Programmed(StrEnum):
    """What we know of a table."""

    UNKNOWN = "unknown"
    ABSENT = "absent"
    AS_DESIRED = "as desired"


@dataclass(slots=True)
class _Change:
    """One caller's wish; *failure* stays as it is if whoever committed did not come through."""

    who: Attachment
    published: Published | None
    settled: bool = False
    failure: DataplaneError | ValueError | None = field(
        default_factory=lambda: DataplaneError("the nft transaction was not finished")
    )


@dataclass(slots=True)
class _Side:
    table: Table
    programmed: Programmed = field(default=Programmed.UNKNOWN)


class Publisher:
    """The tables' one writer.

    *published* is what stored state says at start: what the kernel has beyond it is a leftover.
    Without it, nothing that others may want is taken away before the first resync.
    """

    def __init__(
        self,
        tables: Mapping[Family, Table],
        conntrack: Conntrack,
        published: Iterable[Published] | None = None,
    ) -> None:
        self._sides = {family: _Side(table) for family, table in tables.items()}
        self._conntrack = conntrack
        self._desired = Desired(published or ())
        self._in_sync = published is not None
        self._journal = Journal()
        self._waiting: list[_Change] = []
        self._queue = threading.Lock()
        self._leader = threading.Lock()

    def publish(self, published: Published) -> None:
        """Make *published* all that its attachment has.

        Raises DataplaneError, and ValueError for what no element can be made of (a name or a
        port out of bounds); then the attachment has what it had before.
        """
        self._submit(_Change(published.who, published))

    def withdraw(self, who: Attachment) -> None:
        """Take away all that *who* has, if anything.

        Raises DataplaneError; *who* is forgotten even so, and the next change that succeeds
        takes its elements away.
        """
        self._submit(_Change(who, None))

    def resync(self, stored: Callable[[], Iterable[Published]]) -> int:
        """Bring the kernel to what is *stored*, whatever it has; returns elements changed.

        Changes go on while *stored* is read, and win over what it says.  One caller at a time.
        Raises DataplaneError.
        """
        with self._leader:
            self._journal.begin()
        read = list(stored())
        with self._leader:
            self._desired = Desired(self._journal.end(read))
            self._in_sync = True
            self._doubt()
            return self._program(frozenset(), frozenset())

    def missing(self, published: Published) -> list[str]:
        """What the kernel lacks of *published*, a line each; raises DataplaneError."""
        with self._leader:
            wanted = self._desired.of(published)
            lines = []
            for family, side in self._sides.items():
                mine = {each for each in wanted if each.of.family is family}
                observed = side.table.observe() if mine else frozenset()
                if observed is None:
                    of = next(iter(mine)).of
                    lines.append(f"nft table {family.name.lower()} {of.table} is not as made")
                    continue
                lines += sorted(f"nft element {each} is missing" for each in mine - observed)
            return lines

    def _submit(self, change: _Change) -> None:
        with self._queue:
            self._waiting.append(change)
        with self._leader:
            if not change.settled:
                with self._queue:
                    batch, self._waiting = self._waiting, []
                self._settle(batch)
        if change.failure:
            raise change.failure

    def _settle(self, batch: Sequence[_Change]) -> None:
        """Commit *batch* at once; if that is refused, one by one to find the culprit."""
        failure: DataplaneError | ValueError | None = None
        try:
            self._commit(batch)
        except (DataplaneError, ValueError) as exc:
            if len(batch) > 1 and not isinstance(exc, NftUnavailable):
                for change in batch:
                    self._settle([change])
                return
            failure = exc
        finally:
            for change in batch:
                change.settled = True
        for change in batch:
            change.failure = failure

    def _commit(self, batch: Sequence[_Change]) -> None:
        former = {change.who: self._desired.find(change.who) for change in batch}
        net: Counter[Element] = Counter()
        try:
            for change in batch:
                stale, missing = self._desired.put(change.who, change.published)
                net.subtract(stale)
                net.update(missing)
            gone = frozenset(each for each, count in net.items() if count < 0)
            come = frozenset(each for each, count in net.items() if count > 0)
            self._program(gone, come)
        except (DataplaneError, ValueError):
            for change in batch:
                if change.published:
                    self._desired.put(change.who, former[change.who])
                else:
                    self._journal.record(change.who, None)
            self._doubt()
            raise
        for change in batch:
            self._journal.record(change.who, change.published)

    def _doubt(self) -> None:
        for side in self._sides.values():
            side.programmed = Programmed.UNKNOWN

    def _program(self, stale: frozenset[Element], missing: frozenset[Element]) -> int:
        changed: set[Element] = set()
        for family, side in self._sides.items():
            gone = {each for each in stale if each.of.family is family}
            come = {each for each in missing if each.of.family is family}
            changed |= self._reach(family, side, gone, come)
        for flow in flows(changed):
            self._forget(flow)
        return len(changed)

    def _reach(
        self, family: Family, side: _Side, stale: set[Element], missing: set[Element]
    ) -> frozenset[Element]:
        """Bring one table to what is desired; returns the elements changed."""
        if side.programmed is not Programmed.UNKNOWN and not stale and not missing:
            return frozenset()
        if side.programmed is Programmed.AS_DESIRED:
            try:
                side.table.apply(delete=stale, add=missing)
            except NetlinkError as exc:
                # Somebody flushed the ruleset or part of it, or our picture of it was wrong.
                log.warning("nft elements refused, starting afresh", extra={"error": str(exc)})
                side.programmed = Programmed.UNKNOWN
            else:
                return frozenset(stale | missing)
        return self._settle_afresh(side, self._desired.elements(family)) | stale | missing

    def _settle_afresh(self, side: _Side, desired: frozenset[Element]) -> frozenset[Element]:
        observed = side.table.observe()
        if observed is None and not desired:
            side.programmed = Programmed.ABSENT
            return frozenset()
        if observed is None:
            observed = frozenset()
            side.table.replace(desired)
        else:
            keep = frozenset() if self._in_sync else _beside(observed, desired)
            observed -= keep
            if observed != desired:
                side.table.apply(delete=observed - desired, add=desired - observed)
        side.programmed = Programmed.AS_DESIRED
        return observed ^ desired

    def _forget(self, flow: Flow) -> None:
        try:
            self._conntrack.flush_port(flow.protocol, flow.port, flow.host_ip)
        except DataplaneError as exc:
            # The port works for every new flow; not worth failing an ADD that is done.
            log.warning("old flows not flushed", extra={"flow": str(flow), "error": str(exc)})


def _beside(observed: frozenset[Element], desired: frozenset[Element]) -> frozenset[Element]:
    """Those observed whose keys are not wanted for anything."""
    wanted = {(each.of, each.key, each.end) for each in desired}
    return frozenset(each for each in observed if (each.of, each.key, each.end) not in wanted)
