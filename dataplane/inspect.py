"""Look at a host as a doctor does: firewalls of others, kernel features, sysctls, addresses.

Nothing here changes the host.  What a kernel can do is tried in a network namespace of our
own, which is gone when the thread that made it ends.
"""

import ctypes
import errno
import fcntl
import json
import os
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataplane import rtnl
from dataplane.errors import DataplaneError, NetlinkError
from dataplane.model import Veth
from dataplane.netlink import CREATE, EXCLUSIVE, Netlink, attribute, message, nested, text
from dataplane.nft.runner import NftRunner
from dataplane.programs import ProgramMissing, run
from net.address import IPInterface, IPNetwork

_SYSCTL = Path("/proc/sys")
_CLONE_NEWNET = 0x40000000
_NEWQDISC, _TCM, _TCA_KIND, _TC_H_ROOT = 36, struct.Struct("=BxxxiIII"), 1, 0xFFFFFFFF
_LINK_HEADER = 16
_IFLA_IFNAME, _IFLA_LINKINFO, _INFO_KIND = 3, 18, 1
_LOCAL_TABLE = 255

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class HostAddress:
    ifname: str
    address: IPInterface


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of the host but its local ones; *ours* by its protocol number."""

    ifname: str
    dst: IPNetwork
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNetwork:
    links: tuple[rtnl.Link, ...] = ()
    addresses: tuple[HostAddress, ...] = ()
    routes: tuple[HostRoute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardChain:
    """A base chain that forwarded packets pass.

    *drops* when a packet that no rule decides on is dropped: by the policy, or by a last rule
    without a condition.  *accepts* are the interfaces that its table accepts by name.
    """

    family: str
    table: str
    name: str
    drops: bool
    accepts: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """nft's version and the forward chains; *fault* says what could not be looked at."""

    version: tuple[int, ...] = ()
    chains: tuple[ForwardChain, ...] = ()
    fault: str = ""


def observe_network() -> HostNetwork:
    """The links, addresses and routes of the namespace this thread is in."""
    with Netlink() as host:
        links = tuple(rtnl.parse_link(payload) for _, payload in host.dump(rtnl.get_link()))
        names = {link.index: link.name for link in links}
        addresses = [rtnl.parse_address(payload) for _, payload in host.dump(rtnl.list_addresses())]
        routes = [
            rtnl.parse_route(payload)
            for family in (2, 10)
            for _, payload in host.dump(rtnl.list_routes(family))
        ]
    return HostNetwork(
        links=links,
        addresses=tuple(
            HostAddress(names.get(found.index, "?"), found.address) for found in addresses
        ),
        routes=tuple(
            HostRoute(names.get(found.index, "?"), found.dst, found.protocol == rtnl.ROUTE_PROTOCOL)
            for found in routes
            if found.table != _LOCAL_TABLE
        ),
    )


def read_sysctl(name: str) -> str | None:
    """The value of the sysctl *name*, written with slashes, or None where there is none."""
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return None


def sysctls_are_writable() -> bool:
    """Whether /proc/sys/net can be written: in many containers it cannot."""
    return os.access(_SYSCTL / "net/ipv4/ip_forward", os.W_OK) and not (
        os.statvfs(_SYSCTL / "net").f_flag & os.ST_RDONLY
    )


def observe_firewall() -> Firewall:
    """nft's view, and the one of iptables-legacy where it is in use."""
    legacy = _legacy_chains()
    try:
        done = run(["nft", "-j", "-t", "list", "ruleset"])
    except ProgramMissing as exc:
        return Firewall(fault=str(exc), chains=legacy)
    if done.status:
        return Firewall(fault=done.complaint, chains=legacy)
    try:
        version, chains = parse_ruleset(done.stdout)
    except (ValueError, KeyError, TypeError) as exc:
        return Firewall(fault=f"nft's JSON cannot be read: {exc}", chains=legacy)
    return Firewall(version=version, chains=chains + legacy)


def parse_ruleset(ruleset: str) -> tuple[tuple[int, ...], tuple[ForwardChain, ...]]:
    """nft's version and forward chains from its JSON (libnftables-json(5))."""
    version: tuple[int, ...] = ()
    forward: list[dict[str, Any]] = []
    rules: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in json.loads(ruleset)["nftables"]:
        if "metainfo" in entry:
            version = parse_version(entry["metainfo"]["version"])
        elif entry.get("chain", {}).get("hook") == "forward":
            forward.append(entry["chain"])
        elif "rule" in entry:
            rule = entry["rule"]
            rules.setdefault((rule["family"], rule["table"]), []).append(rule)
    return version, tuple(
        _forward_chain(chain, rules.get((chain["family"], chain["table"]), []))
        for chain in forward
        if chain["family"] in ("ip", "ip6", "inet")
    )


def parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _forward_chain(chain: dict[str, Any], rules: Sequence[dict[str, Any]]) -> ForwardChain:
    own = [rule["expr"] for rule in rules if rule["chain"] == chain["name"]]
    return ForwardChain(
        family=chain["family"],
        table=chain["table"],
        name=chain["name"],
        drops=chain.get("policy") == "drop" or any(map(_drops_all, own)),
        accepts=frozenset(name for rule in rules for name in _accepted(rule["expr"])),
    )


def _drops_all(expressions: Sequence[dict[str, Any]]) -> bool:
    keys = {key for expression in expressions for key in expression}
    return bool(keys & {"drop", "reject"}) and keys <= {"drop", "reject", "counter", "log"}


def _accepted(expressions: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Interface names a rule accepts packets of; those of a `ct state` rule alone do not count."""
    if not any("accept" in expression for expression in expressions):
        return
    for expression in expressions:
        match = expression.get("match", {})
        left = match.get("left")
        key = left.get("meta", {}).get("key") if isinstance(left, dict) else None
        if key in ("iifname", "oifname") and match.get("op") == "==":
            right = match["right"]
            names = right.get("set", []) if isinstance(right, dict) else [right]
            yield from (name for name in names if isinstance(name, str))


def _legacy_chains() -> tuple[ForwardChain, ...]:
    found = []
    for family, tables, program in (
        ("ip", "/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
        ("ip6", "/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
    ):
        # Asking would load the table, so only one that is loaded is asked for.
        with suppress(OSError, ProgramMissing):
            if "filter" in Path(tables).read_text().split():
                found.append(parse_legacy(family, run([program, "-S"]).stdout))
    return tuple(found)


def parse_legacy(family: str, listing: str) -> ForwardChain:
    """The forward chain from the output of `iptables -S`."""
    lines = [line.split() for line in listing.splitlines()]
    drops = ["-P", "FORWARD", "DROP"] in lines or any(
        line in (["-A", "FORWARD", "-j", "DROP"], ["-A", "FORWARD", "-j", "REJECT"])
        for line in lines
    )
    accepts = {
        line[at + 1]
        for line in lines
        if line[-2:] == ["-j", "ACCEPT"]
        for at, word in enumerate(line[:-1])
        if word in ("-i", "-o") and line[at - 1] != "!"
    }
    return ForwardChain(
        family=family,
        table="filter of iptables-legacy",
        name="FORWARD",
        drops=drops,
        accepts=frozenset(accepts),
    )


def missing_features() -> tuple[str, ...]:
    """Names of kernel features that are absent, tried one by one in a namespace of our own.

    Raises DataplaneError where no namespace can be made.
    """
    outcome: list[tuple[str, ...] | DataplaneError] = []

    def work() -> None:
        # unshare moves this thread alone, and it never comes back: it ends here.
        if _libc.unshare(_CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            outcome.append(DataplaneError(f"cannot make a network namespace: {reason}"))
            return
        try:
            outcome.append(tuple(name for name, probe in _PROBES.items() if not probe()))
        except (DataplaneError, OSError) as exc:
            outcome.append(DataplaneError(f"kernel features cannot be tried: {exc}"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(outcome[0], DataplaneError):
        raise outcome[0]
    return outcome[0]


def lock_is_held(path: Path) -> bool:
    """Whether an agent has the lock of the state directory."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


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
    "nftables NAT": _can_nat,
    "nftables conntrack": _can_track,
    "nftables fib": _can_find_local,
}
