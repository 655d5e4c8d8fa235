"""Which flows lead where they should not any more, once a Service changed.  Pure.

UDP and SCTP have no end that a client would notice: they go on to whatever they were translated
to, or were not, until conntrack forgets them.  A TCP connection lives as long as its pod, ready
or not, in a slice or not; that of a pod that is gone is to end, not to hang.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from dataplane.flows import Flows
from dataplane.nft.objects import Protocol
from net.address import IPAddress, IPNetwork
from proxy.model import Endpoints, ServiceName
from proxy.plan import Backend, Frontend, ListKey, Planned, ports_of


class State(NamedTuple):
    """A Service as planned, and who its endpoints are."""

    planned: Planned | None
    endpoints: Endpoints


class Departed(NamedTuple):
    """A *pod* at *address* that is an endpoint of *service* no more, and the TCP flows to it.

    *pod* "": which one it was nobody remembers.
    """

    service: ServiceName
    pod: str
    address: IPAddress
    flows: tuple[Flows, ...]


def departed(before: State, after: State) -> Iterator[Departed]:
    """Pods that no slice has any more, ready or not."""
    if before.planned is None or before.endpoints is after.endpoints:
        return
    there = {each.address for members in after.endpoints.values() for each in members}
    left = {
        each.address: each.pod
        for members in before.endpoints.values()
        for each in members
        if each.pod and each.address not in there
    }
    for address, pod in left.items():
        flows = tuple(
            _of(frontend, address)
            for frontend in before.planned.owned
            if frontend.protocol is Protocol.TCP and frontend.version == address.version
        )
        if flows:
            yield Departed(before.planned.service.name, pod, address, flows)


def abandoned(
    flows: Iterable[Flows], states: Iterable[State], pods: Collection[IPNetwork]
) -> Iterator[Departed]:
    """Whom TCP *flows* lead to that left before we looked, of addresses that *pods* have."""
    of = {
        frontend: (state.planned.service.name, state.endpoints)
        for state in states
        if state.planned is not None
        for frontend in state.planned.owned
        if frontend.protocol is Protocol.TCP
    }
    there: dict[ServiceName, frozenset[IPAddress]] = {}
    left: dict[tuple[ServiceName, IPAddress], dict[Flows, None]] = {}
    for each in flows:
        to = each.to
        frontend = Frontend(each.version, each.address, each.protocol, each.port)
        if frontend not in of:
            frontend = frontend._replace(address=None)
        if frontend not in of or to is None or not any(to in network for network in pods):
            continue
        name, endpoints = of[frontend]
        if name not in there:
            there[name] = frozenset(one.address for some in endpoints.values() for one in some)
        if to not in there[name]:
            left.setdefault((name, to), {})[_of(frontend, to)] = None
    for (name, to), found in left.items():
        yield Departed(name, "", to, tuple(found))


def stale(before: State, after: State) -> Iterator[Flows]:
    """What to forget of one Service at once."""
    old, new = dict(_answering(before)), dict(_answering(after))
    for frontend, had in old.items():
        if frontend not in new:
            yield _of(frontend)
            continue
        for address in {each.address for each in had - new[frontend]}:
            yield _of(frontend, address)
    for frontend, has in new.items():
        # Until now they went past us, or to nobody.
        if has and not old.get(frontend):
            yield _of(frontend)


def inherited(before: State, after: State) -> Iterator[Flows]:
    """The same, where another proxy may have translated: its flows to who answers go on."""
    answering = dict(_answering(after))
    for each in stale(before, after):
        frontend = Frontend(each.version, each.address, each.protocol, each.port)
        has = answering.get(frontend, ())
        yield each if each.to else each._replace(kept=frozenset(one.address for one in has))


def _answering(state: State) -> Iterator[tuple[Frontend, set[Backend]]]:
    """Each frontend but of TCP, with all to whom it leads, and who serves without being preferred.

    Flows to those go on.
    """
    planned = state.planned
    if planned is None:
        return
    owned = [each for each in planned.owned if each.protocol is not Protocol.TCP]
    for frontend, port in ports_of(planned.service, owned):
        found = {
            Backend(each.address, each.port)
            for each in state.endpoints.get((port.name, port.protocol), ())
            if each.address.version == frontend.version and (each.is_ready or each.is_serving)
        }
        for is_local in (False, True):
            key = ListKey(port.name, port.protocol, frontend.version, is_local)
            found.update(planned.slots.get(key, ()))
        yield frontend, found


def _of(frontend: Frontend, to: IPAddress | None = None) -> Flows:
    return Flows(*frontend, to)
