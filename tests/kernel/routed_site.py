"""Hosts on two links with a router between, and pods on them; each host routes as an agent would.

    a ─┐                            ┌─ c
       ├─ link one ─ router ─ link two
    b ─┘               │
                    outside

No agent runs here: a host's reconcilers are given the table that the test made up.
"""

import itertools
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from dataplane.fabric import Fabric
from dataplane.netlink import Netlink
from dataplane.nft.elements import Elements
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from ipam.calls import PoolRow, TableRow
from ipam.cluster import BlockState
from ipam.holdings import OwnBlock
from masquerade import model as egress
from masquerade import settings as egress_settings
from masquerade.names import SKELETON
from masquerade.reconciler import Reconciler as Masquerader
from net.address import IPAddress, IPNetwork
from routing.model import Told
from routing.reconciler import Outcome, Reconciler
from routing.settings import Mode, Settings
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside

POOLS = (
    PoolRow(name="four", cidr=ip_network("10.80.0.0/16"), masquerade=True),
    PoolRow(name="six", cidr=ip_network("fd80::/64"), masquerade=True),
)
_USUAL = egress_settings.Settings()
OUTSIDE = ("198.51.100.9", "2001:db8:9::9")
_LINKS = {
    "one": ("192.0.2.254", "2001:db8:1::fe"),
    "two": ("203.0.113.254", "2001:db8:2::fe"),
}


@dataclass(slots=True)
class Host:
    """A node; *addresses* are by which the others know it."""

    name: str
    namespace: Namespace
    site: "Site"
    addresses: tuple[IPAddress, ...]
    blocks: list[OwnBlock] = field(default_factory=list)
    pods: dict[str, Namespace] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    in_sync: bool = True
    frozen: bool = False
    now: float = 0.0
    reconciler: Reconciler = field(init=False)
    fabric: Fabric = field(init=False)

    def start(self) -> None:
        """Begin a life of its agent."""
        with inside(self.namespace):
            self.fabric = Fabric()
        self.site.undo.callback(self.fabric.close)
        self.reconciler = Reconciler(
            self.settings,
            self.fabric,
            node=self.name,
            own=lambda: self.addresses,
            clock=lambda: self.now,
            hold_s=0,
        )

    def set_mode(self, mode: Mode) -> None:
        """As an agent that is started anew with another configuration."""
        self.settings = replace(self.settings, mode=mode)
        self.start()

    def reconcile(self) -> Outcome:
        told = Told(
            rows=self.site.rows,
            blocks=tuple(self.blocks),
            in_sync=self.in_sync,
            trusted=self.in_sync and not self.frozen,
        )
        with inside(self.namespace):
            return self.reconciler.reconcile(told)

    def give(self, *cidrs: str) -> None:
        """Let it have these blocks."""
        self.blocks += [
            OwnBlock(cidr=ip_network(cidr), pool="p", epoch=1, revision=next(self.site.numbers))
            for cidr in cidrs
        ]

    def take(self, *cidrs: str) -> None:
        self.blocks = [block for block in self.blocks if str(block.cidr) not in cidrs]

    def pod(self, *addresses: str, mtu: int = 0) -> Namespace:
        """A pod in routed mode with these addresses; its MTU as an ADD would make it."""
        namespace = self.site.make("pod")
        number = next(self.site.numbers)
        side = f"pod{number}"
        mtu = mtu or self.reconciler.state.mtu or 1500
        self.namespace.run(
            *("ip", "link", "add", side, "mtu", str(mtu), "type", "veth"),
            *("peer", "name", "eth0", "mtu", str(mtu), "netns", namespace.name),
        )
        for gateway in ("169.254.1.1/32", "fe80::1/64"):
            how = ["nodad"] if ":" in gateway else ["scope", "host"]
            self.namespace.run("ip", "address", "add", gateway, "dev", side, *how)
        self.namespace.run("ip", "link", "set", side, "up")
        namespace.run("ip", "link", "set", "eth0", "up")
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            namespace.run("ip", "address", "add", address, "dev", "eth0", *nodad)
            self.namespace.run("ip", "route", "add", address, "dev", side, "proto", "176")
        if any("." in address for address in addresses):
            namespace.run("ip", "route", "add", "169.254.1.1", "dev", "eth0")
            namespace.run("ip", "route", "add", "default", "via", "169.254.1.1")
        if any(":" in address for address in addresses):
            namespace.run("ip", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
        return namespace

    def routes(self, version: int = 4) -> list[str]:
        """The routes of ours, as ip shows them."""
        shown = self.namespace.run("ip", f"-{version}", "route", "show", "proto", "177")
        return [line.strip() for line in shown.splitlines()]

    def way(self, address: str) -> str:
        return self.namespace.run("ip", "route", "get", address)


@dataclass(slots=True)
class Site:
    """All of it; see the module."""

    make: Callable[[str], Namespace]
    undo: ExitStack
    hosts: dict[str, Host] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    strangers: dict[IPNetwork, TableRow] = field(default_factory=dict)
    router: Namespace = field(init=False)
    outside: Namespace = field(init=False)

    @property
    def rows(self) -> dict[IPNetwork, TableRow]:
        """The cluster's table."""
        own = {
            block.cidr: TableRow(
                cidr=block.cidr,
                node=host.name,
                epoch=1,
                addresses=host.addresses,
                state=BlockState.ACTIVE,
            )
            for host in self.hosts.values()
            for block in host.blocks
        }
        return own | self.strangers

    def build(self) -> None:
        self.router, self.outside = self._made("router"), self._made("outside")
        for link, addresses in _LINKS.items():
            self.router.run("ip", "link", "add", link, "type", "bridge")
            _address(self.router, link, *addresses)
        self._wire(self.outside, "uplink", "world")
        _address(self.router, "world", "198.51.100.1", "2001:db8:9::1")
        _address(self.outside, "uplink", *OUTSIDE)
        self.outside.run("ip", "route", "add", "default", "via", "198.51.100.1")
        self.outside.run("ip", "route", "add", "default", "via", "2001:db8:9::1")

    def add(self, name: str, link: str, *addresses: str, mtu: int = 1500) -> Host:
        """A host with these addresses (with prefix length) on *link*."""
        namespace = self._made(f"host-{name}")
        port = f"port{next(self.numbers)}"
        self._wire(namespace, "uplink", port)
        self.router.run("ip", "link", "set", port, "master", link, "up")
        namespace.run("ip", "link", "set", "uplink", "mtu", str(mtu))
        _address(namespace, "uplink", *addresses)
        for gateway in _LINKS[link]:
            if any((":" in gateway) == (":" in address) for address in addresses):
                namespace.run("ip", "route", "add", "default", "via", gateway)
        host = Host(name, namespace, self, tuple(map(ip_address, addresses)))
        self.hosts[name] = host
        host.start()
        return host

    def settle(self) -> None:
        """Have every host do what the table asks for; nothing may be refused."""
        for host in self.hosts.values():
            outcome = host.reconcile()
            assert outcome is not Outcome.RETRY, host.reconciler.state

    def _made(self, role: str) -> Namespace:
        """A namespace that forwards, and whose addresses are used at once."""
        namespace = self.make(role)
        namespace.run(
            *("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
            # Who forwards to a neighbour asks for it from its link-local address, and waits for
            # its duplicate address detection before that.
            "net.ipv6.conf.default.accept_dad=0",
        )
        return namespace

    def _wire(self, namespace: Namespace, link: str, port: str) -> None:
        self.router.run(
            *("ip", "link", "add", port, "type", "veth"),
            *("peer", "name", link, "netns", namespace.name),
        )


def masquerader(
    host: Host,
) -> Callable[[egress_settings.Settings | None, tuple[PoolRow, ...]], bool]:
    """What keeps the host's translation, to be called with settings and pools."""
    with inside(host.namespace):
        elements = host.site.undo.enter_context(Elements())
    keeper = Masquerader(NftTable(SKELETON, NftRunner(), elements))

    def keep(
        settings: egress_settings.Settings | None = _USUAL, pools: tuple[PoolRow, ...] = POOLS
    ) -> bool:
        with inside(host.namespace):
            return keeper.reconcile(egress.Told(pools=pools, rows=host.site.rows), settings)

    return keep


@contextmanager
def routed_site(make: Callable[[str], Namespace]) -> Iterator[Site]:
    with ExitStack() as undo:
        site = Site(make, undo)
        site.build()
        yield site


def standard(
    site: Site, mode: Mode = Mode.AUTO, *sysctls: str
) -> dict[str, tuple[Namespace, str, str]]:
    """Hosts a, b, c with blocks of both families and *sysctls*; a pod on each: its addresses."""
    site.add("a", "one", "192.0.2.1", "2001:db8:1::1")
    site.add("b", "one", "192.0.2.2", "2001:db8:1::2")
    site.add("c", "two", "203.0.113.3", "2001:db8:2::3")
    for number, host in enumerate(site.hosts.values(), 1):
        host.give(f"10.80.{number}.0/26", f"fd80::{number}00/122")
        if sysctls:
            host.namespace.run("sysctl", "-qw", *sysctls)
        host.set_mode(mode)
    site.settle()
    return {
        name: (host.pod(four, six), four, six)
        for number, (name, host) in enumerate(site.hosts.items(), 1)
        for four, six in [(f"10.80.{number}.5", f"fd80::{number}05")]
    }


_LINKS_NEIGHBOURS_ADDRESSES_ROUTES = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400


@contextmanager
def listening(namespace: Namespace) -> Iterator[Netlink]:
    """Whatever the kernel tells of links, neighbours, addresses and routes meanwhile."""
    with inside(namespace):
        news = Netlink(socket.NETLINK_ROUTE, groups=_LINKS_NEIGHBOURS_ADDRESSES_ROUTES)
    with news:
        yield news


def heard(news: Netlink) -> list[tuple[int, memoryview]]:
    """What came until now."""
    found = []
    with socket.socket(fileno=os.dup(news.fileno())) as waiting:
        while select.select([waiting], [], [], 0)[0]:
            data, offset = memoryview(waiting.recv(1 << 16)), 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                found.append((kind, data[offset + 16 : offset + length]))
                offset += (length + 3) & ~3
    return found


def _address(namespace: Namespace, link: str, *addresses: str) -> None:
    for address in addresses:
        length, nodad = ("64", ["nodad"]) if ":" in address else ("24", [])
        namespace.run("ip", "address", "add", f"{address}/{length}", "dev", link, *nodad)
    namespace.run("ip", "link", "set", link, "up")
