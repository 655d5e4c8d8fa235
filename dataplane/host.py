"""The host's own network, as far as attachments depend on it: uplinks, forwarding, flows."""

import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from dataplane import rtnl
from dataplane.conntrack import Conntrack
from dataplane.errors import NetlinkError
from dataplane.model import Bandwidth
from dataplane.netlink import Netlink
from dataplane.sysctl import Sysctls
from dataplane.tc import Shaper, buckets
from net.address import IPAddress

_BY_ADVERTISEMENT = 9  # RTPROT_RA
_WIDEST_VETH = 65535  # loopback, which a default route may leave by, has one more


@dataclass(frozen=True, slots=True)
class Uplink:
    """A link that a default route leaves by."""

    name: str
    mtu: int
    by_advertisement: bool


@dataclass(slots=True)
class _Known:
    """What was found out since the last `forget`."""

    uplinks: tuple[Uplink, ...] | None = None
    forwarding: set[frozenset[int]] = field(default_factory=set)


class Host:
    """What is shared by all attachments; thread-safe.

    What was found out is remembered until `forget`: something about links or routes changed.
    """

    def __init__(self, sysctls: Sysctls, connect: Callable[[], Netlink]) -> None:
        self._sysctls = sysctls
        self._connect = connect
        self._local = threading.local()
        self._known = _Known()
        self._limit = 0

    def limit_mtu(self, mtu: int) -> None:
        """Say what the way to other nodes' pods carries; 0: there is none."""
        self._limit = mtu

    def forget(self) -> None:
        # Whoever is looking just now writes down what it finds where nobody reads it.
        self._known = _Known()

    def uplinks(self) -> tuple[Uplink, ...]:
        known = self._known
        if known.uplinks is None:
            known.uplinks = observe_uplinks(self._connect())
        return known.uplinks

    def uplink_mtu(self) -> int:
        """The smallest MTU of the uplinks and of the way to other nodes' pods.

        0, the kernel's default, without any.
        """
        mtus = [uplink.mtu for uplink in self.uplinks()] + [self._limit] * bool(self._limit)
        return min((min(mtu, _WIDEST_VETH) for mtu in mtus), default=0)

    def enable_forwarding(self, families: frozenset[int]) -> None:
        """Let the host route packets of *families* (4, 6); raises SysctlRefused."""
        known = self._known
        if families in known.forwarding:
            return
        by_advertisement = {uplink.name for uplink in self.uplinks() if uplink.by_advertisement}
        self._sysctls.enable_forwarding(
            ipv4=4 in families, ipv6=6 in families, uplinks=by_advertisement
        )
        known.forwarding.add(families)

    def allow_localhost_mappings(self, interface: str, *, lasting: bool) -> None:
        """Let the host's own 127.0.0.1:port reach pods behind *interface*.

        *lasting* says that the interface outlives the pod: then its setting is put back one day.
        """
        self._sysctls.allow_localhost_ports(interface, lasting=lasting)

    def forget_flows(self, address: IPAddress) -> None:
        """Make the kernel forget flows of whoever had *address* before."""
        self._conntrack().flush_address(address)

    def shape(self, host_name: str, bandwidth: Bandwidth) -> None:
        """Limit the rates of the pod behind *host_name*."""
        Shaper(self._connect()).shape(host_name, bandwidth)

    def unshape(self, host_name: str) -> None:
        """Take the limits away, and what was made for them; absent is fine."""
        Shaper(self._connect()).unshape(host_name)

    def sweep_limits(self, alive: Callable[[], Collection[str]]) -> list[str]:
        """Take away what was made for the limits of host sides other than *alive*,
        which is asked after what there is was listed."""
        return Shaper(self._connect()).sweep(alive)

    def shaped(self, host_name: str, bandwidth: Bandwidth) -> bool:
        """Whether the limits in force are those of *bandwidth*."""
        return Shaper(self._connect()).observe(host_name) == buckets(bandwidth)

    def _conntrack(self) -> Conntrack:
        found: Conntrack | None = getattr(self._local, "conntrack", None)
        if found is None:
            found = self._local.conntrack = Conntrack()
        return found


def observe_uplinks(netlink: Netlink) -> tuple[Uplink, ...]:
    """The links of default routes in the main table."""
    found: dict[int, bool] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for _, payload in netlink.dump(rtnl.list_routes(family)):
            route = rtnl.parse_route(payload)
            if route.dst.prefixlen or route.table != rtnl.MAIN_TABLE or route.kind != rtnl.UNICAST:
                continue
            for _, index in rtnl.next_hops(payload):
                if not index:
                    continue  # of a nexthop object, where net.ipv4.nexthop_compat_mode is off
                advertised = route.protocol == _BY_ADVERTISEMENT
                found[index] = found.get(index, False) or advertised
    uplinks = (_uplink(netlink, index, ra) for index, ra in found.items())
    return tuple(uplink for uplink in uplinks if uplink)


def _uplink(netlink: Netlink, index: int, by_advertisement: bool) -> Uplink | None:
    try:
        link = rtnl.parse_link(netlink.get(rtnl.get_link(index)))
    except NetlinkError as exc:
        if exc.absent:
            return None  # it went since its route was listed
        raise
    return Uplink(link.name, link.mtu, by_advertisement)
