"""Which endpoints of a Service's port a node may send to.  Pure.

KEP-1669 (terminating endpoints), KEP-2433 and KEP-3015 (hints), KEP-2086 (internal policy).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proxy.model import Endpoint, NodeView


@dataclass(frozen=True, slots=True)
class Choice:
    """*cluster* for traffic that may leave the node, *local* for what must stay on it.

    Each without doubles, in the order of their addresses.  *is_anywhere*: some node has one, so
    that a node which has none drops, and does not refuse.
    """

    cluster: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    is_anywhere: bool


def choose(endpoints: Iterable[Endpoint], node: NodeView) -> Choice:
    """The lists of one port and family, of those that answer now."""
    everyone = distinct(endpoints)
    usable = _usable(everyone)
    local = _usable([each for each in everyone if each.node == node.name])
    return Choice(
        cluster=tuple(_preferred(usable, node)),
        local=tuple(local),
        is_anywhere=bool(usable),
    )


def left_out(
    endpoints: Iterable[Endpoint], node: NodeView, *, is_local: bool
) -> dict[Endpoint, str]:
    """Those that `choose` does not choose for one of its lists, and why, for people."""
    everyone = distinct(endpoints)
    here = [each for each in everyone if each.node == node.name] if is_local else everyone
    usable = _usable(here)
    found = dict.fromkeys(set(everyone) - set(here), "not on this node, and the policy is Local")
    for each in set(here) - set(usable):
        ends = each.is_serving and each.is_terminating
        found[each] = "terminates, and others are ready" if ends else "not ready"
    if not is_local:
        for each in set(usable) - set(_preferred(usable, node)):
            zones, nodes = ", ".join(sorted(each.zone_hints)), ", ".join(sorted(each.node_hints))
            meant = " and ".join(
                [f"zones {zones}"] * bool(zones) + [f"nodes {nodes}"] * bool(nodes)
            )
            found[each] = f"meant for {meant}: this is {node.name}, zone {node.zone or 'unknown'}"
    return found


def distinct(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """One of each address and port: several slices may name it; the readiest is right."""
    found: dict[tuple[int, int], Endpoint] = {}
    for each in endpoints:
        key = (int(each.address), each.port)
        if key not in found or _rank(each) > _rank(found[key]):
            found[key] = each
    return [found[key] for key in sorted(found)]


def _rank(each: Endpoint) -> tuple[bool, bool]:
    return each.is_ready, each.is_serving


def _usable(endpoints: list[Endpoint]) -> list[Endpoint]:
    """The ready ones; none ready: those that terminate and still serve."""
    ready = [each for each in endpoints if each.is_ready]
    return ready or [each for each in endpoints if each.is_serving and each.is_terminating]


def _preferred(usable: list[Endpoint], node: NodeView) -> list[Endpoint]:
    """Those hinted for this node, else for its zone.

    Hints count only where every endpoint has some: else those without would get nothing.
    """
    rules: list[tuple[Callable[[Endpoint], frozenset[str]], str]] = [
        (lambda each: each.node_hints, node.name),
        (lambda each: each.zone_hints, node.zone),
    ]
    for hints, here in rules:
        if here and all(map(hints, usable)):
            meant = [each for each in usable if here in hints(each)]
            if meant:
                return meant
    return usable
