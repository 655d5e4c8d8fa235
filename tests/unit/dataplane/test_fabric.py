"""From what is programmed to what should be: in which order, and that nothing is missing."""

from collections.abc import Callable
from dataclasses import fields
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane import rtnl
from dataplane.block_routes import parse_route, parse_rule
from dataplane.errors import NetlinkError
from dataplane.fabric import Step, noting, steps
from dataplane.fabric_model import (
    BlockRoute,
    Forward,
    Neighbour,
    Programmed,
    Rule,
    Source,
)
from dataplane.netlink import EXCLUSIVE
from dataplane.tunnel import parse_forward, parse_neighbour
from tests.unit.dataplane.fakes import kind_of

A, B = ip_address("192.0.2.1"), ip_address("192.0.2.2")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
BLOCKS = tuple(ip_network(f"10.80.{number}.0/26") for number in range(3))


def by_key(items: set[Any]) -> frozenset[Any]:
    return frozenset({item.key: item for item in items}.values())


def some(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[frozenset[Any]]:
    return st.sets(st.one_of(*kinds), max_size=6).map(by_key)


links = st.sampled_from((7, 8))
states = st.builds(
    Programmed,
    routes=some(
        st.builds(
            BlockRoute,
            st.sampled_from(BLOCKS),
            st.sampled_from((512, 65535)),
            links,
            st.sampled_from((A, B)),
            st.sampled_from((None, A)),
            st.sampled_from((0, 177)),
        )
    ),
    rules=some(
        st.sampled_from(BLOCKS).flatmap(
            lambda each: st.builds(
                Rule, st.just(each), st.sampled_from([each, each.supernet()]), st.just(177)
            )
        )
    ),
    neighbours=some(st.builds(Neighbour, links, st.sampled_from((A, B)), st.sampled_from(MACS))),
    forwards=some(st.builds(Forward, links, st.sampled_from(MACS), st.sampled_from((A, B)))),
    sources=some(st.builds(Source, links, st.sampled_from((A, B)))),
)


class Kernel:
    """Carries out messages on values, and refuses what a kernel would."""

    def __init__(self, state: Programmed) -> None:
        self.held: dict[str, dict[Any, Any]] = {
            field.name: {one.key: one for one in getattr(state, field.name)}
            for field in fields(Programmed)
        }

    def carry_out(self, message: bytes) -> None:
        kind, payload = kind_of(message), message[16:]
        which, item = self._item(kind, payload)
        held = self.held[which]
        if kind in (rtnl.DELROUTE, rtnl.DELADDR, 33, 29):
            assert held.pop(item.key) == item
            return
        flags = int.from_bytes(message[6:8], "little")
        assert not (flags & EXCLUSIVE and item.key in held)
        if which == "routes" and item.link:
            self._check_way(item)
        held[item.key] = item

    def _check_way(self, route: BlockRoute) -> None:
        """A route is never there before what it leads through, if that comes at all."""
        wanted = {one.key for one in self.coming.neighbours}
        if (route.link, route.via) in wanted:
            assert (route.link, route.via) in self.held["neighbours"]

    coming = Programmed()

    @staticmethod
    def _item(kind: int, payload: bytes) -> tuple[str, Any]:
        if kind in (rtnl.NEWADDR, rtnl.DELADDR):
            found = rtnl.parse_address(payload)
            return "sources", Source(found.index, found.address.ip)
        if kind in (28, 29):
            if payload[0] == 7:
                return "forwards", parse_forward(payload)
            return "neighbours", parse_neighbour(payload)
        if kind in (32, 33):
            return "rules", parse_rule(payload)
        return "routes", parse_route(payload)

    @property
    def state(self) -> Programmed:
        return Programmed(**{name: frozenset(held.values()) for name, held in self.held.items()})


@settings(deadline=None)
@given(states, states)
def test_any_state_becomes_any_other(before: Programmed, after: Programmed) -> None:
    kernel = Kernel(before)
    kernel.coming = after
    for step in steps(before, after):
        kernel.carry_out(step.message)

    assert kernel.state == after
    assert steps(after, after) == []


def test_what_a_route_leads_through_comes_first_and_goes_last() -> None:
    state = Programmed(
        routes=frozenset({BlockRoute(BLOCKS[0], 512, 7, A, B)}),
        rules=frozenset({Rule(BLOCKS[0], BLOCKS[1], 177)}),
        neighbours=frozenset({Neighbour(7, A, MACS[0])}),
        forwards=frozenset({Forward(7, MACS[0], A)}),
        sources=frozenset({Source(7, B)}),
    )
    coming = [step.what.split()[0] for step in steps(Programmed(), state)]
    going = [step.what.split()[0] for step in steps(state, Programmed())]

    assert coming == ["neighbour", "forwarding", "address", "route", "rule"]
    assert going == ["route", "rule", "address", "neighbour", "forwarding"]


def test_refusals_are_told_in_words_and_what_is_gone_is_as_wanted() -> None:
    refused: list[str] = []
    note: Callable[[NetlinkError], bool] = noting(
        [
            Step(b"", "route to 10.80.0.0/26"),
            Step(b"", "route to x, to be deleted", forgiving=True),
        ],
        refused,
    )
    exists, gone, broken = 17, 3, 22

    answers = [
        note(NetlinkError(exists, "message")),
        note(NetlinkError(gone, "message", index=1)),
        note(NetlinkError(broken, "message", index=1, text="no such thing")),
    ]

    assert answers == [True] * 3
    assert refused == [
        "route to 10.80.0.0/26: another program has one",
        "route to x, to be deleted: no such thing",
    ]


def test_an_address_of_the_host_is_one_address() -> None:
    after = Programmed(sources=frozenset({Source(7, A)}))
    (step,) = steps(Programmed(), after)

    assert rtnl.parse_address(step.message[16:]).address == ip_interface("192.0.2.1/32")
