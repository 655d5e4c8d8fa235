"""Which flows lead where they should not any more, once a Service changed.  Pure.

UDP and SCTP have no end that a client would notice: they go on to whatever they were translated
to, or were not, until conntrack forgets them.  A TCP connection lives as long as its pod, ready
or not, in a slice or not; that of a pod that is gone is to end, not to hang.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from dataplane.flows import Flows
from dataplane.nft.objects import Protocol
from net.address import IPAddress
from proxy.model import Endpoints
from proxy.plan import Backend, Frontend, ListKey, Planned, ports_of


class State(NamedTuple):
    """A Service as planned, and who its endpoints are."""

    planned: Planned | None
    endpoints: Endpoints


def stale(before: State, after: State, dead: Collection[IPAddress]) -> Iterator[Flows]:
    """What to forget of one Service; *dead*: addresses of its pods that ended."""
    old, new = dict(_answering(before)), dict(_answering(after))
    for frontend, had in old.items():
        is_tcp = frontend.protocol is Protocol.TCP
        if frontend not in new and not is_tcp:
            yield _of(frontend)
            continue
        left = {each.address for each in had - new.get(frontend, set())} if not is_tcp else set()
        for address in left | {each for each in dead if each.version == frontend.version}:
            yield _of(frontend, address)
    for frontend, has in new.items():
        # Until now they went past us, or to nobody.
        if has and not old.get(frontend) and frontend.protocol is not Protocol.TCP:
            yield _of(frontend)


def inherited(before: State, after: State) -> Iterator[Flows]:
    """The same, where another proxy may have translated: its flows to who answers go on."""
    answering = dict(_answering(after))
    for each in stale(before, after, ()):
        frontend = Frontend(each.version, each.address, each.protocol, each.port)
        has = answering.get(frontend, ())
        yield each if each.to else each._replace(kept=frozenset(one.address for one in has))


def _answering(state: State) -> Iterator[tuple[Frontend, set[Backend]]]:
    """Each frontend, with all to whom it leads, and those who serve without being preferred.

    Flows to those go on.
    """
    planned = state.planned
    if planned is None:
        return
    for frontend, port in ports_of(planned.service, planned.owned):
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
