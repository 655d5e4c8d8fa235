"""The network configuration on standard input, made into one frozen value.

Checks come in the order of the Go library, so that of several faults the same one is named:

    JSON (6) → name (7) → version (1) → verb against version (1) → everything else (7, 2)

Nothing is refused for being unknown: runtimes and other plugins add keys of their own.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from cni.args import Requested, parse_requested
from cni.capabilities import (
    PortMapping,
    parse_aliases,
    parse_bandwidth,
    parse_port_mappings,
    parse_runtime_dns,
)
from cni.document import Section, decode
from cni.environment import IDENTIFIER, Call, Verb
from cni.errors import CNIError, ErrorCode
from cni.ipam_config import IPAMConf, delegate_type, parse_ipam
from cni.link_config import LinkConf, Mode, parse_link
from cni.result import DNS, Result, parse_dns
from cni.result import parse as parse_result
from cni.versions import NEWEST, OLDEST, SUPPORTED, check_version
from dataplane.model import Bandwidth
from ipam.leases import Attachment

_MIN_IPV6_MTU = 1280  # RFC 8200, section 5
_REMEMBERED_BYTES = 1 << 14


class Program(StrEnum):
    """Which of our two CNI types was executed (the base name of argv[0])."""

    MAIN = "isthmus"
    IPAM = "isthmus-ipam"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What every verb needs, and all that DEL, GC and STATUS do.

    A deletion reads no more than this: an option that has become invalid since the ADD must
    not keep a sandbox alive.  *delegate* is the type of a foreign IPAM plugin, or empty.
    *valid_attachments* is GC's list: None where the runtime gave none, which proves nothing.
    """

    cni_version: str
    name: str
    type: str
    delegate: str
    standalone: bool
    valid_attachments: frozenset[Attachment] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetConf(Network):
    """All of it, for ADD and CHECK.

    *ipam* None asks for a link without addresses.  *default_route* asks for one in each family
    whose IPAM routes have none.  *dns* None leaves that of the IPAM result alone.
    """

    link: LinkConf
    ipam: IPAMConf | None
    is_gateway: bool
    default_route: bool
    dns: DNS | None
    requested: Requested
    port_mappings: tuple[PortMapping, ...]
    bandwidth: Bandwidth | None
    aliases: tuple[str, ...]
    prev_result: Result | None


def identify(stdin: bytes, verb: Verb) -> Network:
    """Read what every verb needs; CNIError 6, 7 or 1."""
    return _identify(decode(stdin), verb)


def parse(stdin: bytes, call: Call, program: Program = Program.MAIN) -> NetConf:
    """Read everything, CNI_ARGS of *call* included; CNIError 6, 7, 1, 2, or 4 for CNI_ARGS.

    As an IPAM plugin we read the `ipam` section as ours whatever its type says, and leave the
    keys of the interface and its capabilities to the plugin that called us.
    """
    document = decode(stdin)
    if len(stdin) > _REMEMBERED_BYTES:
        conf = _parse(document, call.command, program)
    else:
        conf = _parse_again(stdin, call.command, program)
    runtime = document.section("runtimeConfig")
    return replace(conf, requested=parse_requested(call.args, document, runtime))


@lru_cache(maxsize=64)
def _parse_again(stdin: bytes, verb: Verb, program: Program) -> NetConf:
    """Most containers of a node bring the same bytes."""
    return _parse(decode(stdin), verb, program)


def _parse(document: Section, verb: Verb, program: Program) -> NetConf:
    """All but what the call's own arguments ask for."""
    network = _identify(document, verb)
    runtime = document.section("runtimeConfig")
    is_main = program is Program.MAIN
    link = parse_link(document) if is_main else LinkConf()
    ipam = _ipam(document, runtime, network, program)
    _check_agreement(link, ipam, document)
    is_gateway = _is_gateway(link, network)
    default_route = link.is_default_gateway
    if default_route is None:
        default_route = is_gateway and not document.section("ipam").items("routes")
    return NetConf(
        cni_version=network.cni_version,
        name=network.name,
        type=network.type,
        delegate=network.delegate,
        standalone=network.standalone,
        valid_attachments=network.valid_attachments,
        link=link,
        ipam=ipam,
        is_gateway=is_gateway,
        default_route=default_route,
        dns=_dns(document, runtime),
        requested=Requested(),
        port_mappings=parse_port_mappings(runtime) if is_main else (),
        bandwidth=_bandwidth(document, runtime) if is_main else None,
        aliases=parse_aliases(runtime, network.name),
        prev_result=_prev_result(document, network.cni_version),
    )


def version_of(stdin: bytes) -> str:
    """The version in which to answer *stdin* with an error; our newest if it has none of ours."""
    try:
        version = decode(stdin).text("cniVersion") or OLDEST
    except CNIError:
        return NEWEST
    return version if version in SUPPORTED else NEWEST


def _identify(document: Section, verb: Verb) -> Network:
    head = document.giving(ErrorCode.DECODING_FAILURE)
    name = _name(head)
    version = head.text("cniVersion") or OLDEST
    check_version(version, verb)
    return Network(
        cni_version=version,
        name=name,
        type=document.text("type"),
        delegate=delegate_type(document.section("ipam")),
        standalone=document.flag("standalone"),
        valid_attachments=_valid_attachments(document, name) if verb is Verb.GC else None,
    )


def _name(document: Section) -> str:
    name = document.text("name")
    if not name:
        raise CNIError(ErrorCode.INVALID_CONFIG, "missing network name")
    if not IDENTIFIER.fullmatch(name):
        raise CNIError(ErrorCode.INVALID_CONFIG, "invalid characters found in network name", name)
    return name


def _valid_attachments(document: Section, network: str) -> frozenset[Attachment] | None:
    """GC's list.  The specification's tag named the key otherwise than its library does, which
    sends both since 1.2.3; null is Go's empty list, and means that nothing is valid."""
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        if key in document:
            return frozenset(_attachment(entry, network) for entry in document.sections(key))
    return None


def _attachment(entry: Section, network: str) -> Attachment:
    container_id, ifname = entry.text("containerID"), entry.text("ifname")
    for key, value in (("containerID", container_id), ("ifname", ifname)):
        if not value:
            entry.refuse(key, "a name, which every valid attachment has")
    return Attachment(network, container_id, ifname)


def _ipam(
    document: Section, runtime: Section, network: Network, program: Program
) -> IPAMConf | None:
    section = document.section("ipam")
    if program is Program.MAIN:
        if network.delegate:
            return IPAMConf(delegate=network.delegate)
        if not section:
            return None
    return parse_ipam(section, runtime, network.cni_version)


def _is_gateway(link: LinkConf, network: Network) -> bool:
    """Ours by default, since our ranges' gateway is nobody else's; a foreign IPAM's may be a
    router on the wire, so there it must be asked for, as with the reference bridge."""
    if link.mode is Mode.ROUTED or link.is_default_gateway:
        return True
    return not network.delegate if link.is_gateway is None else link.is_gateway


def _check_agreement(link: LinkConf, ipam: IPAMConf | None, document: Section) -> None:
    if ipam and not link.enabled:
        raise CNIError(
            ErrorCode.INVALID_CONFIG,
            "cannot set ipam and disableContainerInterface at the same time",
            "an interface that is down has no use for addresses",
        )
    if link.mode is Mode.ROUTED and not ipam:
        raise CNIError(
            ErrorCode.INVALID_CONFIG, "missing ipam", "mode routed has no link layer to offer"
        )
    if ipam and ipam.has_ipv6 and 0 < link.mtu < _MIN_IPV6_MTU:
        document.refuse("mtu", f"at least {_MIN_IPV6_MTU}, which IPv6 needs")


def _dns(document: Section, runtime: Section) -> DNS | None:
    said = document.section("dns")
    if capability := parse_runtime_dns(runtime):
        return capability
    return parse_dns(said) if said else None


def _bandwidth(document: Section, runtime: Section) -> Bandwidth | None:
    """Limits of the network itself have precedence, as in the reference bandwidth plugin."""
    return parse_bandwidth(document) or parse_bandwidth(runtime.section("bandwidth"))


def _prev_result(document: Section, version: str) -> Result | None:
    if document.raw("prevResult") is None:
        return None
    undecodable = document.giving(ErrorCode.DECODING_FAILURE)
    return parse_result(undecodable.section("prevResult"), version)
