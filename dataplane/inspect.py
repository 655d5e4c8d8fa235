"""Look at a host as a doctor does: links, addresses, routes, settings.  Nothing is changed."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from dataplane import rtnl
from dataplane.block_routes import BLOCK_PROTOCOL
from dataplane.netlink import Netlink
from net.address import IPAddress, IPInterface, IPNetwork

_SYSCTL = Path("/proc/sys")
_LOCAL_TABLE = 255
_OURS = (rtnl.ROUTE_PROTOCOL, BLOCK_PROTOCOL)


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


def observe_network() -> HostNetwork:
    """The links, addresses and routes of the namespace this thread is in."""
    with Netlink() as host:
        links = tuple(rtnl.parse_link(payload) for _, payload in host.dump(rtnl.get_link()))
        names = {link.index: link.name for link in links}
        addresses = list(rtnl.parse_addresses(host.dump(rtnl.list_addresses())))
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
            HostRoute(names.get(found.index, "?"), found.dst, found.protocol in _OURS)
            for found in routes
            if found.table != _LOCAL_TABLE
        ),
    )


def own_addresses() -> set[IPAddress]:
    """Every address of the namespace this thread is in."""
    return {each.address.ip for each in observe_network().addresses}


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
