"""Services and endpoints as far as a node has to know them.  Pure values.

Source of the meanings: the Kubernetes API (Service v1, EndpointSlice discovery.k8s.io/v1).
"""

from dataclasses import dataclass
from enum import StrEnum

from dataplane.nft.objects import Protocol
from net.address import IPAddress, IPNetwork


class TrafficPolicy(StrEnum):
    """CLUSTER: any endpoint; LOCAL: those on this node alone."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


@dataclass(frozen=True, slots=True, order=True)
class ServiceName:
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """One port of a Service; *name* "" where it has only one; *node_port* 0: none."""

    name: str
    protocol: Protocol
    port: int
    node_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Service that is to be translated: headless ones and ExternalName never get here.

    *external_ips* may be anybody's; *load_balancer_ips* are those of the status whose ipMode is
    VIP.  *affinity_s*: for how long a client keeps its endpoint, 0: not at all.  *created*: the
    older of two that claim one address and port has it.  *is_assigned*: the addresses of the status
    came from our pools, and nodes answer for them.
    """

    name: ServiceName
    ports: tuple[ServicePort, ...]
    cluster_ips: tuple[IPAddress, ...]
    external_ips: tuple[IPAddress, ...] = ()
    load_balancer_ips: tuple[IPAddress, ...] = ()
    source_ranges: tuple[IPNetwork, ...] = ()
    internal_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    affinity_s: int = 0
    health_check_node_port: int = 0
    created: str = ""
    is_assigned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Who answers for one port of a Service; *zone_hints*, *node_hints*: for whom it is meant.

    *port* is the endpoint's own.  *terminating*: it still answers what it is *serving*.  *pod*:
    its name, in the Service's namespace; "" where it is no pod.
    """

    address: IPAddress
    port: int
    node: str = ""
    is_ready: bool = True
    is_serving: bool = True
    is_terminating: bool = False
    zone_hints: frozenset[str] = frozenset()
    node_hints: frozenset[str] = frozenset()
    pod: str = ""


Endpoints = dict[tuple[str, Protocol], tuple[Endpoint, ...]]
"""Of one Service, by port name and protocol; of both families."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What of this node decides who gets which endpoint.

    *addresses* are those at which its NodePorts answer, as networks; *pods* the cluster's pod
    CIDRs, *service_cidrs* its ranges of cluster IPs.
    """

    name: str
    zone: str = ""
    addresses: tuple[IPNetwork, ...] = ()
    pods: tuple[IPNetwork, ...] = ()
    service_cidrs: tuple[IPNetwork, ...] = ()
