"""What is changed in the kernel, and when it is not."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane import rtnl
from dataplane.block_routes import put_route
from dataplane.errors import DataplaneError
from dataplane.fabric_model import (
    BlockRoute,
    Programmed,
    Surroundings,
    Tunnel,
    TunnelLink,
)
from ipam.calls import TableRow
from net.address import IPAddress
from routing.model import Told
from routing.reconciler import Outcome, Reconciler, clear
from routing.settings import Mode, Settings
from tests.unit.dataplane.fakes import address_payload, link_payload, route_payload
from tests.unit.routing.samples import ON_LINK, UPLINK, B, C, own, row

FOUR, SIX = ip_address("192.0.2.1"), ip_address("2001:db8:1::1")


@dataclass
class FakeKernel:
    """What is programmed; *refuse* are words that steps are refused by."""

    programmed: Programmed = field(default_factory=Programmed)
    links: dict[str, TunnelLink] = field(default_factory=dict)
    refuse: list[str] = field(default_factory=list)
    broken: str = ""
    mtu: int = 1500
    looks: int = 0
    changes: list[str] = field(default_factory=list)

    def observe(self, own: Iterable[IPAddress]) -> tuple[Surroundings, Programmed]:
        self._fail("observe")
        self.looks += 1
        around = Surroundings(
            tunnels=tuple(self.links.values()),
            on_link=ON_LINK,
            addresses=dict.fromkeys(own, (UPLINK, self.mtu)),
        )
        return around, self.programmed

    def make_tunnel(self, tunnel: Tunnel) -> None:
        self._fail("make")
        self.changes.append(f"make {tunnel.name}")
        index = 100 + len(self.changes)
        self.links[tunnel.name] = TunnelLink(
            index=index, tunnel=tunnel, name=tunnel.name, up=True, ours=True
        )

    def mend_tunnel(self, index: int, tunnel: Tunnel) -> None:
        self.changes.append(f"mend {tunnel.name}")
        self.links[tunnel.name] = replace(self.links[tunnel.name], tunnel=tunnel, up=True)

    def delete_tunnel(self, name: str) -> None:
        self.changes.append(f"delete {name}")
        index = self.links.pop(name).index
        gone = self.programmed
        self.programmed = Programmed(
            routes=frozenset(one for one in gone.routes if one.link != index),
            rules=gone.rules,
            neighbours=frozenset(one for one in gone.neighbours if one.link != index),
            forwards=frozenset(one for one in gone.forwards if one.link != index),
            sources=frozenset(one for one in gone.sources if one.link != index),
        )

    def apply(self, before: Programmed, after: Programmed) -> list[str]:
        self._fail("apply")
        assert before == self.programmed
        self.changes.append("apply")
        if not self.refuse:
            self.programmed = after
        return self.refuse

    def _fail(self, step: str) -> None:
        if self.broken == step:
            raise DataplaneError(f"{step} failed")


@dataclass
class Node:
    kernel: FakeKernel = field(default_factory=FakeKernel)
    addresses: tuple[IPAddress, ...] = (FOUR, SIX)
    settings: Settings = field(default_factory=Settings)
    now: float = 0.0
    hold_s: float = 30.0
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.reconciler = Reconciler(
            self.settings,
            self.kernel,
            node="a",
            own=lambda: self.addresses,
            clock=lambda: self.now,
            hold_s=self.hold_s,
        )

    def settle(self, *rows: TableRow, in_sync: bool = True, trusted: bool = True) -> Outcome:
        return self.reconciler.reconcile(told(*rows, in_sync=in_sync, trusted=trusted))

    def leads(self) -> dict[str, str]:
        """Where each block goes: a link, or nowhere."""
        return {
            str(route.dst): str(route.link)
            for route in self.kernel.programmed.routes
            if not route.table
        }


def told(*rows: TableRow, **how: Any) -> Told:
    held = (own("10.80.1.0/26"), own("fd80::100/122"))
    return Told(rows={one.cidr: one for one in rows}, blocks=held, **how)


def test_the_kernel_is_looked_at_once_and_then_only_when_in_doubt() -> None:
    node = Node()
    outcomes = [node.settle(*B), node.settle(*B)]
    looks = node.kernel.looks
    node.reconciler.doubt()
    outcomes.append(node.settle(*B))

    assert outcomes == [Outcome.APPLIED, Outcome.UNCHANGED, Outcome.UNCHANGED]
    assert (looks, node.kernel.looks) == (1, 2)


def test_a_tunnel_is_made_when_a_node_needs_it_and_goes_with_the_last() -> None:
    node = Node()
    node.settle(*B)
    before = dict(node.kernel.links)
    node.settle(*B, *C)
    made = set(node.kernel.links)
    node.settle(*B)
    node.now = 29
    node.settle(*B)
    kept = set(node.kernel.links)
    node.now = 31
    node.settle(*B)

    assert (before, made, kept) == ({}, {"vxisthmus4"}, {"vxisthmus4"})
    assert node.kernel.links == {}
    assert node.reconciler.state.tunnels == ()
    assert not node.reconciler.holds


def test_what_the_table_no_longer_has_goes_after_a_while_and_not_before() -> None:
    node = Node()
    node.settle(*B)
    node.settle()
    waits = node.reconciler.holds
    kept = node.leads()
    node.now = 30
    node.settle()

    assert waits
    assert "10.80.2.0/26" in kept
    assert set(node.leads()) == {"10.80.1.0/26", "fd80::100/122"}


def test_what_comes_back_has_its_whole_time_again() -> None:
    node = Node()
    node.settle(*B)
    for node.now in (0, 20, 40):
        node.settle()
        node.settle(*B)

    assert "10.80.2.0/26" in node.leads()
    assert not node.reconciler.holds


def test_a_block_that_moved_is_replaced_at_once() -> None:
    node = Node()
    node.settle(*B)
    node.settle(row("10.80.2.0/26", "d", "192.0.2.4"), B[1])
    via = {str(one.dst): str(one.via) for one in node.kernel.programmed.routes}

    assert via["10.80.2.0/26"] == "192.0.2.4"


def test_a_remembered_table_adds_and_changes_nothing_that_is_there() -> None:
    node = Node()
    node.settle(*B)
    node.restart()
    node.now = 1000
    moved = row("10.80.2.0/26", "d", "192.0.2.4")
    node.settle(moved, row("10.80.9.0/26", "e", "192.0.2.9"), in_sync=False)
    remembered = {str(one.dst): str(one.via) for one in node.kernel.programmed.routes}
    node.settle(moved, in_sync=True)
    streamed = {str(one.dst): str(one.via) for one in node.kernel.programmed.routes}

    assert remembered["10.80.2.0/26"] == "192.0.2.2"
    assert {"10.80.9.0/26", "fd80::200/122"} <= set(remembered)
    assert streamed["10.80.2.0/26"] == "192.0.2.4"


def test_while_claims_are_frozen_nothing_goes_however_long() -> None:
    node = Node()
    node.settle(*B, *C)
    for node.now in (0, 100, 200):
        node.settle(trusted=False)
    frozen = node.leads()
    node.settle()
    node.now = 229
    node.settle()

    assert len(frozen) == 6
    assert len(node.leads()) == 6
    assert node.kernel.programmed.rules


def test_a_restart_changes_nothing() -> None:
    node = Node()
    node.settle(*B, *C)
    node.kernel.changes.clear()
    for how in (False, True):
        node.restart()
        outcome = node.settle(*B, *C, in_sync=how)

        assert outcome is Outcome.UNCHANGED
    assert node.kernel.changes == []


def test_a_tunnel_is_mended_where_it_can_be_and_made_anew_where_not() -> None:
    node = Node()
    node.settle(*C)
    node.kernel.changes.clear()
    node.kernel.mtu = 1400
    node.reconciler.doubt()
    node.settle(*C)
    mended = list(node.kernel.changes)
    node.addresses = (ip_address("192.0.2.99"), SIX)
    node.reconciler.doubt()
    node.settle(*C)

    assert mended == ["mend vxisthmus4"]
    assert node.kernel.changes[1:] == ["delete vxisthmus4", "make vxisthmus4", "apply"]
    assert node.reconciler.state.mtu == 1350
    assert len(node.kernel.programmed.forwards) == 1


def test_a_link_of_somebody_else_is_left_and_the_rest_is_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = Node()
    foreign = TunnelLink(index=9, tunnel=None, name="vxisthmus4", up=True, ours=False)
    node.kernel.links["vxisthmus4"] = foreign
    with caplog.at_level(logging.WARNING):
        outcome = node.settle(*B, *C)
        node.settle(*B, *C)

    assert outcome is Outcome.RETRY
    assert node.kernel.links == {"vxisthmus4": foreign}
    assert "10.80.2.0/26" in node.leads()
    assert node.reconciler.state.refused == (
        "vxisthmus4 is a VXLAN link of somebody else: set another name by `device`",
    )
    assert len(caplog.records) == 1  # said once


def test_what_is_refused_is_told_and_tried_again_from_what_the_kernel_has() -> None:
    node = Node()
    node.kernel.refuse = ["route to 10.80.2.0/26: another program has one"]
    first = node.settle(*B)
    node.kernel.refuse = []
    second = node.settle(*B)

    assert (first, second) == (Outcome.RETRY, Outcome.APPLIED)
    assert node.kernel.looks == 2
    assert node.reconciler.state.problems == ()
    assert (node.reconciler.state.failures, node.reconciler.state.changes) == (1, 1)


@pytest.mark.parametrize("step", ["observe", "apply"])
def test_after_a_failure_the_kernel_is_looked_at_anew(step: str) -> None:
    node = Node()
    node.kernel.broken = step
    with pytest.raises(DataplaneError, match=f"{step} failed"):
        node.settle(*B)
    node.kernel.broken = ""
    looks = node.kernel.looks

    assert node.settle(*B) is Outcome.APPLIED
    assert node.kernel.looks == looks + 1


def test_many_problems_are_told_in_few_lines() -> None:
    node = Node(settings=Settings(mode=Mode.DIRECT))
    node.settle(*(row(f"10.81.{n}.0/26", f"n{n}", "203.0.113.3") for n in range(50)))

    assert len(node.reconciler.state.problems) == 21
    assert node.reconciler.state.problems[-1] == "and 30 more"


def test_how_it_stands() -> None:
    node = Node()
    node.settle(*B, *C)
    state = node.reconciler.state

    assert (state.routes, state.direct, state.tunnelled, state.mtu) == (6, 2, 2, 1450)
    assert (state.tunnels, state.problems, state.in_sync) == (("vxisthmus4",), (), True)
    assert state.addresses == ("192.0.2.1", "2001:db8:1::1")


def test_cleared_nothing_of_ours_is_left() -> None:
    node = Node()
    foreign = TunnelLink(index=9, tunnel=None, name="other", up=True, ours=False)
    node.settle(*B, *C)
    node.kernel.links["other"] = foreign
    clear(node.kernel)

    assert node.kernel.programmed == Programmed()
    assert node.kernel.links == {"other": foreign}


def test_news_are_what_others_do_to_what_we_use() -> None:
    node = Node()
    before = node.reconciler.is_news(rtnl.NEWLINK, memoryview(link_payload(50, "x")))
    node.settle(*B, *C)
    tunnel = node.kernel.links["vxisthmus4"].index
    ours = next(one for one in node.kernel.programmed.routes if one.link == tunnel)
    stale = BlockRoute(ip_network("10.99.0.0/26"), 512, tunnel)
    cases: list[tuple[int, bytes, bool]] = [
        (rtnl.NEWLINK, link_payload(50, "veth"), False),
        (rtnl.DELLINK, link_payload(tunnel, "vxisthmus4"), True),
        (rtnl.NEWLINK, link_payload(UPLINK, "uplink"), True),
        (rtnl.DELROUTE, put_route(ours, replace=True)[16:], True),
        (rtnl.NEWROUTE, put_route(ours, replace=True)[16:], False),
        (rtnl.DELROUTE, put_route(stale, replace=True)[16:], False),
        (rtnl.NEWROUTE, route_payload(ip_network("172.16.0.0/12"), (None, 5)), True),
        (rtnl.NEWROUTE, route_payload(ON_LINK[0].network, (None, UPLINK)), False),
        (rtnl.DELROUTE, route_payload(ON_LINK[0].network, (None, UPLINK)), True),
        (rtnl.NEWROUTE, route_payload(ip_network("10.80.1.5/32"), (None, 5), protocol=176), False),
        (rtnl.NEWADDR, address_payload(UPLINK, ip_interface("192.0.2.9/24")), True),
        (rtnl.NEWADDR, address_payload(tunnel, ip_interface("10.80.1.0/32")), False),
        (28, b"", False),
    ]

    assert before
    for kind, payload, is_news in cases:
        assert node.reconciler.is_news(kind, memoryview(payload)) is is_news, (kind, payload)


rows = st.dictionaries(
    st.sampled_from([f"10.80.{n}.0/26" for n in range(2, 8)] + ["fd80::200/122"]),
    st.sampled_from(
        (("b", "192.0.2.2"), ("c", "203.0.113.3"), ("d", "192.0.2.4"), ("e", "2001:db8:9::1"))
    ),
)


@settings(deadline=None)
@given(st.lists(rows, max_size=5), rows)
def test_from_any_state_any_other_is_reached(
    course: list[dict[str, tuple[str, str]]], last: dict[str, tuple[str, str]]
) -> None:
    node, fresh = Node(hold_s=0), Node(hold_s=0)
    for table in (*course, last):
        made = [row(cidr, *who) for cidr, who in table.items()]
        assert node.settle(*made) is not Outcome.RETRY
    fresh.settle(*made)

    def shape(of: Node) -> set[tuple[object, ...]]:
        names = {link.index: name for name, link in of.kernel.links.items()}
        return {
            (one.dst, one.table, names.get(one.link, str(one.link)), one.via, one.source)
            for one in of.kernel.programmed.routes
        }

    assert shape(node) == shape(fresh)
    assert set(node.kernel.links) == set(fresh.kernel.links)
    assert len(node.kernel.programmed.forwards) == len(fresh.kernel.programmed.forwards)
