"""Which flows lead where they should not any more, once a Service changed.  Pure.

UDP and SCTP have no end that a client would notice: they go on to whatever they were translated
to, or were not, until conntrack forgets them.  A TCP connection lives as long as its pod, ready
or not, in a slice or not; that of a pod that is gone is to end, not to hang.
"""

from collections.abc import Collection, Iterator

from dataplane.flows import Flows
from dataplane.nft.objects import Protocol
from net.address import IPAddress
from proxy.model import Endpoints, ServicePort
from proxy.plan import Backend, Frontend, ListKey, Planned, ports_of


def stale(
    before: Planned | None,
    after: Planned | None,
    endpoints: Endpoints,
    dead: Collection[IPAddress],
) -> Iterator[Flows]:
    """What to forget of a Service; *endpoints* are its now, *dead* addresses of pods that ended."""
    old = dict(_lists(before))
    new = dict(_lists(after))
    for frontend, (port, had) in old.items():
        is_tcp = frontend.protocol is Protocol.TCP
        if frontend not in new and not is_tcp:
            yield _of(frontend)
            continue
        kept = new[frontend][1] | _serving(endpoints, port) if frontend in new else set()
        for address in {each.address for each in had - kept}:
            if not is_tcp or address in dead:
                yield _of(frontend, address)
    for frontend, (_, has) in new.items():
        # Until now they went past us, or to nobody.
        is_first = has and (frontend not in old or not old[frontend][1])
        if is_first and frontend.protocol is not Protocol.TCP:
            yield _of(frontend)


def _lists(planned: Planned | None) -> Iterator[tuple[Frontend, tuple[ServicePort, set[Backend]]]]:
    """Each frontend, with its port and all to whom it leads."""
    if planned is None:
        return
    for frontend, port in ports_of(planned.service, planned.owned):
        found: set[Backend] = set()
        for is_local in (False, True):
            key = ListKey(port.name, port.protocol, frontend.version, is_local)
            found.update(planned.slots.get(key, ()))
        yield frontend, (port, found)


def _serving(endpoints: Endpoints, port: ServicePort) -> set[Backend]:
    """Whoever answers: flows to those that are merely not preferred any more go on."""
    return {
        Backend(each.address, each.port)
        for each in endpoints.get((port.name, port.protocol), ())
        if each.is_ready or each.is_serving
    }


def _of(frontend: Frontend, to: IPAddress | None = None) -> Flows:
    return Flows(*frontend, to)
