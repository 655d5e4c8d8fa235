"""What the API promises of a packet to a Service, without any map: the model to compare with."""

from collections.abc import Iterable

from dataplane.nft.objects import Protocol
from proxy.model import Endpoint, NodeView, Service, ServicePort, TrafficPolicy
from proxy.plan import Backend
from proxy.reconciler import Wanted
from proxy.walk import Fate, Outcome, Packet, Source

LOCAL = TrafficPolicy.LOCAL
REFUSED, DROPPED = Outcome(Fate.REFUSED), Outcome(Fate.DROPPED)
UNTOUCHED = Outcome(Fate.UNTOUCHED)


def fate(wanted: Iterable[Wanted], node: NodeView, packet: Packet) -> Outcome:
    """The documented fate of *packet*; Services do not claim each other's frontends here."""
    services = list(wanted)
    for service, endpoints in services:
        for port in service.ports:
            mine = [
                each
                for each in endpoints.get((port.name, port.protocol), ())
                if each.address.version == packet.address.version
            ]
            if port.protocol is not packet.protocol:
                continue
            if packet.address in service.cluster_ips and packet.port == port.port:
                is_foreign = packet.source is Source.OUTSIDE
                return _inner(mine, node, service, marked=is_foreign)
            if _is_outer(packet, service, port, node):
                return _outer(mine, node, service, packet)
    if any(packet.address in service.cluster_ips for service, _ in services):
        return REFUSED
    is_unallocated = any(packet.address in cidr for cidr in node.service_cidrs)
    return DROPPED if is_unallocated else UNTOUCHED


def _is_outer(packet: Packet, service: Service, port: ServicePort, node: NodeView) -> bool:
    outer = (*service.external_ips, *service.load_balancer_ips)
    if packet.address in outer:
        return packet.port == port.port
    return _is_node_port(packet, service, node) and packet.port == port.node_port


def _is_node_port(packet: Packet, service: Service, node: NodeView) -> bool:
    has_family = any(each.version == packet.address.version for each in service.cluster_ips)
    is_here = any(packet.address in each for each in node.addresses)
    return packet.is_to_this_node and is_here and has_family


def _answering(endpoints: list[Endpoint]) -> list[Endpoint]:
    ready = [each for each in endpoints if each.is_ready]
    return ready or [each for each in endpoints if each.is_serving and each.is_terminating]


def _close(endpoints: list[Endpoint], node: NodeView) -> list[Endpoint]:
    found = _answering(endpoints)
    for hints, here in (("node_hints", node.name), ("zone_hints", node.zone)):
        meant = [each for each in found if here in getattr(each, hints)]
        if here and meant and all(getattr(each, hints) for each in found):
            return meant
    return found


def _to(endpoints: Iterable[Endpoint], *, marked: bool) -> Outcome:
    backends = frozenset(Backend(each.address, each.port) for each in endpoints)
    return Outcome(Fate.TRANSLATED, backends, marked)


def _inner(endpoints: list[Endpoint], node: NodeView, service: Service, *, marked: bool) -> Outcome:
    if not _answering(endpoints):
        return REFUSED
    if service.internal_policy is LOCAL:
        here = _answering([each for each in endpoints if each.node == node.name])
        return _to(here, marked=marked) if here else DROPPED
    return _to(_close(endpoints, node), marked=marked)


def _outer(endpoints: list[Endpoint], node: NodeView, service: Service, packet: Packet) -> Outcome:
    ranges = [r for r in service.source_ranges if r.version == packet.address.version]
    is_balanced = packet.address in service.load_balancer_ips
    if is_balanced and ranges and not any(packet.source_address in each for each in ranges):
        return DROPPED
    if not _answering(endpoints):
        return REFUSED
    if service.external_policy is TrafficPolicy.CLUSTER:
        return _to(_close(endpoints, node), marked=True)
    if packet.source is not Source.OUTSIDE:
        return _to(_close(endpoints, node), marked=packet.source is Source.NODE)
    here = _answering([each for each in endpoints if each.node == node.name])
    return _to(here, marked=False) if here else DROPPED


def ports(service: Service) -> set[tuple[Protocol, int]]:
    """Every port of *service* that a packet may ask for."""
    return {
        (port.protocol, number)
        for port in service.ports
        for number in (port.port, port.node_port)
        if number
    }
