"""The links, addresses and routes one sandbox should have.  Pure.

    bridge mode                               routed mode

    pod  eth0 10.88.0.5/16                    pod  eth0 10.88.0.5/32
           │  default via 10.88.0.1                  │  default via 169.254.1.1, fe80::1
    host isth3f9c… ── cni0 10.88.0.1/16       host isth3f9c…  169.254.1.1/32, fe80::1/64
                                                     ▲  10.88.0.5 dev isth3f9c… (proto 176)

In routed mode every host side carries the same two gateways, so a pod's routes do not depend
on its node's blocks; they are of host scope, so that the host never chooses one as a source.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import Any

from cni.capabilities import PortMapping, Protocol
from cni.config import NetConf
from cni.errors import CNIError, ErrorCode
from cni.link_config import HOST_NAME, HOST_PREFIX, Mode
from cni.nat import Published
from cni.result import DNS, Interface, IPConfig, Result
from cni.spec import BridgeSpec, Delegate, Spec, encode
from dataplane.model import Bandwidth, Bridge, BridgePort, Route, Sandbox, Veth
from ipam.leases import Attachment, Lease, Record, State
from net.address import IPAddress, IPInterface, IPNetwork

_MAX_ALIAS = 255  # IFALIASZ without its NUL
_ALIAS = "isthmus/1"
_DIGESTED = "#"  # no network has such a name
_DIGEST_LENGTH = 24
_GATEWAY4 = IPv4Interface("169.254.1.1/32")
_GATEWAY6 = IPv6Interface("fe80::1/64")
_DEFAULTS = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


def host_name(who: Attachment) -> str:
    """The host side's name: found from the key alone, so that DEL needs no namespace."""
    return HOST_PREFIX + _key_digest(who)[:11]


def is_host_name(name: str) -> bool:
    """Whether `host_name` may have made *name*: others may start as ours do."""
    return bool(HOST_NAME.fullmatch(name))


def design(
    who: Attachment,
    conf: NetConf,
    given: Result,
    *,
    uplink_mtu: int = 0,
    delegate: Delegate | None = None,
) -> Spec:
    """What *conf* makes of *given*, the IPAM's addresses and routes."""
    ips = tuple(_with_gateway(ip, conf) for ip in given.ips)
    link = conf.link
    return Spec(
        bridge=_bridge_spec(conf) if link.mode is Mode.BRIDGE else None,
        port=_port(conf),
        mtu=link.mtu or uplink_mtu,
        pod_mac=conf.requested.mac or _pod_mac(who, ips),
        ips=ips,
        subnets=tuple(dict.fromkeys(ip.address.network for ip in ips)),
        routes=_routes(conf, ips, given.routes),
        masquerade=link.ip_masq,
        port_mappings=conf.port_mappings,
        bandwidth=conf.bandwidth,
        mac_spoof_check=link.mac_spoof_check,
        dad=link.dad,
        enabled=link.enabled,
        pod=conf.requested.pod,
        delegate=delegate,
    )


def plan(who: Attachment, spec: Spec, *, started_ns: int, seed: str = "") -> Sandbox:
    """The kernel objects of *spec*; *seed* makes the bridge's MAC this host's own."""
    name = host_name(who)
    veth = Veth(
        host_name=name,
        host_mac=_host_mac(name),
        pod_name=who.ifname,
        pod_mac=spec.pod_mac,
        mtu=spec.mtu,
        alias=alias(who, spec, started_ns=started_ns),
    )
    addresses = _pod_addresses(spec)
    if spec.bridge:
        return Sandbox(
            veth=veth,
            bridge=bridge(spec, seed=seed),
            port=spec.port,
            addresses=addresses,
            pod_routes=spec.routes,
            dad=spec.dad,
            enabled=spec.enabled,
        )
    families = {address.version for address in addresses}
    return Sandbox(
        veth=veth,
        addresses=addresses,
        pod_routes=(*_link_routes(families), *spec.routes),
        host_addresses=tuple(g for g in (_GATEWAY4, _GATEWAY6) if g.version in families),
        host_routes=tuple(ip_network(address.ip) for address in addresses),
        dad=spec.dad,
        enabled=spec.enabled,
    )


def bridge(spec: Spec, *, seed: str = "") -> Bridge | None:
    """The shared bridge as *spec* needs it, or None in routed mode."""
    wanted = spec.bridge
    if wanted is None:
        return None
    gateways = {
        _on_subnet(ip.gateway, ip.address.network.prefixlen)
        for ip in spec.ips
        if ip.gateway and wanted.gateway
    }
    return Bridge(
        name=wanted.name,
        mac=_mac(f"bridge\0{seed}\0{wanted.name}"),
        mtu=spec.mtu,
        addresses=tuple(sorted(gateways, key=lambda address: (address.version, int(address.ip)))),
        force_address=wanted.force_address,
        promiscuous=wanted.promiscuous,
        shared=wanted.shared,
        vlan_filtering=bool(spec.port.vlan or spec.port.trunk),
    )


def published(record: Record, spec: Spec, pools: Collection[IPNetwork] = ()) -> Published:
    """What the attachment needs of nftables.

    *pools* are the cluster's: whoever has an address of one keeps it towards all of them, since
    they are all one network.
    """
    ours = any(ip.address.ip in pool for ip in spec.ips for pool in pools)
    return Published(
        who=record.who,
        started_ns=record.started_ns,
        addresses=tuple(ip.address for ip in spec.ips),
        subnets=(*spec.subnets, *pools) if ours else spec.subnets,
        masquerade=spec.masquerade,
        routed=spec.bridge is None,
        port_mappings=spec.port_mappings,
        host_name=host_name(record.who),
        pod_mac=spec.pod_mac,
        mac_spoof_check=spec.mac_spoof_check,
    )


def result(who: Attachment, spec: Spec, *, sandbox: str, bridge_mac: str, dns: DNS) -> Result:
    """What ADD answers: every interface made, the pod side last (SPEC.md, "ADD Success")."""
    mtu, name = spec.mtu, host_name(who)
    interfaces = [
        Interface(name=name, mac=_host_mac(name), mtu=mtu),
        Interface(name=who.ifname, mac=spec.pod_mac, mtu=mtu, sandbox=sandbox),
    ]
    if spec.bridge:
        interfaces.insert(0, Interface(name=spec.bridge.name, mac=bridge_mac, mtu=mtu))
    pod_side = len(interfaces) - 1
    return Result(
        interfaces=tuple(interfaces),
        ips=tuple(
            IPConfig(address=address, gateway=ip.gateway, interface=pod_side)
            for address, ip in zip(_pod_addresses(spec), spec.ips, strict=True)
        ),
        routes=spec.routes,
        dns=dns,
    )


def ipam_result(leases: Iterable[Lease], routes: tuple[Route, ...], dns: DNS) -> Result:
    """What an IPAM plugin answers: no interfaces, no indices (SPEC.md, section 4)."""
    ips = tuple(IPConfig(address=lease.address, gateway=lease.gateway) for lease in leases)
    return Result(ips=ips, routes=routes, dns=dns)


def alias(who: Attachment, spec: Spec, *, started_ns: int) -> str:
    """All that is needed to rebuild the record from the link, in IFLA_IFALIAS's 255 bytes.

    A key too long for it is replaced by its digest: enough to keep the addresses from others
    until the owner's DEL.  Rates and port mappings that do not fit are left out; more addresses
    than fit are CNIError 7.
    """
    addresses = ",".join(str(ip.address) for ip in spec.ips) or "-"
    ports = ",".join(_port_text(mapping) for mapping in spec.port_mappings)
    flags, rates = _alias_flags(spec), _rates_text(spec.bandwidth)
    key = f"{who.network} {who.container_id} {who.ifname}"
    digest = f"{_DIGESTED} {_key_digest(who)[:_DIGEST_LENGTH]} {_DIGESTED}"
    for rest in (
        f"{key} {addresses} {ports}".rstrip(),
        f"{key} {addresses}",
        f"{digest} {addresses}",
    ):
        for short in (f"{flags}:{rates}".rstrip(":"), flags.rstrip(":")):
            text = f"{_ALIAS} {short} {started_ns} {rest}"
            if len(text.encode()) <= _MAX_ALIAS:
                return text
    raise CNIError(
        ErrorCode.INVALID_CONFIG,
        f"{len(spec.ips)} addresses are too many for one interface",
        f"a link's alias, of {_MAX_ALIAS} bytes, has no room for {addresses}",
    )


def _alias_flags(spec: Spec) -> str:
    """Mode and options as letters, the bridge, and the MAC where no other is let through."""
    options = {
        "m": spec.masquerade,
        "h": spec.port.hairpin,
        "i": spec.port.isolated,
        "s": spec.mac_spoof_check,
    }
    letters = ("b" if spec.bridge else "r") + "".join(each for each in options if options[each])
    bridge_name = spec.bridge.name if spec.bridge else ""
    mac = spec.pod_mac.replace(":", "") if spec.mac_spoof_check else ""
    return f"{letters}:{bridge_name}:{mac}"


def record_of_alias(text: str, *, boot_id: str) -> Record | None:
    """The record that *text*, a link's alias, stands for; None if it is not one of ours."""
    parts = text.split(" ")
    if len(parts) not in (7, 8) or parts[0] != _ALIAS:
        return None
    _, flags, started, *key, addresses = parts[:7]
    letters, bridge_name, mac, rates = (*flags.split(":"), "", "", "")[:4]
    try:
        interfaces = [ip_interface(a) for a in addresses.split(",") if a != "-"]
        mappings = tuple(_parse_port(p) for p in parts[7].split(",")) if len(parts) == 8 else ()
        started_ns = int(started)
        bandwidth = _parse_rates(rates)
    except ValueError:
        return None
    spec = Spec(
        bridge=BridgeSpec(name=bridge_name) if bridge_name else None,
        port=BridgePort(hairpin="h" in letters, isolated="i" in letters),
        pod_mac=":".join(mac[i : i + 2] for i in range(0, len(mac), 2)),
        mac_spoof_check="s" in letters,
        ips=tuple(IPConfig(address=address) for address in interfaces),
        subnets=tuple(dict.fromkeys(address.network for address in interfaces)),
        masquerade="m" in letters,
        port_mappings=mappings,
        bandwidth=bandwidth,
    )
    return Record(
        who=Attachment(*key),
        boot_id=boot_id,
        started_ns=started_ns,
        sandbox="",
        netns_cookie=0,
        state=State.HELD,
        addresses=tuple(interfaces),
        spec=encode(spec),
    )


def _pod_addresses(spec: Spec) -> tuple[IPInterface, ...]:
    if spec.bridge:
        return tuple(ip.address for ip in spec.ips)
    return tuple(ip_interface(ip.address.ip) for ip in spec.ips)


@lru_cache(maxsize=64)
def _on_subnet(gateway: IPAddress, prefix: int) -> IPInterface:
    return ip_interface((gateway, prefix))


def _bridge_spec(conf: NetConf) -> BridgeSpec:
    link = conf.link
    return BridgeSpec(
        name=link.bridge,
        gateway=conf.is_gateway,
        force_address=link.force_address,
        promiscuous=link.promiscuous,
        shared=conf.ipam is not None and conf.ipam.from_blocks,
    )


def _port(conf: NetConf) -> BridgePort:
    """A pod that reaches itself through a port of the host needs hairpin too: with br_netfilter
    the translated frame is bridged back, not routed."""
    link = conf.link
    if link.mode is Mode.ROUTED:
        return BridgePort()
    return BridgePort(
        hairpin=link.hairpin or (bool(conf.port_mappings) and not link.promiscuous),
        isolated=link.isolated,
        vlan=link.vlan,
        trunk=link.vlan_trunk,
        preserve_default_vlan=link.preserve_default_vlan,
    )


def _with_gateway(ip: IPConfig, conf: NetConf) -> IPConfig:
    """The gateway a pod is told: IPAM's, else in routed mode the link's own or the first one.

    In routed mode ours is the link's too; a foreign plugin finds its own in prevResult again,
    which `static` insists on at CHECK.
    """
    gateway = ip.gateway
    if conf.link.mode is Mode.ROUTED and not (conf.delegate and gateway):
        gateway = _link_gateway(ip.address.version)
    elif gateway is None and conf.is_gateway:
        gateway = ip.address.network[1]
    return replace(ip, gateway=gateway, interface=None)


def _routes(
    conf: NetConf, ips: tuple[IPConfig, ...], routes: tuple[Route, ...]
) -> tuple[Route, ...]:
    """IPAM's routes, those without a gateway through the pod's own, and default routes.

    In routed mode there is no other gateway than the link's: what IPAM calls one is not there.
    """
    gateways = {ip.address.version: ip.gateway for ip in reversed(ips) if ip.gateway}
    if conf.link.mode is Mode.ROUTED:
        routes = tuple(
            replace(route, via=None) if route.via in gateways.values() else route
            for route in routes
        )
        gateways = {version: _link_gateway(version) for version in gateways}
    found = [route if route.via else _through(route, gateways) for route in routes]
    if conf.default_route:
        given = {route.dst for route in found}
        for default in _DEFAULTS:
            via = gateways.get(default.version)
            if via and default not in given:
                found.append(Route(dst=default, via=via))
    return tuple(dict.fromkeys(found))


def _through(route: Route, gateways: Mapping[Any, IPAddress]) -> Route:
    return replace(route, via=gateways.get(route.dst.version)) if route.scope is None else route


def _link_gateway(version: int) -> IPAddress:
    return _GATEWAY4.ip if version == 4 else _GATEWAY6.ip


def _link_routes(families: Collection[int]) -> list[Route]:
    """IPv4 has to be told that its gateway is on the link; IPv6's is link-local anyhow."""
    return [Route(dst=_GATEWAY4.network)] if 4 in families else []


def _port_text(mapping: PortMapping) -> str:
    host = f"/{mapping.host_ip}" if mapping.host_ip else ""
    return f"{mapping.protocol}/{mapping.host_port}/{mapping.container_port}{host}"


def _parse_port(text: str) -> PortMapping:
    protocol, host_port, container_port, *host = text.split("/")
    return PortMapping(
        host_port=int(host_port),
        container_port=int(container_port),
        protocol=Protocol(protocol),
        host_ip=ip_interface(host[0]).ip if host else None,
    )


def _rates_text(bandwidth: Bandwidth | None) -> str:
    """Rate and burst into the pod, then out of it, in hexadecimal; "" without limits."""
    if bandwidth is None:
        return ""
    numbers = (
        bandwidth.ingress_rate,
        bandwidth.ingress_burst,
        bandwidth.egress_rate,
        bandwidth.egress_burst,
    )
    return "/".join(f"{number:x}" for number in numbers)


def _parse_rates(text: str) -> Bandwidth | None:
    if not text:
        return None
    ingress_rate, ingress_burst, egress_rate, egress_burst = (
        int(number, 16) for number in text.split("/")
    )
    return Bandwidth(
        ingress_rate=ingress_rate,
        ingress_burst=ingress_burst,
        egress_rate=egress_rate,
        egress_burst=egress_burst,
    )


def _pod_mac(who: Attachment, ips: tuple[IPConfig, ...]) -> str:
    """From the address, so that whoever gets it next answers with the same MAC."""
    owner = str(ips[0].address.ip) if ips else f"{who.container_id}\0{who.ifname}"
    return _mac(f"pod\0{who.network}\0{owner}")


def _key_digest(who: Attachment) -> str:
    """The same for a key and for what stands for it in an alias that had no room for it."""
    if who.network == _DIGESTED:
        return who.container_id
    return _digest(f"{who.network}\0{who.container_id}\0{who.ifname}")


def _mac(text: str) -> str:
    """A locally administered unicast MAC: 02 and five bytes of a digest."""
    return "02:" + hashlib.sha256(text.encode()).digest()[:5].hex(":")


def _host_mac(name: str) -> str:
    return _mac(f"host\0{name}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
