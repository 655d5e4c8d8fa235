"""What is read of Services, EndpointSlices and ServiceCIDRs; the rest is not even decoded.

A field that may be absent has a default; null is taken for absent.
"""

import msgspec

from kube.objects import Meta, ServiceStatus

SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
SERVICE_CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"

PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"
NOT_OURS = f"!{PROXY_NAME},!{HEADLESS}"
"""A label selector: whose Services another proxy has, and which nobody is to translate."""

SERVICE_NAME = "kubernetes.io/service-name"
TRIGGERED = "endpoints.kubernetes.io/last-change-trigger-time"


class ServiceMeta(Meta, frozen=True, rename="camel", gc=False):
    creation_timestamp: str = ""


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0


class ClientIPConfig(msgspec.Struct, frozen=True, rename="camel"):
    timeout_seconds: int | None = None


class AffinityConfig(msgspec.Struct, frozen=True, rename={"client_ip": "clientIP"}):
    client_ip: ClientIPConfig | None = None


_SPEC = {
    "cluster_ip": "clusterIP",
    "cluster_ips": "clusterIPs",
    "external_ips": "externalIPs",
    "affinity": "sessionAffinity",
    "affinity_config": "sessionAffinityConfig",
    "internal_policy": "internalTrafficPolicy",
    "external_policy": "externalTrafficPolicy",
    "source_ranges": "loadBalancerSourceRanges",
    "health_check_node_port": "healthCheckNodePort",
}


class ServiceSpec(msgspec.Struct, frozen=True, rename=_SPEC):
    type: str = "ClusterIP"
    ports: tuple[ServicePort, ...] | None = None
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] | None = None
    external_ips: tuple[str, ...] | None = None
    affinity: str = "None"
    affinity_config: AffinityConfig | None = None
    internal_policy: str | None = None
    external_policy: str = ""
    source_ranges: tuple[str, ...] | None = None
    health_check_node_port: int = 0


class Service(msgspec.Struct, frozen=True):
    metadata: ServiceMeta = ServiceMeta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Meant(msgspec.Struct, frozen=True):
    name: str = ""


class Hints(msgspec.Struct, frozen=True, rename="camel"):
    for_zones: tuple[Meant, ...] | None = None
    for_nodes: tuple[Meant, ...] | None = None


class Target(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    addresses: tuple[str, ...] = ()
    target_ref: Target | None = None
    conditions: Conditions = Conditions()
    node_name: str | None = None
    hints: Hints | None = None


class EndpointPort(msgspec.Struct, frozen=True):
    """*port* None: every port, which is nothing that can be translated to."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    metadata: Meta = Meta()
    address_type: str = ""
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None


class ServiceCIDRSpec(msgspec.Struct, frozen=True):
    cidrs: tuple[str, ...] | None = None


class ServiceCIDR(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: ServiceCIDRSpec = ServiceCIDRSpec()
