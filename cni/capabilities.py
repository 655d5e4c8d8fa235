"""What a runtime asks for on top of the configuration (CONVENTIONS.md, "Dynamic Plugin specific
Fields"): the values under runtimeConfig that we act on."""

import re
from dataclasses import dataclass
from enum import StrEnum

from cni.document import Section
from cni.errors import CNIError, ErrorCode
from cni.result import DNS
from dataplane.model import Bandwidth
from net.address import IPAddress

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}|[0-9a-f]{2}(-[0-9a-f]{2}){5}", re.IGNORECASE)
_MAX_U64 = (1 << 64) - 1
_UNSAID = (1 << 32) - 1  # the burst that containerd and CRI-O send with a rate: none was said
_BURST_S = 0.1
_LEAST_BURST = 2_000_000  # bits: some packets as large as hosts hand them over


class Protocol(StrEnum):
    """A transport that a port can be mapped for."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """*host_ip* None means every address of the host, of either family."""

    host_port: int
    container_port: int
    protocol: Protocol = Protocol.TCP
    host_ip: IPAddress | None = None


def parse_port_mappings(runtime: Section) -> tuple[PortMapping, ...]:
    """Those with a host port: one that is 0 or less asks for nothing, and is skipped."""
    wanted = (mapping for mapping in runtime.sections("portMappings") if _host_port(mapping) > 0)
    return tuple(dict.fromkeys(_port_mapping(mapping) for mapping in wanted))


def parse_bandwidth(document: Section) -> Bandwidth | None:
    """The four keys of the bandwidth convention, if any says something.

    As in the reference: a rate needs a burst and a burst a rate, and a burst must fit the
    kernel's 32 bits of bytes.  A runtime that knows only rates sends 4294967295, with which a rate
    of 10 Mbit/s would be none for minutes: then it is the usual burst.
    """
    for key in ("shapedSubnets", "unshapedSubnets"):
        if document.items(key):
            raise CNIError(
                ErrorCode.UNSUPPORTED_FIELD,
                f"unsupported {document.name(key)}: {', '.join(document.texts(key))}",
                "limits apply to all traffic of an interface",
            )
    ingress = _rate_and_burst(document, "ingress")
    egress = _rate_and_burst(document, "egress")
    if not ingress[0] and not egress[0]:
        return None
    return Bandwidth(
        ingress_rate=ingress[0],
        ingress_burst=ingress[1],
        egress_rate=egress[0],
        egress_burst=egress[1],
    )


def usual_burst(rate: int) -> int:
    """What may come at once: a tenth of a second's worth, by the kernel 4 GiB at most."""
    return min(max(int(rate * _BURST_S), _LEAST_BURST), 8 * ((1 << 32) - 2)) if rate else 0


def parse_aliases(runtime: Section, network: str) -> tuple[str, ...]:
    """A list of names, or podman's map of such lists by network name."""
    if isinstance(runtime.raw("aliases"), dict):
        return runtime.section("aliases").texts(network)
    return runtime.texts("aliases")


def parse_runtime_dns(runtime: Section) -> DNS | None:
    """The dns capability; None where it is absent or, as containerd sends it, says nothing."""
    dns = runtime.section("dns")
    found = DNS(
        nameservers=dns.texts("servers"),
        search=dns.texts("searches"),
        options=dns.texts("options"),
    )
    return found or None


def parse_mac(text: str) -> str | None:
    """Six bytes of a single station, in lower case with colons; None for anything else."""
    if not _MAC.fullmatch(text):
        return None
    mac = text.lower().replace("-", ":")
    is_group = int(mac[:2], 16) & 1
    return None if is_group or mac == "00:00:00:00:00:00" else mac


def _host_port(mapping: Section) -> int:
    port = mapping.raw("hostPort")
    if port is not None and (type(port) is not int or port > 65535):
        mapping.refuse("hostPort", "an integer from 1 to 65535, or 0 for none")
    return port or 0


def _port_mapping(document: Section) -> PortMapping:
    container_port = document.number("containerPort", 1, 65535)
    if not container_port:
        document.refuse("containerPort", "an integer from 1 to 65535")
    host_ip = document.address("hostIP")
    return PortMapping(
        host_port=document.number("hostPort", 1, 65535),
        container_port=container_port,
        protocol=_protocol(document),
        host_ip=None if host_ip is None or host_ip.is_unspecified else host_ip,
    )


def _protocol(document: Section) -> Protocol:
    try:
        return Protocol(document.text("protocol").lower() or Protocol.TCP)
    except ValueError:
        document.refuse("protocol", "tcp, udp or sctp")


def _rate_and_burst(document: Section, way: str) -> tuple[int, int]:
    rate_key, burst_key = f"{way}Rate", f"{way}Burst"
    rate = document.number(rate_key, 0, _MAX_U64)
    burst = document.number(burst_key, 0, _MAX_U64)
    if rate and not burst:
        document.refuse(burst_key, f"more than 0 bits, which {rate_key} needs")
    if burst and not rate:
        document.refuse(rate_key, f"more than 0 bit/s, which {burst_key} needs")
    if burst // 8 >= (1 << 32) - 1:
        document.refuse(burst_key, "less than 4 GiB (34359738360 bits)")
    return rate, usual_burst(rate) if burst == _UNSAID else burst
