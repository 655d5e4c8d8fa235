"""What an ADD made: one value, and its spelling in every protocol version.

    0.1.0, 0.2.0          ip4{ip, gateway, routes} and ip6{…}: one address of each family
    0.3.0, 0.3.1, 0.4.0   interfaces[], ips[] with "version": "4" or "6", routes[], dns always
    1.0.0                 the same without ips[].version; dns only when it says something
    1.1.0                 and interfaces[].{mtu, socketPath, pciID}, routes[].{mtu, advmss,
                          priority, table, scope}

What a version cannot express is left out on the way down (SPEC.md, "Result types").
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cni.document import Section
from cni.errors import CNIError, ErrorCode
from cni.versions import SUPPORTED, at_least
from dataplane.model import Route
from net.address import IPAddress, IPInterface

_MAX_U32 = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DNS:
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != _NO_DNS


_NO_DNS = DNS()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """*sandbox* is CNI_NETNS verbatim for the pod side, empty for the host side."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IPConfig:
    """*interface* is an index into the result's interfaces; 0 is one, None says nothing."""

    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Without interfaces it is what an IPAM plugin answers (SPEC.md, "Delegated plugins")."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = _NO_DNS

    def extended(self, more: "Result") -> "Result":
        """*more* after what is here, as a chained plugin adds to prevResult.

        The interface indices of *more* move along; its dns, if any, replaces ours.
        """
        offset = len(self.interfaces)
        moved = (
            ip if ip.interface is None else replace(ip, interface=ip.interface + offset)
            for ip in more.ips
        )
        return Result(
            interfaces=self.interfaces + more.interfaces,
            ips=(*self.ips, *moved),
            routes=self.routes + more.routes,
            dns=more.dns or self.dns,
        )


def encode(result: Result, version: str) -> bytes:
    """The document for standard output."""
    return json.dumps(render(result, version), separators=(",", ":")).encode()


def render(result: Result, version: str) -> dict[str, Any]:
    """Spell *result* in *version*, which is a supported one.

    A result without any address has no 0.1.0 or 0.2.0 form: CNIError 7.
    """
    if not at_least(version, "0.3.0"):
        return _render_by_family(result, version)
    document: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        document["interfaces"] = [_render_interface(link, version) for link in result.interfaces]
    if result.ips:
        document["ips"] = [_render_ip(ip, version) for ip in result.ips]
    if result.routes:
        document["routes"] = [_render_route(route, version) for route in result.routes]
    if result.dns or not at_least(version, "1.0.0"):
        document["dns"] = render_dns(result.dns)
    return document


def render_dns(dns: DNS) -> dict[str, Any]:
    return _filled(
        nameservers=list(dns.nameservers),
        domain=dns.domain,
        search=list(dns.search),
        options=list(dns.options),
    )


def _render_by_family(result: Result, version: str) -> dict[str, Any]:
    document: dict[str, Any] = {"cniVersion": version}
    for family in (4, 6):
        first = next((ip for ip in result.ips if ip.address.version == family), None)
        if first is None:
            continue
        routes = [
            _render_route(route, version) for route in result.routes if route.dst.version == family
        ]
        document[f"ip{family}"] = {
            "ip": str(first.address),
            **_filled(gateway=str(first.gateway or ""), routes=routes),
        }
    if len(document) == 1:
        raise CNIError(ErrorCode.INVALID_CONFIG, "cannot convert: no valid IP addresses")
    document["dns"] = render_dns(result.dns)
    return document


def _render_interface(link: Interface, version: str) -> dict[str, Any]:
    document = {"name": link.name, **_filled(mac=link.mac, sandbox=link.sandbox)}
    if at_least(version, "1.1.0"):
        document |= _filled(mtu=link.mtu, socketPath=link.socket_path, pciID=link.pci_id)
    return document


def _render_ip(ip: IPConfig, version: str) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if not at_least(version, "1.0.0"):
        document["version"] = str(ip.address.version)
    if ip.interface is not None:
        document["interface"] = ip.interface
    document["address"] = str(ip.address)
    if ip.gateway is not None:
        document["gateway"] = str(ip.gateway)
    return document


def _render_route(route: Route, version: str) -> dict[str, Any]:
    document = {"dst": str(route.dst), **_filled(gw=str(route.via or ""))}
    if at_least(version, "1.1.0"):
        document |= _filled(
            mtu=route.mtu, advmss=route.advmss, priority=route.priority, table=route.table
        )
        if route.scope is not None:  # 0 is a scope: the whole universe
            document["scope"] = route.scope
    return document


def _filled(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def parse(document: Section, version: str) -> Result:
    """Read a result of any version; *version* holds where it does not say its own.

    Raises CNIError with the section's code for an unknown version, for anything malformed, and
    for an interface index out of range.
    """
    version = document.text("cniVersion") or version
    if version not in SUPPORTED:
        document.refuse("cniVersion", f"one of {', '.join(SUPPORTED)}")
    dns = parse_dns(document.section("dns"))
    if not at_least(version, "0.3.0"):
        return _parse_by_family(document, dns)
    interfaces = tuple(_parse_interface(link) for link in document.sections("interfaces"))
    return Result(
        interfaces=interfaces,
        ips=tuple(_parse_ip(ip, len(interfaces)) for ip in document.sections("ips")),
        routes=parse_routes(document.sections("routes")),
        dns=dns,
    )


def parse_dns(document: Section) -> DNS:
    return DNS(
        nameservers=document.texts("nameservers"),
        domain=document.text("domain"),
        search=document.texts("search"),
        options=document.texts("options"),
    )


def parse_routes(documents: Iterable[Section]) -> tuple[Route, ...]:
    """Routes of a result or of a configuration, whose keys are those of 1.1.0 in any version."""
    return tuple(_parse_route(document) for document in documents)


def _parse_by_family(document: Section, dns: DNS) -> Result:
    halves = [document.section(key) for key in ("ip4", "ip6")]
    halves = [half for half in halves if half]
    return Result(
        ips=tuple(
            IPConfig(address=half.interface("ip"), gateway=half.address("gateway"))
            for half in halves
        ),
        routes=tuple(route for half in halves for route in parse_routes(half.sections("routes"))),
        dns=dns,
    )


def _parse_interface(document: Section) -> Interface:
    return Interface(
        name=document.text("name"),
        mac=document.text("mac"),
        mtu=document.number("mtu", 0, _MAX_U32),
        sandbox=document.text("sandbox"),
        socket_path=document.text("socketPath"),
        pci_id=document.text("pciID"),
    )


def _parse_ip(document: Section, interfaces: int) -> IPConfig:
    index = document.raw("interface")
    if index is not None and (type(index) is not int or not 0 <= index < interfaces):
        document.refuse("interface", f"an index into the result's {interfaces} interfaces")
    return IPConfig(
        address=document.interface("address"),
        gateway=document.address("gateway"),
        interface=index,
    )


def _parse_route(document: Section) -> Route:
    dst = document.network("dst")
    if dst is None:
        document.refuse("dst", "a network such as 0.0.0.0/0")
    via = document.address("gw")
    if via is not None and via.version != dst.version:
        document.refuse("gw", f"an address of the family of {dst}")
    scope = document.raw("scope")
    return Route(
        dst=dst,
        via=via,
        mtu=document.number("mtu", 0, _MAX_U32),
        advmss=document.number("advmss", 0, _MAX_U32),
        priority=document.number("priority", 0, _MAX_U32),
        table=document.number("table", 0, _MAX_U32),
        scope=None if scope is None else document.number("scope", 0, 255),
    )
