"""From the API's objects to this package's model.  Pure.

What cannot be used is left out and told: one bad port, address or endpoint takes nothing with it
that is good.  Sources: Service v1 and EndpointSlice discovery.k8s.io/v1, whose absent conditions
mean true for *ready* and *serving* and false for *terminating*.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address, ip_network
from sys import intern
from typing import TypeVar

from dataplane.nft.objects import Protocol
from kube.objects import ASSIGNED, ServiceStatus
from net.address import IPAddress, IPNetwork
from proxy import objects
from proxy.model import Endpoint, Endpoints, Service, ServiceName, ServicePort, TrafficPolicy
from proxy.view import collapsed

API = ServiceName("default", "kubernetes")
"""By which pods reach the API server: without endpoints nobody could tell us of new ones."""

DEFAULT_AFFINITY_S = 10800
_NOBODY: frozenset[str] = frozenset()
_VERSIONS = {"IPv4": 4, "IPv6": 6}

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Slice:
    """One EndpointSlice; *triggered*: when its last change began (RFC 3339), or ""."""

    service: ServiceName
    endpoints: Endpoints
    troubles: tuple[str, ...] = ()
    triggered: str = ""


@dataclass(frozen=True, slots=True)
class Translated:
    """A Service as we have it; *service* None: nothing of it is to be translated."""

    service: Service | None
    troubles: tuple[str, ...] = ()


_NOT_OURS = Translated(None)


@dataclass(slots=True)
class _Reader:
    troubles: list[str] = field(default_factory=list)

    def each(
        self, what: str, texts: Iterable[str] | None, parse: Callable[[str], Parsed]
    ) -> tuple[Parsed, ...]:
        """Those of *texts* that can be read, each once."""
        found: dict[Parsed, None] = {}
        for text in texts or ():
            try:
                found[parse(text)] = None
            except ValueError as exc:
                self.troubles.append(f"{what} {text!r}: {exc}")
        return tuple(found)


def service(found: objects.Service) -> Translated:
    """The Service, unless it is headless, a name alone, or another proxy's."""
    spec, labels = found.spec, found.metadata.labels or {}
    cluster_ips = spec.cluster_ips or (spec.cluster_ip,)
    if (
        spec.type == "ExternalName"
        or cluster_ips[0] in ("", "None")
        or objects.PROXY_NAME in labels
        or objects.HEADLESS in labels
    ):
        return _NOT_OURS
    read = _Reader()
    ranges = collapsed(read.each("loadBalancerSourceRanges", spec.source_ranges, _range))
    balanced = read.each("status.loadBalancer.ingress", _virtual(found.status), _usable)
    if spec.source_ranges and not ranges:
        balanced = ()  # whom to let in is not known: nobody
    is_local = spec.external_policy == TrafficPolicy.LOCAL
    return Translated(
        Service(
            name=ServiceName(intern(found.metadata.namespace), intern(found.metadata.name)),
            ports=tuple(_ports(spec.ports or (), read)),
            cluster_ips=read.each("clusterIPs", cluster_ips, _usable),
            external_ips=read.each("externalIPs", spec.external_ips, _usable),
            load_balancer_ips=balanced,
            source_ranges=ranges,
            internal_policy=_policy(spec.internal_policy),
            external_policy=_policy(spec.external_policy),
            affinity_s=_affinity(spec),
            health_check_node_port=spec.health_check_node_port if is_local else 0,
            created=found.metadata.creation_timestamp,
            is_assigned=any(
                one.type == ASSIGNED and one.status == "True"
                for one in found.status.conditions or ()
            ),
        ),
        tuple(read.troubles),
    )


def slice_(found: objects.EndpointSlice) -> Slice | None:
    """The slice; None where it belongs to no Service of ours, or names hosts (FQDN)."""
    labels = found.metadata.labels or {}
    name = labels.get(objects.SERVICE_NAME, "")
    version = _VERSIONS.get(found.address_type)
    if not name or not version or objects.PROXY_NAME in labels or objects.HEADLESS in labels:
        return None
    read = _Reader()
    members = [(each, _address(each, version, read)) for each in found.endpoints or ()]
    endpoints: Endpoints = {}
    for port in found.ports or ():
        protocol = _protocol(port.protocol or "TCP", read)
        if protocol is None or port.port is None:
            continue
        number = port.port
        endpoints[intern(port.name or ""), protocol] = tuple(
            _endpoint(each, address, number) for each, address in members if address is not None
        )
    return Slice(
        ServiceName(intern(found.metadata.namespace), intern(name)),
        endpoints,
        tuple(read.troubles),
        (found.metadata.annotations or {}).get(objects.TRIGGERED, ""),
    )


def gather(
    slices: Sequence[Slice], of: Service, service_cidrs: Sequence[IPNetwork]
) -> tuple[Endpoints, tuple[str, ...]]:
    """All endpoints of a Service, and what is wrong with some.

    One that is a Service's address again would send packets in a circle.
    """
    merged = slices[0].endpoints if slices else {}
    if len(slices) > 1:
        merged = dict(merged)
    for each in slices[1:]:
        for port, members in each.endpoints.items():
            merged[port] = (*merged[port], *members) if port in merged else members
    own = {*of.cluster_ips, *of.external_ips, *of.load_balancer_ips}
    bad = {
        member.address
        for members in merged.values()
        for member in members
        if member.address in own or any(member.address in cidr for cidr in service_cidrs)
    }
    if bad:
        merged = {
            port: tuple(each for each in members if each.address not in bad)
            for port, members in merged.items()
        }
    troubles = [f"endpoint {each}: is an address of Services" for each in sorted(bad, key=str)]
    troubles += [trouble for each in slices for trouble in each.troubles]
    return merged, tuple(troubles)


def answers(endpoints: Endpoints) -> bool:
    """Whether anybody would be sent anywhere."""
    return any(
        each.is_ready or (each.is_serving and each.is_terminating)
        for members in endpoints.values()
        for each in members
    )


def cidrs(found: Iterable[objects.ServiceCIDR]) -> tuple[IPNetwork, ...]:
    """The ranges of all of them; what cannot be read is no range."""
    read = _Reader()
    return tuple(
        sorted(
            {
                network
                for each in found
                for network in read.each("cidrs", each.spec.cidrs, ip_network)
            },
            key=lambda each: (each.version, each),
        )
    )


def _ports(ports: Iterable[objects.ServicePort], read: _Reader) -> Iterable[ServicePort]:
    for port in ports:
        if (protocol := _protocol(port.protocol, read)) is not None:
            yield ServicePort(
                name=intern(port.name), protocol=protocol, port=port.port, node_port=port.node_port
            )


_PROTOCOLS: Mapping[str, Protocol] = {each.upper(): each for each in Protocol}


def _protocol(text: str, read: _Reader) -> Protocol | None:
    found = _PROTOCOLS.get(text)
    if found is None:
        read.troubles.append(f"protocol {text!r}: must be one of {', '.join(_PROTOCOLS)}")
    return found


def _virtual(status: ServiceStatus) -> list[str]:
    """Addresses that are ours to answer: in mode Proxy packets come to a NodePort instead."""
    return [
        each.ip
        for each in status.load_balancer.ingress or ()
        if each.ip and each.ip_mode in (None, "VIP")
    ]


def _policy(text: str | None) -> TrafficPolicy:
    return TrafficPolicy.LOCAL if text == TrafficPolicy.LOCAL else TrafficPolicy.CLUSTER


def _affinity(spec: objects.ServiceSpec) -> int:
    if spec.affinity != "ClientIP":
        return 0
    config = spec.affinity_config.client_ip if spec.affinity_config else None
    return (config.timeout_seconds if config else None) or DEFAULT_AFFINITY_S


def _range(text: str) -> IPNetwork:
    return ip_network(text.strip(), strict=False)


def _usable(text: str) -> IPAddress:
    """Raises ValueError for what no packet can be sent to."""
    address = ip_address(text)
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise ValueError("is no address of a host")
    return address


def _address(found: objects.Endpoint, version: int, read: _Reader) -> IPAddress | None:
    """The first: others are the same endpoint by another name."""
    if not found.addresses:
        return None
    text = found.addresses[0]
    try:
        address = _usable(text)
        if address.version != version or address.is_link_local:
            raise ValueError(f"is no IPv{version} address beyond a link")
    except ValueError as exc:
        read.troubles.append(f"endpoint {text!r}: {exc}")
        return None
    return address


def _endpoint(found: objects.Endpoint, address: IPAddress, port: int) -> Endpoint:
    hints, conditions, target = found.hints, found.conditions, found.target_ref
    return Endpoint(
        address=address,
        port=port,
        node=intern(found.node_name or ""),
        is_ready=conditions.ready is not False,
        is_serving=conditions.serving is not False,
        is_terminating=conditions.terminating is True,
        zone_hints=_names(hints.for_zones) if hints else _NOBODY,
        node_hints=_names(hints.for_nodes) if hints else _NOBODY,
        pod=target.name if target and target.kind == "Pod" else "",
    )


def _names(meant: tuple[objects.Meant, ...] | None) -> frozenset[str]:
    return _shared(tuple(each.name for each in meant)) if meant else _NOBODY


@lru_cache(maxsize=4096)
def _shared(names: tuple[str, ...]) -> frozenset[str]:
    """Thousands of endpoints have the same hints."""
    return frozenset(names)
