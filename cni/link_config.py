"""How the interface is made: the keys of the reference bridge plugin, and `mode`.

A value that contradicts another is refused, as the reference does, before anything is made.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cni.document import Section
from cni.environment import ifname_fault, kernel_fault
from cni.errors import CNIError, ErrorCode

HOST_PREFIX = "isth"
HOST_NAME = re.compile(HOST_PREFIX + "[0-9a-f]{11}")
"""Names of host sides: a prefix of ours and a digest."""

_MAX_VLAN = 4094
_MIN_MTU, _MAX_MTU = 68, 65535  # RFC 791; the widest a veth takes


class Mode(StrEnum):
    """A port of a bridge of the host, or a point-to-point link with host routes."""

    BRIDGE = "bridge"
    ROUTED = "routed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConf:
    """The interface of one sandbox; what only a bridge has is idle in routed mode.

    *mtu* 0 means the uplink's.  *is_default_gateway* None was not said: whether a default
    route is added then depends on the routes configured.  *enabled* False leaves the pod side
    down (disableContainerInterface).  *vlan* 0 is none; *vlan_trunk* is sorted, without overlap.
    """

    mode: Mode = Mode.BRIDGE
    bridge: str = "cni0"
    mtu: int = 0
    is_gateway: bool | None = None
    is_default_gateway: bool | None = None
    force_address: bool = False
    hairpin: bool = False
    promiscuous: bool = False
    isolated: bool = False
    vlan: int = 0
    vlan_trunk: tuple[tuple[int, int], ...] = ()
    preserve_default_vlan: bool = True
    mac_spoof_check: bool = False
    dad: bool = False
    enabled: bool = True
    ip_masq: bool = False


def parse_link(document: Section) -> LinkConf:
    """Read the top-level keys; CNIError 7, or 2 for a backend that we do not have."""
    _check_masquerade_backend(document)
    link = LinkConf(
        mode=_mode(document),
        bridge=_bridge(document),
        mtu=_mtu(document),
        is_gateway=_tristate(document, "isGateway"),
        is_default_gateway=_tristate(document, "isDefaultGateway"),
        force_address=document.flag("forceAddress"),
        hairpin=document.flag("hairpinMode"),
        promiscuous=document.flag("promiscMode"),
        isolated=document.flag("portIsolation"),
        vlan=document.number("vlan", 0, _MAX_VLAN),
        vlan_trunk=_merged(
            span for item in document.sections("vlanTrunk") for span in _trunk(item)
        ),
        preserve_default_vlan=document.flag("preserveDefaultVlan", default=True),
        mac_spoof_check=document.flag("macspoofchk"),
        dad=document.flag("enabledad"),
        enabled=not document.flag("disableContainerInterface"),
        ip_masq=document.flag("ipMasq"),
    )
    if link.hairpin and link.promiscuous:
        raise _contradiction("hairpinMode and promiscMode", "the bridge would reflect twice")
    if link.vlan and link.vlan_trunk:
        raise _contradiction("vlan and vlanTrunk", "a port is either untagged or a trunk")
    return link


def _mode(document: Section) -> Mode:
    try:
        return Mode(document.text("mode", Mode.BRIDGE))
    except ValueError:
        document.refuse("mode", " or ".join(Mode))


def _bridge(document: Section) -> str:
    name = document.text("bridge") or "cni0"
    if fault := ifname_fault(name) or kernel_fault(name):
        document.refuse("bridge", f"a name of an interface: it {fault}")
    if HOST_NAME.fullmatch(name):
        allowed = f"a name of a bridge: {HOST_PREFIX} and 11 hexadecimal digits are of pods' links"
        document.refuse("bridge", allowed)
    return name


def _mtu(document: Section) -> int:
    mtu = document.number("mtu", 0, _MAX_MTU)
    if 0 < mtu < _MIN_MTU:
        document.refuse("mtu", f"0 (that of the uplink) or from {_MIN_MTU} to {_MAX_MTU}")
    return mtu


def _tristate(document: Section, key: str) -> bool | None:
    return None if document.raw(key) is None else document.flag(key)


def _trunk(item: Section) -> Iterator[tuple[int, int]]:
    low, high = (item.number(key, 1, _MAX_VLAN) for key in ("minID", "maxID"))
    if bool(low) != bool(high):
        item.refuse("minID" if high else "maxID", "present, as the other end of the range is")
    if high < low:
        item.refuse("maxID", f"at least minID, which is {low}")
    if low:
        yield low, high
    if single := item.number("id", 1, _MAX_VLAN):
        yield single, single


def _merged(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return tuple(merged)


def _check_masquerade_backend(document: Section) -> None:
    backend = document.text("ipMasqBackend", "nftables")
    if backend != "nftables":
        raise CNIError(
            ErrorCode.UNSUPPORTED_FIELD,
            f'unsupported ipMasqBackend: "{backend}"',
            "nftables is the only one there is",
        )


def _contradiction(keys: str, why: str) -> CNIError:
    return CNIError(ErrorCode.INVALID_CONFIG, f"cannot set {keys} at the same time", why)
