"""What becomes of a packet to a Service, and why: for people who ask.  Pure.

Nothing is decided here: the way through the maps is `proxy.walk`'s, which endpoints count is
`proxy.choose`'s.  This only puts words and endpoints together.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from dataplane.nft.objects import Element
from proxy.choose import distinct, left_out
from proxy.model import Endpoint, Endpoints, NodeView, ServiceName, ServicePort, TrafficPolicy
from proxy.plan import Backend, Frontend, Planned, elements, node_elements, ports_of
from proxy.tables import CLASSES
from proxy.walk import Fate, Outcome, Packet, Reason, Tables

Asked = tuple[Planned, Endpoints]
"""A Service as planned, and who its endpoints are."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint of the port that was asked for; *why_not* "": the packet may reach it."""

    backend: Backend
    node: str
    why_not: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """*service* and *port*: whose frontend it is, None and "" where it is nobody's.

    *programmed* is what the kernel's elements do, None where the table is not there whole;
    *remembered*: the endpoint that the client is remembered to have.
    """

    packet: Packet
    outcome: Outcome
    programmed: Outcome | None
    service: ServiceName | None = None
    port: str = ""
    affinity_s: int = 0
    candidates: tuple[Candidate, ...] = ()
    remembered: Backend | None = None

    @property
    def is_programmed(self) -> bool:
        return self.programmed == self.outcome


def explain(
    packet: Packet,
    asked: Sequence[Asked],
    node: NodeView,
    *,
    observed: Collection[Element] | None,
    remembered: Backend | None = None,
) -> Explanation:
    """*asked*: the Services that it `concerns`; *observed*: what the kernel has, None: no table."""
    version = packet.address.version
    planned = [*node_elements(node), *(e for one, _ in asked for e in elements(one, (version,)))]
    outcome = Tables(planned).fate(packet)
    programmed = Tables(observed).fate(packet) if observed is not None else None
    owner = next(_owners(packet, asked, outcome), None)
    if owner is None:
        return Explanation(packet=packet, outcome=outcome, programmed=programmed)
    (one, endpoints), port = owner
    members = [
        each
        for each in endpoints.get((port.name, port.protocol), ())
        if each.address.version == version
    ]
    kept = remembered if outcome.is_sticky else None
    return Explanation(
        packet=packet,
        outcome=outcome,
        programmed=programmed,
        service=one.service.name,
        port=port.name,
        affinity_s=one.service.affinity_s,
        candidates=tuple(_candidates(members, node, one, outcome, kept)),
        remembered=kept,
    )


def concerns(packet: Packet, planned: Planned) -> bool:
    """Whether what *packet* finds may depend on this Service."""
    own = planned.service
    addresses = (*own.cluster_ips, *own.external_ips, *own.load_balancer_ips)
    return packet.address in addresses or any(p.node_port == packet.port for p in own.ports)


def _owners(
    packet: Packet, asked: Sequence[Asked], outcome: Outcome
) -> Iterator[tuple[Asked, ServicePort]]:
    """Whose frontend it came by: one at most, unless it came by none."""
    if outcome.reason in (Reason.UNKNOWN, Reason.NOT_OPEN, Reason.OTHER_PORT, Reason.UNALLOCATED):
        return
    for address in (packet.address, None):
        frontend = Frontend(packet.address.version, address, packet.protocol, packet.port)
        for one in asked:
            owned = [each for each in one[0].owned if each == frontend]
            for _, port in ports_of(one[0].service, owned):
                yield one, port


def _candidates(
    members: Sequence[Endpoint],
    node: NodeView,
    planned: Planned,
    outcome: Outcome,
    kept: Backend | None,
) -> Iterator[Candidate]:
    is_inner = outcome.reason is Reason.INNER
    is_local = outcome.reason in (Reason.KEPT, Reason.NOBODY_HERE) or (
        is_inner and planned.service.internal_policy is TrafficPolicy.LOCAL
    )
    reasons = left_out(members, node, is_local=is_local)
    for each in distinct(members):
        backend, why = Backend(each.address, each.port), reasons.get(each, "")
        if outcome.fate is not Fate.TRANSLATED:
            why = why or str(outcome.reason)
        elif backend not in outcome.backends:
            why = why or f"a frontend has {CLASSES[-1]} endpoints at most"
        elif kept in outcome.backends and backend != kept:
            why = f"this client keeps {kept} for now"
        yield Candidate(backend, each.node, why)
