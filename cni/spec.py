"""What one attachment was made to be, kept with its lease: the data plane can be made anew from it.

A Spec is a function of configuration and leases alone.  As JSON it has only what differs from
the default, since it is written on the path of every ADD.
"""

import json
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from cni.args import Pod
from cni.capabilities import PortMapping, Protocol
from cni.link_config import Mode
from cni.result import IPConfig
from dataplane.model import Bandwidth, BridgePort, Route
from ipam.leases import Attachment, Record
from net.address import IPNetwork

_PLAIN_PORT = BridgePort()
_NO_POD = Pod()
_FLAGS = ("masquerade", "mac_spoof_check", "dad", "former")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """A foreign IPAM plugin to be asked when the attachment ends: type, input, arguments, path."""

    kind: str
    stdin: str
    args: str = ""
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSpec:
    """The shared bridge as this attachment needs it; *gateway* puts our gateways on it.

    *shared*: those of other blocks of the node may be on it too.
    """

    name: str
    gateway: bool = True
    force_address: bool = False
    promiscuous: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One attachment: *ips* with their subnet's prefix, *subnets* those that are not masqueraded.

    *bridge* None is routed mode.  *link* False is an address given to another plugin's
    interface: then nothing but *ips* and *pod* says anything.  *former*: nor was it given by us.
    """

    link: bool = True
    bridge: BridgeSpec | None = None
    port: BridgePort = _PLAIN_PORT
    mtu: int = 0
    pod_mac: str = ""
    ips: tuple[IPConfig, ...] = ()
    subnets: tuple[IPNetwork, ...] = ()
    routes: tuple[Route, ...] = ()
    masquerade: bool = False
    port_mappings: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth | None = None
    mac_spoof_check: bool = False
    dad: bool = False
    former: bool = False
    enabled: bool = True
    pod: Pod = _NO_POD
    delegate: Delegate | None = None

    @property
    def mode(self) -> Mode:
        return Mode.BRIDGE if self.bridge else Mode.ROUTED


def encode(spec: Spec) -> str:
    """The JSON that `decode` reads."""
    document: dict[str, Any] = {
        "link": spec.link,
        "mtu": spec.mtu,
        "mac": spec.pod_mac,
        "ips": [[str(ip.address), str(ip.gateway or "")] for ip in spec.ips],
        "subnets": [str(subnet) for subnet in spec.subnets],
        "routes": [_encode_route(route) for route in spec.routes],
        "enabled": spec.enabled,
    }
    document |= {flag: True for flag in _FLAGS if getattr(spec, flag)}
    if spec.port_mappings:
        document["ports"] = [
            [m.host_port, m.container_port, m.protocol, str(m.host_ip or "")]
            for m in spec.port_mappings
        ]
    parts: tuple[tuple[str, Any, Any], ...] = (
        ("bridge", spec.bridge, None),
        ("port", spec.port, _PLAIN_PORT),
        ("bandwidth", spec.bandwidth, None),
        ("pod", spec.pod, _NO_POD),
        ("delegate", spec.delegate, None),
    )
    document |= {key: _row(value) for key, value, usual in parts if value != usual}
    return json.dumps(document, separators=(",", ":"))


def of(record: Record) -> Spec:
    """The spec of *record*; where it cannot be read, that of an address and nothing else.

    Then nothing is mended and nothing taken apart on its word, and the address stays with its
    owner until the DEL, or the end of the namespace.
    """
    try:
        return decode(record.spec)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        ips = tuple(IPConfig(address=address) for address in record.addresses)
        return Spec(link=False, ips=ips)


def link_name(spec: Spec) -> str | None:
    """The bridge that the addresses are on, "" in routed mode; None: on no link of ours."""
    if not spec.link:
        return None
    return spec.bridge.name if spec.bridge else ""


def pod_name(pod: Pod) -> str:
    """As people and Kubernetes write it: namespace/name; "" where there is none."""
    return f"{pod.namespace}/{pod.name}" if pod.name else ""


def pod_key(who: Attachment, pod: Pod) -> str:
    """Under which name a pod gets its former address again; "" where it has none."""
    return f"{who.network}/{pod_name(pod)}/{who.ifname}" if pod.name else ""


def decode(text: str) -> Spec:
    """Read what `encode` wrote.  Raises ValueError, KeyError or TypeError for anything else."""
    document = json.loads(text)
    bridge, port, bandwidth = (document.get(key) for key in ("bridge", "port", "bandwidth"))
    delegate = document.get("delegate")
    return Spec(
        link=document.get("link", True),
        bridge=bridge
        and BridgeSpec(
            name=bridge[0],
            gateway=bridge[1],
            force_address=bridge[2],
            promiscuous=bridge[3],
            shared=bridge[4:5] == [True],  # records from before blocks have four
        ),
        port=_decode_port(port) if port else _PLAIN_PORT,
        mtu=document.get("mtu", 0),
        pod_mac=document.get("mac", ""),
        ips=tuple(
            IPConfig(address=ip_interface(a), gateway=ip_address(g) if g else None)
            for a, g in document.get("ips", ())
        ),
        subnets=tuple(ip_network(subnet) for subnet in document.get("subnets", ())),
        routes=tuple(_decode_route(route) for route in document.get("routes", ())),
        masquerade=document.get("masquerade", False),
        port_mappings=tuple(_decode_mapping(m) for m in document.get("ports", ())),
        bandwidth=bandwidth
        and Bandwidth(
            ingress_rate=bandwidth[0],
            ingress_burst=bandwidth[1],
            egress_rate=bandwidth[2],
            egress_burst=bandwidth[3],
        ),
        mac_spoof_check=document.get("mac_spoof_check", False),
        dad=document.get("dad", False),
        former=document.get("former", False),
        enabled=document.get("enabled", True),
        pod=_decode_pod(document.get("pod")),
        delegate=delegate
        and Delegate(
            kind=delegate[0], stdin=delegate[1], args=delegate[2], path=tuple(delegate[3])
        ),
    )


def _row(value: Any) -> list[Any]:
    """The fields in order, as they are: astuple copies deeply, at ten times the cost."""
    return [getattr(value, name) for name in value.__slots__]


def _encode_route(route: Route) -> list[Any]:
    return [
        str(route.dst),
        str(route.via or ""),
        route.on_link,
        route.mtu,
        route.advmss,
        route.priority,
        route.table,
        route.scope,
    ]


def _decode_route(row: list[Any]) -> Route:
    return Route(
        dst=ip_network(row[0]),
        via=ip_address(row[1]) if row[1] else None,
        on_link=row[2],
        mtu=row[3],
        advmss=row[4],
        priority=row[5],
        table=row[6],
        scope=row[7],
    )


def _decode_port(row: list[Any]) -> BridgePort:
    return BridgePort(
        hairpin=row[0],
        isolated=row[1],
        vlan=row[2],
        trunk=tuple((low, high) for low, high in row[3]),
        preserve_default_vlan=row[4],
    )


def _decode_mapping(row: list[Any]) -> PortMapping:
    return PortMapping(
        host_port=row[0],
        container_port=row[1],
        protocol=Protocol(row[2]),
        host_ip=ip_address(row[3]) if row[3] else None,
    )


def _decode_pod(row: list[str] | None) -> Pod:
    if not row:
        return _NO_POD
    return Pod(namespace=row[0], name=row[1], uid=row[2], infra_container_id=row[3])
