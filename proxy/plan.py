"""From Services and endpoints to the elements of maps: one Service at a time.  Pure.

What a Service has in the maps depends on itself, its endpoints, the node, and which frontends
are its own; a change of one never touches another's elements.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from dataplane.nft.objects import Element, NamedSet, Protocol, element, number, place, printable
from net.address import IPAddress
from proxy.choose import choose
from proxy.model import Endpoint, Endpoints, NodeView, Service, ServicePort, TrafficPolicy
from proxy.slots import assign
from proxy.tables import CLASSES, LOCAL_SLOT, MAPS, NUMBERS, PICKS, Maps, class_of, timeout_chain


class Backend(NamedTuple):
    """Where packets go: an endpoint as far as maps know it."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        return socket_of(*self)


class Frontend(NamedTuple):
    """What clients send to; *address* None: a NodePort, of *version* 4 or 6."""

    version: int
    address: IPAddress | None
    protocol: Protocol
    port: int


class ListKey(NamedTuple):
    """One list of backends of a Service."""

    port: str
    protocol: Protocol
    version: int
    is_local: bool


# Shared: an empty frozenset has 216 bytes, and nearly every Service has two.
_NOTHING: frozenset[Any] = frozenset()


@dataclass(frozen=True, slots=True)
class Planned:
    """A Service as it is, or shall be, in the maps.

    *slots* has the backends of each list in the order of their slots.  *refused*: lists without
    an endpoint anywhere.  *hairpin*: backends that may be on this node, and so reach themselves.
    *owned*: its frontends, those left out that an older Service has.
    """

    service: Service
    owned: tuple[Frontend, ...]
    slots: Mapping[ListKey, tuple[Backend, ...]] = field(default_factory=dict)
    refused: frozenset[ListKey] = _NOTHING
    hairpin: frozenset[IPAddress] = _NOTHING
    overfull: tuple[str, ...] = ()


def frontends(service: Service, versions: Collection[int]) -> Iterator[Frontend]:
    """All that *service* claims, in families that the node serves."""
    addresses = {*service.cluster_ips, *service.external_ips, *service.load_balancer_ips}
    for port in service.ports:
        for address in addresses:
            if address.version in versions:
                yield Frontend(address.version, address, port.protocol, port.port)
        if port.node_port:
            for version in _families(service) & set(versions):
                yield Frontend(version, None, port.protocol, port.node_port)


def plan(
    service: Service,
    endpoints: Endpoints,
    node: NodeView,
    *,
    owned: Collection[Frontend],
    before: Planned | None = None,
) -> Planned:
    """What *service* shall have, slots kept from *before* where they can be."""
    slots: dict[ListKey, tuple[Backend, ...]] = {}
    refused: set[ListKey] = set()
    hairpin: set[IPAddress] = set()
    overfull: list[str] = []
    former = before.slots if before is not None else {}
    for port in service.ports:
        candidates = endpoints.get((port.name, port.protocol), ())
        for version in _families(service):
            chosen = choose([e for e in candidates if e.address.version == version], node)
            for is_local, members in ((False, chosen.cluster), (True, chosen.local)):
                key = ListKey(port.name, port.protocol, version, is_local)
                if not _is_used(service, port, is_local=is_local):
                    continue
                if len(members) > CLASSES[-1]:
                    overfull.append(
                        f"{service.name} {port.protocol} {port.port}: {len(members)} endpoints, "
                        f"of which {CLASSES[-1]} are used"
                    )
                backends = [Backend(each.address, each.port) for each in members[: CLASSES[-1]]]
                slots[key] = assign(former.get(key, ()), backends)
                hairpin |= _maybe_here(members, node)
            if not chosen.is_anywhere:
                refused |= {
                    ListKey(port.name, port.protocol, version, local) for local in (False, True)
                }
    return Planned(
        service,
        tuple(owned),
        slots,
        frozenset(refused) if refused else _NOTHING,
        frozenset(hairpin) if hairpin else _NOTHING,
        tuple(overfull),
    )


def elements(planned: Planned, versions: Collection[int] = (4, 6)) -> Iterator[Element]:
    """All that *planned* has in the maps of these families, but for what Services share."""
    service = planned.service
    owned = [each for each in planned.owned if each.version in versions]
    for frontend, port in ports_of(service, owned):
        yield from _of_frontend(planned, port, frontend)
    # Last: by these alone every port is refused.
    for address in service.cluster_ips:
        if any(each.address == address for each in owned):
            yield Element(MAPS[address.version].cluster_ips, address.packed)


def ports_of(service: Service, owned: Iterable[Frontend]) -> Iterator[tuple[Frontend, ServicePort]]:
    """Each frontend with the port that it is of."""
    for frontend in owned:
        for port in service.ports:
            if frontend.protocol is port.protocol and frontend.port == _outer_port(port, frontend):
                yield frontend, port


def hairpin(address: IPAddress) -> Element:
    """That this pod's packets to itself, by a Service, need another source."""
    return element(MAPS[address.version].hairpin, (address, address))


NODE_SETS = frozenset({"ways", "picks", "node-addresses", "pods", "service-cidrs"})
"""The sets that `node_elements` fills; those of networks do not take what overlaps."""


def node_elements(node: NodeView) -> Iterator[Element]:
    """What the maps say of the node and the cluster, and of themselves."""
    for maps in MAPS.values():
        for chain, its in NUMBERS.items():
            yield element(maps.ways, (its,), (chain,))
            if chain in PICKS:
                yield element(maps.picks, (its,), (chain,))
    for name, networks in (
        ("node_addresses", node.addresses),
        ("pods", node.pods),
        ("service_cidrs", node.service_cidrs),
    ):
        for network in networks:
            yield element(getattr(MAPS[network.version], name), (network,))


def socket_of(address: IPAddress, port: int) -> str:
    """10.0.0.1:80, or [fd00::1]:80."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def backend_of(data: bytes) -> Backend:
    """The backend that maps have as *data*."""
    # ip_address() would do, at twice the cost; an agent that begins reads all of them.
    address = IPv4Address(data[:4]) if len(data) == 8 else IPv6Address(data[:16])
    return Backend(address, int.from_bytes(data[-4:-2], "big"))


def _families(service: Service) -> set[int]:
    return {address.version for address in service.cluster_ips}


def _is_used(service: Service, port: ServicePort, *, is_local: bool) -> bool:
    """Whether some frontend goes by this list."""
    has_outer = bool(port.node_port or service.external_ips or service.load_balancer_ips)
    inner, outer = service.internal_policy, service.external_policy
    if is_local:
        return inner is TrafficPolicy.LOCAL or (has_outer and outer is TrafficPolicy.LOCAL)
    return inner is TrafficPolicy.CLUSTER or has_outer


def _maybe_here(members: Iterable[Endpoint], node: NodeView) -> set[IPAddress]:
    return {each.address for each in members if each.node in ("", node.name)}


def _outer_port(port: ServicePort, frontend: Frontend) -> int:
    return port.node_port if frontend.address is None else port.port


def _of_frontend(planned: Planned, port: ServicePort, frontend: Frontend) -> Iterator[Element]:
    if frontend.address is None:
        yield from _nodeport(planned, port, frontend)
    elif frontend.address in planned.service.cluster_ips:
        yield from _cluster_ip(planned, port, frontend)
    else:
        yield from _external(planned, port, frontend)


def _cluster_ip(planned: Planned, port: ServicePort, frontend: Frontend) -> Iterator[Element]:
    service, maps = planned.service, MAPS[frontend.version]
    is_local = service.internal_policy is TrafficPolicy.LOCAL
    key = ListKey(port.name, port.protocol, frontend.version, is_local)
    where = key_of(frontend)
    backends = planned.slots[key]
    yield from _slots(maps.endpoints, where, backends, 0)
    if backends:
        chain = f"{_sticky(service)}pick-{class_of(len(backends))}"
    else:
        chain = "refuse" if key in planned.refused or not is_local else "discard"
    yield _entry(maps.services, where, chain, service)
    yield from _remembered(maps.affinity_of, maps.affinity_valid, where, service, backends)


def _external(planned: Planned, port: ServicePort, frontend: Frontend) -> Iterator[Element]:
    service, maps = planned.service, MAPS[frontend.version]
    ranges = [each for each in service.source_ranges if each.version == frontend.version]
    is_guarded = bool(ranges) and frontend.address in service.load_balancer_ips
    way = _outer(planned, frontend, port)
    yield from _outer_lists(planned, port, frontend)
    yield _entry(
        maps.services, key_of(frontend), f"firewalled-{way}" if is_guarded else way, service
    )
    if is_guarded:
        for source in ranges:
            bounds = (source.network_address, source.broadcast_address)
            first, last = (key_of(frontend) + bound.packed for bound in bounds)
            yield Element(maps.source_ranges, first, last)


def _nodeport(planned: Planned, port: ServicePort, frontend: Frontend) -> Iterator[Element]:
    way = _outer(planned, frontend, port)
    yield from _outer_lists(planned, port, frontend)
    chain = way if way == "refuse" else f"nodeport-{way}"
    yield _entry(MAPS[frontend.version].nodeports, key_of(frontend), chain, planned.service)


def _outer(planned: Planned, frontend: Frontend, port: ServicePort) -> str:
    """The chain by which traffic from outside comes in."""
    if ListKey(port.name, port.protocol, frontend.version, False) in planned.refused:
        return "refuse"
    is_local = planned.service.external_policy is TrafficPolicy.LOCAL
    return "external-local" if is_local else "external"


def _outer_lists(planned: Planned, port: ServicePort, frontend: Frontend) -> Iterator[Element]:
    service, maps = planned.service, MAPS[frontend.version]
    of, where = _maps_of(maps, frontend), key_of(frontend)
    remembered: dict[Backend, None] = {}
    for is_local, numbers, word in ((False, of.cluster, "pick"), (True, of.local, "local")):
        if is_local and service.external_policy is not TrafficPolicy.LOCAL:
            continue
        key = ListKey(port.name, port.protocol, frontend.version, is_local)
        backends = planned.slots[key]
        if not backends:
            continue
        yield from _slots(of.endpoints, where, backends, LOCAL_SLOT if is_local else 0)
        chain = f"{of.prefix}{_sticky(service)}{word}-{class_of(len(backends))}"
        yield Element(numbers, where, data=_NUMBERS[chain])
        remembered |= dict.fromkeys(backends)
    yield from _remembered(of.affinity_of, of.affinity_valid, where, service, remembered)


class _Outer(NamedTuple):
    prefix: str
    cluster: NamedSet
    local: NamedSet
    endpoints: NamedSet
    affinity_of: NamedSet
    affinity_valid: NamedSet


def _maps_of(maps: Maps, frontend: Frontend) -> _Outer:
    if frontend.address is None:
        return _Outer(
            "nodeport-",
            maps.nodeport_cluster,
            maps.nodeport_local,
            maps.nodeport_endpoints,
            maps.nodeport_affinity_of,
            maps.nodeport_affinity_valid,
        )
    return _Outer(
        "", maps.cluster, maps.local, maps.endpoints, maps.affinity_of, maps.affinity_valid
    )


# Made thousands of times: in the form of keys at once, without `element`.
_NUMBERS = {chain: number(value) for chain, value in NUMBERS.items()}
_PROTOCOLS = {each: bytes([each.number, 0, 0, 0]) for each in Protocol}


def key_of(frontend: Frontend) -> bytes:
    """By what maps know it: address (but of a NodePort), protocol, port."""
    return place(frontend.address, _PROTOCOLS[frontend.protocol], port=frontend.port)


def _slots(
    of: NamedSet, where: bytes, backends: Iterable[Backend], first: int
) -> Iterator[Element]:
    for slot, backend in enumerate(backends, first):
        data = place(backend.address, port=backend.port)
        yield Element(of, where + number(slot), data=data)


def _entry(of: NamedSet, where: bytes, chain: str, service: Service) -> Element:
    return Element(of, where, data=_NUMBERS[chain], comment=printable(str(service.name)))


def _sticky(service: Service) -> str:
    return "sticky-" if service.affinity_s else ""


def _remembered(
    affinity_of: NamedSet,
    valid: NamedSet,
    where: bytes,
    service: Service,
    backends: Iterable[Backend],
) -> Iterator[Element]:
    if not service.affinity_s:
        return
    is_nodeport = affinity_of.name.startswith("nodeport-")
    chain = timeout_chain(service.affinity_s, is_nodeport=is_nodeport)
    yield Element(affinity_of, where, data=chain.encode())
    for backend in backends:
        yield Element(valid, where + place(backend.address, port=backend.port))
