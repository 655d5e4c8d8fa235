"""Keep the kernel's maps as the Services are: observe, plan, apply."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from dataplane.errors import DataplaneError
from dataplane.nft.objects import Element, Family
from net.address import IPAddress
from proxy import affinity
from proxy.affinity import Affinity
from proxy.claims import Claims
from proxy.model import Endpoints, NodeView, Service, ServiceName
from proxy.plan import Frontend, Planned, elements, frontends, hairpin, node_elements, plan

log = logging.getLogger(__name__)

PER_TRANSACTION = 400
"""Elements: what is more goes in several, in an order in which each is a good state."""

_FAMILIES = {Family.IP: 4, Family.IP6: 6}


class Table(affinity.Table, Protocol):
    """One family's table, as dataplane.nft.table.NftTable; raises DataplaneError."""

    def observe(self) -> frozenset[Element] | None: ...
    def replace(self, elements: Collection[Element]) -> None: ...


class Wanted(NamedTuple):
    """A Service and its endpoints, as the API has them."""

    service: Service
    endpoints: Endpoints


class Change(NamedTuple):
    """One key of one map: gone, new, or with another value."""

    delete: Element | None
    add: Element | None


class Reconciler:
    """The Services of one node.  From one thread at a time.

    *tables* by IP version: a family that is not there is not served.
    """

    def __init__(self, tables: Mapping[int, Table], node: NodeView) -> None:
        self._tables = tables
        self._affinity = {version: Affinity(table, version) for version, table in tables.items()}
        self._node = node
        self._claims = Claims()
        self._wanted: dict[ServiceName, Wanted] = {}
        self._planned: dict[ServiceName, Planned] = {}
        self._hairpin: Counter[IPAddress] = Counter()
        self.refused: dict[ServiceName, str] = {}
        """What the kernel did not take, and why."""

    def begin(self, wanted: Mapping[ServiceName, Wanted]) -> None:
        """Make the tables what *wanted* says, by as little as differs.  Raises DataplaneError."""
        for each in wanted.values():
            self._claims.put(each.service, self._frontends(each.service))
        self._wanted = dict(wanted)
        for name in wanted:
            self._planned[name] = self._plan(name)
            self._hairpin.update(self._planned[name].hairpin)
        self.repair()

    def repair(self) -> int:
        """Compare all that is planned with the kernel; returns how much was mended.

        Raises DataplaneError.
        """
        mended = 0
        for version, table in self._tables.items():
            goal = [each for each in self._all() if _version(each) == version]
            found = table.observe()
            if found is None:
                table.replace([])
            self._affinity[version].look_again()
            changes = list(_changes(found or (), goal))
            mended += len(changes)
            for some in _chunks(changes):
                self._apply(version, some)
        return mended

    def change(self, news: Mapping[ServiceName, Wanted | None]) -> None:
        """Put, change or (None) remove Services.  Raises DataplaneError.

        What the kernel refuses of one Service is in `refused`; the others are in place.
        """
        affected = set(news)
        for name, wanted in news.items():
            affected |= self._claim(name, wanted)
        changes: dict[ServiceName, list[Change]] = {}
        for name in affected:
            if found := self._advance(name):
                changes[name] = found
        for some in _gathered(changes):
            self._try(some)

    @property
    def conflicts(self) -> Mapping[Frontend, tuple[ServiceName, Collection[ServiceName]]]:
        return self._claims.conflicts()

    def planned(self, name: ServiceName) -> Planned | None:
        return self._planned.get(name)

    def _claim(self, name: ServiceName, wanted: Wanted | None) -> set[ServiceName]:
        """Note what is wanted of one Service; returns others that it concerns."""
        before = self._wanted.pop(name, None)
        if wanted is not None:
            self._wanted[name] = wanted
        if before is not None and wanted is not None and before.service == wanted.service:
            return set()
        affected: set[ServiceName] = set()
        if before is not None:
            affected |= self._claims.drop(before.service, self._frontends(before.service))
        if wanted is not None:
            affected |= self._claims.put(wanted.service, self._frontends(wanted.service))
        return affected

    def _advance(self, name: ServiceName) -> list[Change]:
        """Plan one Service anew; returns what that changes in the maps."""
        before = self._planned.pop(name, None)
        after = None
        if name in self._wanted:
            self._planned[name] = after = self._plan(name, before)
        there = elements(before) if before is not None else ()
        goal = elements(after) if after is not None else ()
        return [*_changes(there, goal), *self._hairpins(before, after)]

    def _plan(self, name: ServiceName, before: Planned | None = None) -> Planned:
        service, endpoints = self._wanted[name]
        owned = self._claims.owned(service, self._frontends(service))
        return plan(service, endpoints, self._node, owned=owned, before=before)

    def _frontends(self, service: Service) -> Iterator[Frontend]:
        return frontends(service, self._tables.keys())

    def _hairpins(self, before: Planned | None, after: Planned | None) -> Iterator[Change]:
        """Pods may be in several Services: the first brings the element, the last takes it."""
        old = before.hairpin if before is not None else frozenset()
        new = after.hairpin if after is not None else frozenset()
        for address in new - old:
            self._hairpin[address] += 1
            if self._hairpin[address] == 1:
                yield Change(None, hairpin(address))
        for address in old - new:
            self._hairpin[address] -= 1
            if not self._hairpin[address]:
                del self._hairpin[address]
                yield Change(hairpin(address), None)

    def _all(self) -> Iterator[Element]:
        yield from node_elements(self._node)
        yield from map(hairpin, self._hairpin)
        for planned in self._planned.values():
            yield from elements(planned)

    def _try(self, changes: Mapping[ServiceName, Collection[Change]]) -> None:
        """Apply the changes of several Services; where that fails, of each by itself."""
        try:
            for version in self._tables:
                of = [c for each in changes.values() for c in each if _version_of(c) == version]
                for some in _chunks(of):
                    self._apply(version, some)
        except DataplaneError as exc:
            if len(changes) == 1:
                (name,) = changes
                self.refused[name] = str(exc)
                log.error("not programmed", extra={"service": str(name), "error": str(exc)})
                return
            for name, each in changes.items():
                self._try({name: each})
        else:
            for name in changes:
                self.refused.pop(name, None)

    def _apply(self, version: int, changes: Collection[Change]) -> None:
        delete = [each.delete for each in changes if each.delete is not None]
        add = [each.add for each in changes if each.add is not None]
        self._affinity[version].prepare(add)
        self._tables[version].apply(delete=delete, add=add)
        self._affinity[version].forget(delete)


def _changes(found: Iterable[Element], wanted: Iterable[Element]) -> Iterator[Change]:
    """In an order in which a part of them is a good state, too.

    First what is new, then what is other, then what is gone: a verdict never speaks of slots
    that are not there yet, or any more.
    """
    there, goal = ({(e.of.name, e.of.family, e.key, e.end): e for e in each}
                   for each in (found, wanted))  # fmt: skip
    for key, each in goal.items():
        if key not in there:
            yield Change(None, each)
    for key, each in goal.items():
        if key in there and there[key] != each:
            yield Change(there[key], each)
    for key, each in there.items():
        if key not in goal:
            yield Change(each, None)


def _version(each: Element) -> int:
    return _FAMILIES[each.of.family]


def _version_of(change: Change) -> int:
    each = change.add or change.delete
    assert each is not None
    return _version(each)


def _chunks(changes: Iterable[Change]) -> Iterator[list[Change]]:
    rest = iter(changes)
    while some := list(islice(rest, PER_TRANSACTION // 2)):
        yield some


def _gathered(
    changes: Mapping[ServiceName, list[Change]],
) -> Iterator[dict[ServiceName, list[Change]]]:
    """Services together, as many as go in one transaction."""
    some: dict[ServiceName, list[Change]] = {}
    for name, each in changes.items():
        if some and sum(map(len, some.values())) + len(each) > PER_TRANSACTION // 2:
            yield some
            some = {}
        some[name] = each
    if some:
        yield some
