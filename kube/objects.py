"""What we read of Kubernetes' objects: a few fields each; the rest is not even decoded.

A field that may be absent has a default.  Null is taken for absent where Go may write it.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

Kind = TypeVar("Kind")


class Meta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """ObjectMeta; *namespace* "" where the kind has none."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None


class Object(msgspec.Struct, frozen=True, rename="camel"):
    """Any object, by its metadata alone: enough of a Namespace."""

    metadata: Meta = Meta()


class Taint(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    key: str
    effect: str = ""
    value: str = ""
    time_added: str = ""


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""


class NodeSpec(msgspec.Struct, frozen=True, rename={"pod_cidrs": "podCIDRs"}):
    pod_cidrs: tuple[str, ...] | None = None
    taints: tuple[Taint, ...] | None = None


class NodeAddress(msgspec.Struct, frozen=True):
    type: str
    address: str


class NodeStatus(msgspec.Struct, frozen=True):
    conditions: tuple[Condition, ...] | None = None
    addresses: tuple[NodeAddress, ...] | None = None


class Node(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    host_network: bool = False


class PodIP(msgspec.Struct, frozen=True):
    ip: str = ""


class PodStatus(msgspec.Struct, frozen=True, rename={"pod_ips": "podIPs"}):
    phase: str = ""
    pod_ips: tuple[PodIP, ...] | None = None


class Pod(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class EndpointConditions(msgspec.Struct, frozen=True):
    """*ready* None is true for whoever knows nothing better (discovery.k8s.io/v1)."""

    ready: bool | None = None


class Endpoint(msgspec.Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()


class EndpointPort(msgspec.Struct, frozen=True):
    name: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None


LOAD_BALANCER = "LoadBalancer"

ASSIGNED = "isthmus.dev/AddressAssigned"
"""The condition by which everybody knows that the addresses in a Service's status are ours."""


class ServicePort(msgspec.Struct, frozen=True):
    port: int
    protocol: str = "TCP"


class ServiceSpec(
    msgspec.Struct,
    frozen=True,
    rename={
        "load_balancer_class": "loadBalancerClass",
        "load_balancer_ip": "loadBalancerIP",
        "ip_families": "ipFamilies",
        "ip_family_policy": "ipFamilyPolicy",
        "external_policy": "externalTrafficPolicy",
    },
):
    type: str = "ClusterIP"
    ports: tuple[ServicePort, ...] | None = None
    selector: Mapping[str, str] | None = None
    load_balancer_class: str | None = None
    load_balancer_ip: str = ""
    ip_families: tuple[str, ...] | None = None
    ip_family_policy: str | None = None
    external_policy: str = ""


class Ingress(msgspec.Struct, frozen=True, rename="camel"):
    """*ip_mode* None is VIP (KEP-1860)."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(msgspec.Struct, frozen=True):
    ingress: tuple[Ingress, ...] | None = None


class ServiceStatus(msgspec.Struct, frozen=True, rename="camel"):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] | None = None


class Service(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def shown(self) -> tuple[str, ...]:
        """The addresses that its status shows."""
        return tuple(each.ip for each in self.status.load_balancer.ingress or () if each.ip)

    @property
    def is_virtual(self) -> bool:
        """Whether all of them are to be translated by nodes, and there is no name."""
        ingress = self.status.load_balancer.ingress or ()
        return all(each.ip and each.ip_mode == "VIP" for each in ingress)


class UserInfo(msgspec.Struct, frozen=True):
    username: str = ""
    extra: Mapping[str, tuple[str, ...]] | None = None


class TokenStatus(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: UserInfo = UserInfo()
    audiences: tuple[str, ...] | None = None
    error: str = ""


class TokenReview(msgspec.Struct, frozen=True):
    status: TokenStatus = TokenStatus()


class ListMeta(
    msgspec.Struct, frozen=True, rename={"go_on": "continue", "version": "resourceVersion"}
):
    """*go_on* asks for the next page, "" after the last."""

    version: str = ""
    go_on: str = ""


class Page(msgspec.Struct, Generic[Kind], frozen=True):
    metadata: ListMeta = ListMeta()
    items: tuple[Kind, ...] | None = None


class Status(msgspec.Struct, frozen=True):
    """How the server says no."""

    code: int = 0
    reason: str = ""
    message: str = ""


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch; what *object* is, *type* says."""

    type: str
    object: msgspec.Raw
