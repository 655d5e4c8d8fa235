"""Keep the kernel's maps as the Services are: observe, plan, apply."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from dataplane.errors import DataplaneError
from dataplane.flows import Flows
from dataplane.nft.objects import Element, Family
from dataplane.nft.objects import Protocol as TransportProtocol
from net.address import IPAddress
from proxy import affinity
from proxy.affinity import Affinity
from proxy.changes import Change, between, chunks, gathered
from proxy.claims import Claims
from proxy.explain import Explanation, concerns, explain
from proxy.former import Former
from proxy.model import Endpoint, Endpoints, NodeView, Service, ServiceName
from proxy.plan import (
    NODE_SETS,
    Frontend,
    Planned,
    elements,
    frontends,
    hairpin,
    node_elements,
    plan,
)
from proxy.stale_flows import Departed, State, abandoned, departed, inherited, stale
from proxy.translate import API, answers
from proxy.walk import Packet

log = logging.getLogger(__name__)

_FAMILIES = {Family.IP: 4, Family.IP6: 6}


class Table(affinity.Table, Protocol):
    """One family's table, as dataplane.nft.table.NftTable; raises DataplaneError."""

    def observe(self) -> frozenset[Element] | None: ...
    def replace(self, elements: Collection[Element]) -> None: ...
    def exchange(self, elements: Collection[Element]) -> None: ...
    def end_exchange(self) -> None: ...


class Conntrack(Protocol):
    """Knows flows and forgets them, as dataplane.conntrack.Conntrack; raises DataplaneError."""

    def leading(self) -> set[Flows]: ...
    def forget(self, which: Collection[Flows]) -> None: ...


class Wanted(NamedTuple):
    """A Service and its endpoints, as the API has them."""

    service: Service
    endpoints: Endpoints


class Reconciler:
    """The Services of one node.  From one thread at a time.

    *tables* by IP version: a family that is not there is not served.
    """

    def __init__(
        self, tables: Mapping[int, Table], node: NodeView, conntrack: Conntrack | None = None
    ) -> None:
        self._tables = tables
        self._conntrack = conntrack
        self._affinity = {version: Affinity(table, version) for version, table in tables.items()}
        self._node = node
        self._claims = Claims()
        self._wanted: dict[ServiceName, Wanted] = {}
        self._planned: dict[ServiceName, Planned] = {}
        self._hairpin: Counter[IPAddress] = Counter()
        self.refused: dict[ServiceName, str] = {}
        """What the kernel did not take, and why."""
        self.trouble = ""
        """Why the last repair did not mend all, or "".  All else is in place."""

    def begin(self, wanted: Mapping[ServiceName, Wanted]) -> list[Departed]:
        """Make the tables what *wanted* says, by as little as differs.  Raises DataplaneError.

        What is there keeps its slots, so that an agent which begins anew changes nothing.  To be
        called again where it failed.  Returns the pods that left while nobody looked, and that
        connections lead to.
        """
        self._wanted = dict(wanted)
        self._planned, self._hairpin, self._claims = {}, Counter(), Claims()
        for each in wanted.values():
            self._claims.put(each.service, self._frontends(each.service))
        observed = {version: table.observe() for version, table in self._tables.items()}
        former = Former(each for found in observed.values() for each in found or ())
        gone: list[Flows] = []
        for name, each in wanted.items():
            owned = self._owned(each.service)
            before = former.planned(each.service, owned)
            if name == API and not answers(each.endpoints):
                self._wanted[name] = Wanted(each.service, _endpoints(before))
            self._planned[name] = planned = self._plan(name, owned, before)
            self._hairpin.update(planned.hairpin)
            gone += inherited(State(before, {}), self._state(name))
        self._mend_all(observed)
        for table in self._tables.values():
            table.end_exchange()
        self._forget(gone)
        return self._abandoned()

    def repair(self) -> int:
        """Compare all that is planned with the kernel; returns how much was mended.

        Raises DataplaneError.
        """
        return self._mend_all({version: each.observe() for version, each in self._tables.items()})

    def _mend_all(self, observed: Mapping[int, Collection[Element] | None]) -> int:
        self.trouble = ""
        mended = sum(self._mend(version, found) for version, found in observed.items())
        if not self.trouble:
            self.refused.clear()
        return mended

    def _mend(self, version: int, found: Collection[Element] | None) -> int:
        mended = 0
        if found is None:
            found = self._exchange(version)
            mended = len(found)
        self._affinity[version].look_again()
        left = set(found)
        shared = {each for each in left if each.of.name in NODE_SETS}
        left -= shared
        # What goes and what comes of ranges in one transaction: they must not overlap.
        first, last = (
            list(between(*({e for e in those if (e.of.name == "service-cidrs") is is_last}
                            for those in (shared, self._of_node(version)))))
            for is_last in (False, True)
        )  # fmt: skip
        mended += self._apply_all(version, first)
        mended += self._apply_all(version, self._lacking(version, left))
        # Last: by these alone every Service is dropped, that of another proxy too.
        return mended + self._apply_all(version, last)

    def _exchange(self, version: int) -> Collection[Element]:
        """Make the table anew; returns its elements.

        One that works, of another layout, is exchanged with all its elements, at several times the
        cost, and with what clients are remembered to have.
        """
        table, memory = self._tables[version], self._affinity[version]
        if table.chains():
            goal = {*self._of_node(version), *self._all(version)}
            try:
                table.exchange([*goal, *memory.all_remembered()])
            except DataplaneError as exc:
                log.warning("rules come first, elements follow", extra={"error": str(exc)})
            else:
                memory.look_again()
                memory.prepare(goal)
                return goal
        table.replace([])
        return ()

    def _of_node(self, version: int) -> list[Element]:
        return [each for each in node_elements(self._node) if _version(each) == version]

    def _lacking(self, version: int, there: set[Element]) -> Iterable[Change]:
        """What Services are to have otherwise than *there*, which is used up."""
        goal = self._all(version)
        if not there:
            return (Change(None, each) for each in goal)
        missing = []
        for each in goal:
            if each in there:
                there.discard(each)
            else:
                missing.append(each)
        return between(there, missing)

    def _apply_all(self, version: int, changes: Iterable[Change]) -> int:
        count = 0
        for some in chunks(changes):
            count += len(some)
            try:
                self._apply(version, some)
            except DataplaneError:
                self._apply_singly(version, some)
        return count

    def _apply_singly(self, version: int, changes: Iterable[Change]) -> None:
        """What the kernel refuses is to hold up nothing else."""
        for each in changes:
            try:
                self._apply(version, [each])
            except DataplaneError as exc:
                what = each.add or each.delete
                log.error("not programmed", extra={"element": str(what), "error": str(exc)})
                self.trouble = f"{what}: {exc}"

    def change(self, news: Mapping[ServiceName, Wanted | None]) -> list[Departed]:
        """Put, change or (None) remove Services; returns the pods that left them.

        What the kernel refuses of one Service is in `refused`; the others are in place.
        """
        news = {name: self._kept(name, wanted) for name, wanted in news.items()}
        affected = set(news)
        before = {name: self._state(name) for name in news}
        for name, wanted in news.items():
            affected |= self._claim(name, wanted)
        changes: dict[ServiceName, list[Change]] = {}
        gone: list[Flows] = []
        left: list[Departed] = []
        for name in affected:
            old = before.get(name) or self._state(name)
            if found := self._advance(name):
                changes[name] = found
            gone += stale(old, self._state(name))
            left += departed(old, self._state(name))
        for some in gathered(changes):
            self._try(some)
        self._forget(gone)
        return left

    def _kept(self, name: ServiceName, wanted: Wanted | None) -> Wanted | None:
        """The API server's own Service keeps its last endpoints: else we would hear no more."""
        before = self._wanted.get(name)
        if name != API or before is None or (wanted and answers(wanted.endpoints)):
            return wanted
        return Wanted(wanted.service, before.endpoints) if wanted else before

    def look(self, node: NodeView) -> None:
        """Go by another view of the node from now on.  Raises DataplaneError."""
        if node == self._node:
            return
        before, self._node = self._node, node
        changes = list(between(node_elements(before), node_elements(node)))
        for version in self._tables:
            for some in chunks(each for each in changes if _version_of(each) == version):
                self._apply(version, some)
        self.change(dict(self._wanted))

    def overflown(self) -> int:
        """How many connections were not remembered for session affinity.  Raises DataplaneError."""
        return sum(each.overflown() for each in self._affinity.values())

    @property
    def conflicts(self) -> Mapping[Frontend, tuple[ServiceName, Collection[ServiceName]]]:
        return self._claims.conflicts()

    def planned(self, name: ServiceName) -> Planned | None:
        return self._planned.get(name)

    def names(self) -> list[ServiceName]:
        return list(self._planned)

    def differences(self, names: Collection[ServiceName]) -> dict[ServiceName, list[str]]:
        """What of these Services the kernel lacks, or has otherwise.  Raises DataplaneError."""
        there = {each for table in self._tables.values() for each in table.observe() or ()}
        return {
            name: missing
            for name in names
            if (missing := [str(e) for e in self._elements(name) if e not in there])
        }

    def explain(self, packet: Packet) -> Explanation:
        """What becomes of *packet*, as planned and as programmed.  Raises DataplaneError."""
        version = packet.address.version
        asked = [
            (planned, self._wanted[name].endpoints)
            for name, planned in self._planned.items()
            if concerns(packet, planned)
        ]
        remembered = None
        if any(planned.service.affinity_s for planned, _ in asked):
            frontend = Frontend(version, packet.address, packet.protocol, packet.port)
            remembered = self._affinity[version].remembered(packet.source_address, frontend)
        observed = self._tables[version].observe()
        return explain(packet, asked, self._node, observed=observed, remembered=remembered)

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
            owned = self._owned(self._wanted[name].service)
            self._planned[name] = after = self._plan(name, owned, before)
        versions = self._tables.keys()
        there = elements(before, versions) if before is not None else ()
        goal = elements(after, versions) if after is not None else ()
        return [*between(there, goal), *self._hairpins(before, after)]

    def _plan(
        self, name: ServiceName, owned: Collection[Frontend], before: Planned | None
    ) -> Planned:
        service, endpoints = self._wanted[name]
        return plan(service, endpoints, self._node, owned=owned, before=before)

    def _owned(self, service: Service) -> list[Frontend]:
        return self._claims.owned(service, self._frontends(service))

    def _elements(self, name: ServiceName) -> Iterator[Element]:
        return elements(self._planned[name], self._tables.keys())

    def _state(self, name: ServiceName) -> State:
        wanted = self._wanted.get(name)
        return State(self._planned.get(name), wanted.endpoints if wanted else {})

    def _forget(self, flows: Collection[Flows]) -> None:
        """A flow that stays too long is no reason to stop: it is told, and runs out by itself."""
        if not flows or self._conntrack is None:
            return
        try:
            self._conntrack.forget(flows)
        except DataplaneError as exc:
            log.warning("flows to former endpoints are not forgotten", extra={"error": str(exc)})

    def _abandoned(self) -> list[Departed]:
        """Connections that stay too long are no reason not to begin."""
        if self._conntrack is None:
            return []
        try:
            flows = self._conntrack.leading()
        except DataplaneError as exc:
            log.warning("connections to former pods are not looked at", extra={"error": str(exc)})
            return []
        return list(abandoned(flows, map(self._state, self._planned), self._node.pods))

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

    def _all(self, version: int) -> Iterator[Element]:
        """All of one family but what is the node's."""
        yield from (hairpin(each) for each in self._hairpin if each.version == version)
        for planned in self._planned.values():
            yield from elements(planned, (version,))

    def _try(self, changes: Mapping[ServiceName, Collection[Change]]) -> None:
        """Apply the changes of several Services; where that fails, of each by itself."""
        try:
            for version in self._tables:
                of = [c for each in changes.values() for c in each if _version_of(c) == version]
                for some in chunks(of):
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


def _endpoints(planned: Planned) -> Endpoints:
    """Those that the maps have, as if they were ready."""
    found: dict[tuple[str, TransportProtocol], dict[Endpoint, None]] = {}
    for key, backends in planned.slots.items():
        members = found.setdefault((key.port, key.protocol), {})
        members.update((Endpoint(address=each.address, port=each.port), None) for each in backends)
    return {port: tuple(members) for port, members in found.items()}


def _version(each: Element) -> int:
    return _FAMILIES[each.of.family]


def _version_of(change: Change) -> int:
    each = change.add or change.delete
    assert each is not None
    return _version(each)
