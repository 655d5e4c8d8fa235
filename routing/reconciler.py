"""Keeps the kernel's routes to other nodes' pods as the cluster's table wants them.

Nothing is taken away that may still be right: before the table was streamed in this life of the
agent, only what is missing is added; while claims are frozen nothing is deleted; and what the
table no longer has goes only after it was missing for a while (a store that lost its data says
so before that).  A block that moved is no such case: its route is replaced in one step.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from dataplane import rtnl
from dataplane.block_routes import parse_on_link, parse_route
from dataplane.errors import DataplaneError
from dataplane.fabric_model import (
    Programmed,
    Surroundings,
    Tunnel,
    TunnelLink,
)
from net.address import IPAddress
from routing.model import Local, Told
from routing.plan import (
    hops,
    own_blocks,
    peers,
    plan,
    pod_mtu,
    problems,
    sources,
    tunnels,
)
from routing.settings import Mode, Settings

HOLD_S = 30.0
_SHOWN = 20

log = logging.getLogger(__name__)


class Kernel(Protocol):
    """See dataplane.fabric.Fabric."""

    def observe(self, own: Iterable[IPAddress]) -> tuple[Surroundings, Programmed]: ...
    def make_tunnel(self, tunnel: Tunnel) -> None: ...
    def mend_tunnel(self, index: int, tunnel: Tunnel) -> None: ...
    def delete_tunnel(self, name: str) -> None: ...
    def apply(self, before: Programmed, after: Programmed) -> list[str]: ...


class Outcome(StrEnum):
    UNCHANGED = "unchanged"
    APPLIED = "applied"
    RETRY = "to be tried again"


class _Keyed(Protocol):
    @property
    def key(self) -> Any: ...


Item = TypeVar("Item", bound=_Keyed)


@dataclass(slots=True)
class State:
    """How it stands; for status and metrics."""

    mode: Mode
    mtu: int = 0
    routes: int = 0
    direct: int = 0
    tunnelled: int = 0
    tunnels: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    changes: int = 0
    failures: int = 0
    in_sync: bool = False
    addresses: tuple[str, ...] = ()


class Reconciler:
    """From one thread at a time, but for `doubt`, `is_news` and reading `state`.

    *own* looks which addresses others reach this node by; *clock* is monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        kernel: Kernel,
        *,
        node: str,
        own: Callable[[], tuple[IPAddress, ...]],
        clock: Callable[[], float],
        hold_s: float = HOLD_S,
    ) -> None:
        self.state = State(settings.mode)
        self._settings = settings
        self._node = node
        self._kernel = kernel
        self._own = own
        self._clock = clock
        self._hold_s = hold_s
        self._addresses: tuple[IPAddress, ...] = ()
        self._around = Surroundings()
        self._known: Programmed | None = None
        self._told: Told | None = None
        self._doubted = True
        self._missing_since: dict[Any, float] = {}

    @property
    def holds(self) -> bool:
        """Whether something is kept that will go with time."""
        return bool(self._missing_since)

    def doubt(self) -> None:
        """Look at the kernel anew the next time: somebody changed it, or may have."""
        self._doubted = True

    def is_news(self, kind: int, payload: memoryview) -> bool:
        """Whether an rtnetlink message tells of what others did to what we have or rest on."""
        return is_news(kind, payload, self._known, self._around)

    def reconcile(self, told: Told) -> Outcome:
        """Bring the kernel to what *told* makes of it.  Raises DataplaneError."""
        try:
            return self._reconcile(told)
        except DataplaneError:
            self._known = None
            self.state.failures += 1
            raise

    def _reconcile(self, told: Told) -> Outcome:
        if self._doubted or self._known is None:
            self._observe()
        elif told == self._told and not self.holds:
            return Outcome.UNCHANGED
        assert self._known is not None
        self._told = told
        local = self._local(told)
        others = peers(told.rows.values(), local)
        ways = hops(local, others, self._settings.mode)
        wanted = tunnels(local, ways, self._settings)
        remade, refused = self._ensure(wanted)
        by_name = {link.name: link.index for link in self._around.tunnels if link.ours}
        links: dict[int, int] = {
            one.local.version: by_name[one.name] for one in wanted if one.name in by_name
        }
        before = self._known
        after = self._spared(before, plan(local, others, ways, links), told)
        refused += self._kernel.apply(before, after) if after != before else []
        self._known = None if refused else after
        swept = self._sweep({one.name for one in wanted}, after)
        self._note(after, told, problems(local, others, ways, self._settings) + refused)
        self.state.mtu = pod_mtu(local, self._settings)
        self.state.refused = tuple(refused[:_SHOWN])
        if refused:
            self.state.failures += 1
            return Outcome.RETRY
        changed = remade or swept or after != before
        self.state.changes += changed
        return Outcome.APPLIED if changed else Outcome.UNCHANGED

    def _observe(self) -> None:
        self._doubted = False
        self._addresses = self._own()
        self._around, self._known = self._kernel.observe(self._addresses)

    def _local(self, told: Told) -> Local:
        addresses: dict[int, IPAddress] = {}
        for address in self._addresses:
            addresses.setdefault(address.version, address)
        return Local(
            name=self._node,
            addresses=addresses,
            mtus={
                version: self._around.addresses[address][1]
                for version, address in addresses.items()
                if address in self._around.addresses
            },
            blocks=own_blocks(self._node, told.rows.values(), told.blocks),
            sources=sources(told.blocks),
            on_link=self._around.on_link,
        )

    def _ensure(self, wanted: Iterable[Tunnel]) -> tuple[bool, list[str]]:
        """Make these tunnels, and those anew whose nature cannot be changed.

        Says whether any was touched, and what was refused.
        """
        there = {link.name: link for link in self._around.tunnels}
        touched, refused = False, []
        for tunnel in wanted:
            link = there.get(tunnel.name)
            if link and link.ours and link.tunnel == tunnel and link.up:
                continue
            try:
                self._make(tunnel, link)
                touched = True
            except DataplaneError as exc:
                refused.append(str(exc))
        if touched:
            self._observe()
        return touched, refused

    def _make(self, tunnel: Tunnel, link: TunnelLink | None) -> None:
        if link and not link.ours:
            raise DataplaneError(
                f"{tunnel.name} is a VXLAN link of somebody else: set another name by `device`"
            )
        if (
            link
            and link.tunnel
            and replace(tunnel, mac=link.tunnel.mac, mtu=0) == replace(link.tunnel, mtu=0)
        ):
            self._kernel.mend_tunnel(link.index, tunnel)
            return
        if link:
            self._kernel.delete_tunnel(tunnel.name)
        self._kernel.make_tunnel(tunnel)

    def _sweep(self, wanted: set[str], after: Programmed) -> bool:
        """Delete tunnels that nothing goes through any more."""
        used = {route.link for route in after.routes}
        stale = [
            link.name
            for link in self._around.tunnels
            if link.ours and link.name not in wanted and link.index not in used
        ]
        for name in stale:
            self._kernel.delete_tunnel(name)
        kept = tuple(link for link in self._around.tunnels if link.name not in stale)
        self._around = replace(self._around, tunnels=kept)
        return bool(stale)

    def _spared(self, before: Programmed, desired: Programmed, told: Told) -> Programmed:
        """*desired*, with what may not be changed or deleted yet of *before*."""
        now, waiting = self._clock(), {}

        def merged(old: frozenset[Item], new: frozenset[Item]) -> frozenset[Item]:
            former = {one.key: one for one in old}
            wanted = {one.key for one in new}
            kept = []
            for key in former.keys() - wanted:
                since = self._missing_since.get(key, now) if told.in_sync and told.trusted else now
                if not (told.in_sync and told.trusted) or now < since + self._hold_s:
                    waiting[key] = since
                    kept.append(former[key])
            if not told.in_sync:
                new = frozenset(former.get(one.key, one) for one in new)
            return new | frozenset(kept)

        routes = merged(before.routes, desired.routes)
        needed = {route.source for route in routes}
        after = Programmed(
            routes=routes,
            rules=merged(before.rules, desired.rules),
            neighbours=merged(before.neighbours, desired.neighbours),
            forwards=merged(before.forwards, desired.forwards),
            # The kernel takes away with an address what has it as source.
            sources=desired.sources | {one for one in before.sources if one.address in needed},
        )
        self._missing_since = waiting
        return after

    def _note(self, after: Programmed, told: Told, found: Sequence[str]) -> None:
        if len(found) > _SHOWN:
            found = [*found[:_SHOWN], f"and {len(found) - _SHOWN} more"]
        for line in found:
            if line not in self.state.problems:
                log.warning("routes are not all as they should be", extra={"problem": line})
        links = {link.index: link.name for link in self._around.tunnels if link.ours}
        leading = [route for route in after.routes if route.link and not route.table]
        self.state.routes = sum(not route.table for route in after.routes)
        self.state.tunnelled = sum(route.link in links for route in leading)
        self.state.direct = len(leading) - self.state.tunnelled
        self.state.tunnels = tuple(sorted(links.values()))
        self.state.problems = tuple(found)
        self.state.in_sync = told.in_sync
        self.state.addresses = tuple(map(str, self._addresses))


def clear(kernel: Kernel) -> None:
    """Take away all that any life of a reconciler made.  Raises DataplaneError."""
    around, programmed = kernel.observe(())
    if programmed != Programmed():
        kernel.apply(programmed, Programmed())
    for link in around.tunnels:
        if link.ours:
            kernel.delete_tunnel(link.name)


def is_news(kind: int, payload: memoryview, known: Programmed | None, around: Surroundings) -> bool:
    """Of our routes only a deletion that we did not want is news, and of others' only networks on
    links; of links those that we use."""
    if known is None:
        return True
    ours = {link.index for link in around.tunnels if link.ours}
    if kind in (rtnl.NEWLINK, rtnl.DELLINK):
        used = ours | {index for index, _ in around.addresses.values()}
        return int.from_bytes(payload[4:8], "little") in used
    if kind in (rtnl.NEWADDR, rtnl.DELADDR):
        index = int.from_bytes(payload[4:8], "little")
        return payload[3] < rtnl.SCOPE_LINK and index not in ours
    return kind in (rtnl.NEWROUTE, rtnl.DELROUTE) and _is_route_news(kind, payload, known, around)


def _is_route_news(kind: int, payload: memoryview, known: Programmed, around: Surroundings) -> bool:
    if (route := parse_route(payload)) is not None:
        return kind == rtnl.DELROUTE and route in known.routes
    network = parse_on_link(payload)
    return network is not None and (kind == rtnl.NEWROUTE) != (network in around.on_link)
