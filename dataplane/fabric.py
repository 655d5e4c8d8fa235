"""What a host needs to reach the pods of others: tunnels, routes to blocks, and their entries.

Routes are found again by their protocol number, links by their group; entries and addresses are
those of such links.
"""

import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import TypeVar

from dataplane import rtnl
from dataplane.block_routes import (
    delete_route,
    delete_rule,
    list_main,
    list_routes,
    list_rules,
    parse_on_link,
    parse_route,
    parse_rule,
    put_route,
    put_rule,
)
from dataplane.errors import DataplaneError, NetlinkError
from dataplane.fabric_model import (
    BlockRoute,
    Forward,
    Neighbour,
    Programmed,
    Rule,
    Source,
    Surroundings,
    Tunnel,
)
from dataplane.netlink import Netlink
from dataplane.sysctl import SysctlRefused, Sysctls
from dataplane.tunnel import (
    delete_forward,
    delete_neighbour,
    list_forwards,
    list_neighbours,
    list_tunnels,
    new_tunnel,
    parse_forward,
    parse_neighbour,
    parse_tunnel,
    put_forward,
    put_neighbour,
)
from net.address import IPAddress

# A datagram has to fit the socket's send buffer, 208 KiB by default; a message has 100 bytes.
_PER_DATAGRAM = 500


@dataclass(frozen=True, slots=True)
class Step:
    """One message; *what* says it in words; *forgiving*: what is absent is as wanted."""

    message: bytes
    what: str
    forgiving: bool = False


Item = TypeVar("Item")


class Fabric:
    """The kernel's side, of the namespace of the thread that made this; one thread at a time.

    `make_tunnel` has to be called by a thread in that namespace.
    """

    def __init__(self) -> None:
        self._netlink = Netlink()
        self._sysctls = Sysctls()

    def close(self) -> None:
        self._netlink.close()

    def observe(self, own: Iterable[IPAddress]) -> tuple[Surroundings, Programmed]:
        """Look at all of it, and at which links the *own* addresses are.

        Raises NetlinkError, DumpInterrupted.
        """
        tunnels = tuple(parse_tunnel(found) for _, found in self._netlink.dump(list_tunnels()))
        ours = {tunnel.index for tunnel in tunnels if tunnel.ours}
        on_link = self._each(list_main, parse_on_link)
        addresses, sources = self._addresses(set(own), ours)
        around = Surroundings(tunnels=tunnels, on_link=tuple(on_link), addresses=addresses)
        return around, Programmed(
            routes=frozenset(self._each(list_routes, parse_route)),
            rules=frozenset(self._each(list_rules, parse_rule)),
            neighbours=frozenset(self._neighbours(ours)),
            forwards=frozenset(self._forwards(ours)),
            sources=frozenset(sources),
        )

    def make_tunnel(self, tunnel: Tunnel) -> None:
        """Make a link, or nothing; raises DataplaneError, where its name is another's too."""
        try:
            self._netlink.transact([new_tunnel(tunnel)])
            with ExitStack() as undo:
                undo.callback(self.delete_tunnel, tunnel.name)
                index = self._netlink.index_of(tunnel.name)
                # The kernel looks whether the port is free as it comes up.
                self._netlink.transact(
                    [rtnl.without_link_local(index), rtnl.set_link(index, flags=rtnl.UP)]
                )
                undo.pop_all()
            self._loosen(tunnel.name)
        except NetlinkError as exc:
            raise DataplaneError(
                f"cannot make VXLAN link {tunnel.name} (VNI {tunnel.vni}, UDP port {tunnel.port}, "
                f"from {tunnel.local}): {exc.reason}"
            ) from exc

    def _loosen(self, link: str) -> None:
        """Take what comes through *link* also from whom we would not answer through it.

        What a pod answers for a port of its host is sent before it has the host's address, so
        by the pods' routes.  Of this setting and that of all links the higher number counts: 1 is
        strict, 2 loose (ip-sysctl.rst).  Where it cannot be set, the rest works all the same.
        """
        own, every = (f"net/ipv4/conf/{one}/rp_filter" for one in (link, "all"))
        with suppress(SysctlRefused):
            if "1" in (self._sysctls.get(own), self._sysctls.get(every)):
                self._sysctls.ensure(own, "2", lasting=False)

    def mend_tunnel(self, index: int, tunnel: Tunnel) -> None:
        """Bring a link up, with its MTU and MAC; raises NetlinkError."""
        self._netlink.transact(
            [rtnl.set_link(index, flags=rtnl.UP, mac=tunnel.mac, mtu=tunnel.mtu)]
        )

    def delete_tunnel(self, name: str) -> None:
        """Raises NetlinkError; one that is not there is as wanted."""
        self._netlink.transact([rtnl.delete_link(name)], tolerate=lambda exc: exc.absent)

    def apply(self, before: Programmed, after: Programmed) -> list[str]:
        """Make *after* of *before*, each route in one step; returns what was refused, in words.

        What a route leads through is there before it and as long as it.  Raises NetlinkError
        where the socket fails.
        """
        todo = steps(before, after)
        refused: list[str] = []
        for start in range(0, len(todo), _PER_DATAGRAM):
            part = todo[start : start + _PER_DATAGRAM]
            self._netlink.transact([step.message for step in part], tolerate=noting(part, refused))
        return refused

    def _each(
        self, listing: Callable[[int], bytes], parse: Callable[[memoryview], Item | None]
    ) -> list[Item]:
        """What *parse* makes of the listings of both IP versions."""
        payloads = [p for version in (4, 6) for p in self._listed(listing(version))]
        return [found for payload in payloads if (found := parse(payload)) is not None]

    def _listed(self, request: bytes) -> list[memoryview]:
        try:
            return [payload for _, payload in self._netlink.dump(request)]
        except NetlinkError as exc:
            if exc.absent:
                return []  # even the main table is made with its first route
            raise

    def _addresses(
        self, own: set[IPAddress], ours: set[int]
    ) -> tuple[dict[IPAddress, tuple[int, int]], set[Source]]:
        mtus: dict[int, int] = {}
        addresses: dict[IPAddress, tuple[int, int]] = {}
        sources: set[Source] = set()
        for found in rtnl.parse_addresses(self._netlink.dump(rtnl.list_addresses())):
            address = found.address.ip
            if found.index in ours and not address.is_link_local:
                sources.add(Source(found.index, address))
            elif address in own:
                if found.index not in mtus:
                    link = rtnl.parse_link(self._netlink.get(rtnl.get_link(found.index)))
                    mtus[found.index] = link.mtu
                addresses[address] = found.index, mtus[found.index]
        return addresses, sources

    def _neighbours(self, links: Iterable[int]) -> Iterable[Neighbour]:
        for link in links:
            for family in (socket.AF_INET, socket.AF_INET6):
                for _, payload in self._netlink.dump(list_neighbours(family, link)):
                    if (found := parse_neighbour(payload)) and found.link == link:
                        yield found

    def _forwards(self, links: Iterable[int]) -> Iterable[Forward]:
        for link in links:
            for _, payload in self._netlink.dump(list_forwards(link)):
                if (found := parse_forward(payload)) and found.link == link:
                    yield found


def steps(before: Programmed, after: Programmed) -> list[Step]:
    """The messages that make *after* of *before*, in their order."""
    found = [
        Step(put_neighbour(one), f"neighbour {one.address}")
        for one in after.neighbours - before.neighbours
    ]
    found += [
        Step(put_forward(one), f"forwarding to {one.remote}")
        for one in after.forwards - before.forwards
    ]
    found += [
        Step(
            rtnl.new_address(one.link, ip_interface(one.address), replace=True),
            f"address {one.address}",
        )
        for one in after.sources - before.sources
    ]
    found += _route_steps(before.routes, after.routes)
    found += _rule_steps(before.rules, after.rules)
    found += _removals(before, after)
    return found


def _route_steps(before: frozenset[BlockRoute], after: frozenset[BlockRoute]) -> list[Step]:
    former = {one.key for one in before}
    kept = {one.key for one in after}
    found = [
        Step(put_route(one, replace=one.key in former), f"route to {one.dst}")
        for one in after - before
    ]
    return found + [
        Step(delete_route(one), f"route to {one.dst}, to be deleted", forgiving=True)
        for one in before - after
        if one.key not in kept
    ]


def _rule_steps(before: frozenset[Rule], after: frozenset[Rule]) -> list[Step]:
    found = [Step(put_rule(one), f"rule for {one.source}") for one in after - before]
    return found + [
        Step(delete_rule(one), f"rule for {one.source}, to be deleted", forgiving=True)
        for one in before - after
    ]


def _removals(before: Programmed, after: Programmed) -> list[Step]:
    """What routes led through goes after them, unless there is another of its key."""
    neighbours = {one.key for one in after.neighbours}
    forwards = {one.key for one in after.forwards}
    found = [
        Step(
            rtnl.delete_address(one.link, ip_interface(one.address)),
            f"address {one.address}, to be deleted",
            forgiving=True,
        )
        for one in before.sources - after.sources
    ]
    found += [
        Step(delete_neighbour(one), f"neighbour {one.address}, to be deleted", forgiving=True)
        for one in before.neighbours - after.neighbours
        if one.key not in neighbours
    ]
    return found + [
        Step(delete_forward(one), f"forwarding to {one.remote}, to be deleted", forgiving=True)
        for one in before.forwards - after.forwards
        if one.key not in forwards
    ]


def noting(part: list[Step], refused: list[str]) -> Callable[[NetlinkError], bool]:
    """What writes into *refused* what the kernel refused of *part*, in words."""

    def note(exc: NetlinkError) -> bool:
        step = part[exc.index]
        if not (step.forgiving and exc.absent):
            reason = "another program has one" if exc.exists else exc.reason
            refused.append(f"{step.what}: {reason}")
        return True

    return note
