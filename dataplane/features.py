"""What this kernel, and the nft program on it, can do: tried, not asked.

Everything is tried in a network namespace of our own, which is gone when the thread that made
it ends.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address

from dataplane import rtnl
from dataplane.errors import DataplaneError, NetlinkError
from dataplane.fabric_model import Tunnel
from dataplane.model import Veth
from dataplane.netlink import CREATE, EXCLUSIVE, Netlink, attribute, message, nested, text
from dataplane.nft.runner import NftRunner
from dataplane.tunnel import new_tunnel

_CLONE_NEWNET = 0x40000000
_NEWQDISC, _TCM, _TCA_KIND, _TC_H_ROOT = 36, struct.Struct("=BxxxiIII"), 1, 0xFFFFFFFF
_LINK_HEADER = 16
_IFLA_IFNAME, _IFLA_LINKINFO, _INFO_KIND = 3, 18, 1

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Shortcomings:
    """Features that are absent by name, and nft's complaint about a ruleset or nothing."""

    missing: tuple[str, ...] = ()
    refusal: str = ""


def find_shortcomings(ruleset: str) -> Shortcomings:
    """Try every feature, and whether nft and kernel take *ruleset*.

    Raises DataplaneError where no namespace can be made.
    """
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(_try_all, ruleset).result()


def _leave_network() -> None:
    # unshare moves this thread alone, and it never comes back: it ends with its executor.
    if _libc.unshare(_CLONE_NEWNET):
        raise DataplaneError(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")


def _try_all(ruleset: str) -> Shortcomings:
    _leave_network()
    refusal = ""
    try:
        NftRunner().load(ruleset)
    except DataplaneError as exc:
        refusal = str(exc)
    return Shortcomings(tuple(name for name, probe in _PROBES.items() if not probe()), refusal)


def _accepts(messages: Sequence[bytes], *, proof: int = 0) -> bool:
    """Whether the kernel takes *messages*, or refuses them with the errno that is *proof*."""
    try:
        with Netlink() as here:
            here.transact(messages)
    except NetlinkError as exc:
        return proof != 0 and exc.errno == proof
    return True


def _link(name: str, kind: str) -> bytes:
    info = nested(_IFLA_LINKINFO, text(_INFO_KIND, kind))
    body = bytes(_LINK_HEADER) + text(_IFLA_IFNAME, name) + info
    return message(rtnl.NEWLINK, CREATE | EXCLUSIVE, body)


def _can_veth() -> bool:
    pair = Veth(
        host_name="probe0",
        host_mac="02:00:00:00:00:01",
        pod_name="probe1",
        pod_mac="02:00:00:00:00:02",
        mtu=0,
        alias="",
    )
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _accepts([rtnl.new_veth(pair, here)])
    finally:
        os.close(here)


def _can_bridge() -> bool:
    return _accepts([_link("probe2", "bridge")])


def _can_filter_vlans() -> bool:
    return _accepts([rtnl.new_bridge("probe3", "02:00:00:00:00:03", 0, vlan_filtering=True)])


def _can_shape() -> bool:
    # A tbf without its options: EINVAL from one that is there, ENOENT where it is not.
    body = _TCM.pack(0, 1, 0, _TC_H_ROOT, 0) + attribute(_TCA_KIND, b"tbf\0")
    shapes = _accepts([message(_NEWQDISC, CREATE | EXCLUSIVE, body)], proof=errno.EINVAL)
    return shapes and _accepts([_link("probe4", "ifb")])


def _can_tunnel() -> bool:
    tunnel = Tunnel(
        name="probe5",
        mac="02:00:00:00:00:05",
        vni=1,
        port=4789,
        local=IPv4Address("192.0.2.1"),
        mtu=1450,
    )
    return _accepts([new_tunnel(tunnel)])


def _nft_takes(rule: str, hook: str) -> bool:
    script = f"table inet probe {{ chain c {{ {hook} ; {rule} ; }} ; }}\ndelete table inet probe\n"
    try:
        NftRunner().load(script)
    except DataplaneError:
        return False
    return True


def _can_nat() -> bool:
    return _nft_takes("masquerade", "type nat hook postrouting priority 100")


def _can_track() -> bool:
    return _nft_takes("ct state established accept", "type filter hook forward priority 0")


def _can_find_local() -> bool:
    return _nft_takes("fib daddr type local accept", "type nat hook prerouting priority -100")


_PROBES: dict[str, Callable[[], bool]] = {
    "veth": _can_veth,
    "bridge": _can_bridge,
    "bridge VLAN filtering": _can_filter_vlans,
    "tbf and ifb": _can_shape,
    "VXLAN": _can_tunnel,
    "nftables NAT": _can_nat,
    "nftables conntrack": _can_track,
    "nftables fib": _can_find_local,
}
