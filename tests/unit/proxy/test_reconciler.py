"""From any Services to any others: what the maps then do to a packet is what the API promises."""

import errno
from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.errors import DataplaneError, NetlinkError, NftError
from dataplane.flows import Flows
from dataplane.nft.objects import Element, Protocol
from net.address import IPAddress
from proxy.model import (
    Endpoint,
    Endpoints,
    NodeView,
    Service,
    ServiceName,
    ServicePort,
    TrafficPolicy,
)
from proxy.reconciler import Reconciler, Wanted
from proxy.walk import Fate, Packet, Source, Tables
from tests.unit.dataplane.nft.fake import FakeTable
from tests.unit.proxy import reference

NODE = NodeView(
    name="here",
    zone="z1",
    addresses=(ip_network("172.18.0.2/32"), ip_network("fd18::2/128")),
    pods=(ip_network("10.244.0.0/16"), ip_network("fd24::/64")),
    service_cidrs=(ip_network("10.96.0.0/24"), ip_network("fd96::/120")),
)
SOURCES: dict[tuple[Source, int], IPAddress] = {
    (Source.POD, 4): ip_address("10.244.0.9"),
    (Source.POD, 6): ip_address("fd24::9"),
    (Source.NODE, 4): ip_address("172.18.0.2"),
    (Source.NODE, 6): ip_address("fd18::2"),
    (Source.OUTSIDE, 4): ip_address("203.0.113.5"),
    (Source.OUTSIDE, 6): ip_address("2001:db8::5"),
}
_BASES = {4: ("10.96.0.", "192.0.2.", "10.244.1."), 6: ("fd96::", "2001:db8:1::", "fd24::1:")}
_POLICY = st.sampled_from(TrafficPolicy)
_HINTS = st.frozensets(st.sampled_from(["z1", "z2"]))


def endpoints(version: int) -> st.SearchStrategy[Endpoint]:
    return st.builds(
        Endpoint,
        address=st.integers(1, 12).map(lambda n: ip_address(f"{_BASES[version][2]}{n}")),
        port=st.just(8080),
        node=st.sampled_from(["here", "there", ""]),
        is_ready=st.booleans(),
        is_serving=st.booleans(),
        is_terminating=st.booleans(),
        zone_hints=_HINTS,
        node_hints=st.frozensets(st.sampled_from(["here", "there"])),
    )


def _distinct(found: list[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple({each.address: each for each in found}.values())


@st.composite
def wanted(draw: st.DrawFn, number: int) -> Wanted:
    """Service *number*: its addresses and ports are nobody else's."""
    versions = draw(st.sampled_from([(4,), (6,), (4, 6)]))
    has_outer, has_node_port = draw(st.booleans()), draw(st.booleans())
    protocols = draw(st.sampled_from([("tcp",), ("udp",), ("tcp", "udp")]))
    ports = tuple(
        ServicePort(
            name=word,
            protocol=Protocol(word),
            port=80,
            node_port=30000 + number if has_node_port else 0,
        )
        for word in protocols
    )
    service = Service(
        name=ServiceName("shop", f"s{number}"),
        ports=ports,
        cluster_ips=tuple(ip_address(f"{_BASES[v][0]}{number}") for v in versions),
        external_ips=tuple(ip_address(f"{_BASES[v][1]}{number}") for v in versions) * has_outer,
        load_balancer_ips=tuple(
            ip_address(f"{_BASES[v][1]}{number + 100}") for v in versions
        ) * has_outer,
        source_ranges=draw(st.sampled_from([(), (ip_network("203.0.113.0/24"),),
                                            (ip_network("10.0.0.0/8"), ip_network("fd24::/16"))])),
        internal_policy=draw(_POLICY),
        external_policy=draw(_POLICY),
        affinity_s=draw(st.sampled_from([0, 600])),
    )  # fmt: skip
    found: Endpoints = {}
    for port in ports:
        members: list[Endpoint] = []
        for version in versions:
            members += draw(st.lists(endpoints(version), max_size=11).map(_distinct))
        found[port.name, port.protocol] = tuple(members)
    return Wanted(service, found)


NAMES = [ServiceName("shop", f"s{number}") for number in range(1, 4)]


@st.composite
def states(draw: st.DrawFn) -> dict[ServiceName, Wanted]:
    return {
        name: draw(wanted(number)) for number, name in enumerate(NAMES, 1) if draw(st.booleans())
    }


def packets(state: Mapping[ServiceName, Wanted]) -> list[Packet]:
    found = []
    for service, _ in state.values():
        addresses = (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips)
        targets = [(address, False) for address in addresses]
        targets += [(ip_address("172.18.0.2"), True), (ip_address("fd18::2"), True)]
        for address, is_node in targets:
            for protocol, port in {*reference.ports(service), (Protocol.TCP, 9)}:
                found += [
                    Packet(source=source, source_address=SOURCES[source, address.version],
                           address=address, protocol=protocol, port=port,
                           is_to_this_node=is_node)
                    for source in Source
                ]  # fmt: skip
    return found


def served(state: Mapping[ServiceName, Wanted]) -> tuple[Reconciler, dict[int, FakeTable]]:
    tables = {4: FakeTable(), 6: FakeTable()}
    reconciler = Reconciler(tables, NODE)
    reconciler.begin(state)
    return reconciler, tables


def kernel(tables: Mapping[int, FakeTable]) -> Tables:
    return Tables(each for table in tables.values() for each in table.elements or ())


@settings(max_examples=25, deadline=None)
@given(states())
def test_what_the_maps_do_is_what_the_api_promises(state: dict[ServiceName, Wanted]) -> None:
    _, tables = served(state)
    there = kernel(tables)

    for packet in packets(state):
        assert there.fate(packet) == reference.fate(state.values(), NODE, packet), packet


@settings(max_examples=20, deadline=None)
@given(states(), states())
def test_from_any_state_to_any_other_nothing_is_left_and_nothing_lacks(
    first: dict[ServiceName, Wanted], second: dict[ServiceName, Wanted]
) -> None:
    reconciler, tables = served(first)

    reconciler.change({name: second.get(name) for name in NAMES})

    assert reconciler.repair() == 0
    for packet in packets(second):
        assert kernel(tables).fate(packet) == reference.fate(second.values(), NODE, packet)


WEB = Service(
    name=NAMES[0],
    ports=(ServicePort(name="tcp", protocol=Protocol.TCP, port=80),),
    cluster_ips=(ip_address("10.96.0.1"),),
)


def pods(*numbers: int) -> Endpoints:
    return {
        ("tcp", Protocol.TCP): tuple(
            Endpoint(address=ip_address(f"10.244.1.{n}"), port=80, node="there") for n in numbers
        )
    }


def test_one_endpoint_more_costs_as_much_whatever_else_there_is() -> None:
    many = {
        ServiceName("x", str(n)): Wanted(
            replace(WEB, name=ServiceName("x", str(n)), cluster_ips=(ip_address("10.96.1.0") + n,)),
            pods(1, 2),
        )
        for n in range(300)
    }
    reconciler, tables = served({**many, WEB.name: Wanted(WEB, pods(1, 2))})
    before = tables[4].transactions

    reconciler.change({WEB.name: Wanted(WEB, pods(1, 2, 3))})

    assert tables[4].transactions == before + 1


def test_until_all_services_are_there_what_others_translate_is_not_dropped() -> None:
    tables = {4: FakeTable(), 6: FakeTable()}
    seen: list[frozenset[str]] = []
    apply = tables[4].apply

    def watched(*, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None:
        apply(delete=delete, add=add)
        seen.append(frozenset(each.of.name for each in tables[4].elements or ()))

    tables[4].apply = watched  # type: ignore[method-assign]
    Reconciler(tables, NODE).begin({WEB.name: Wanted(WEB, pods(1, 2))})

    assert {"services", "cluster-ips"} <= seen[-1]
    assert [names for names in seen if "service-cidrs" in names] == seen[-1:]


def test_nothing_is_said_to_the_kernel_where_nothing_changes() -> None:
    reconciler, tables = served({WEB.name: Wanted(WEB, pods(1, 2))})
    before = tables[4].transactions

    reconciler.change({WEB.name: Wanted(WEB, pods(2, 1))})

    assert tables[4].transactions == before


def test_a_service_that_the_kernel_refuses_holds_up_no_other() -> None:
    reconciler, tables = served({})
    refusal = NetlinkError(errno.ENFILE, "nftables transaction")
    tables[4].failures = [refusal, refusal]
    other = replace(WEB, name=NAMES[1], cluster_ips=(ip_address("10.96.0.2"),))

    reconciler.change({WEB.name: Wanted(WEB, pods(1)), other.name: Wanted(other, pods(1))})

    assert len(reconciler.refused) == 1
    assert reconciler.repair() > 0
    for address in ("10.96.0.1", "10.96.0.2"):
        packet = Packet(source=Source.POD, source_address=SOURCES[Source.POD, 4],
                        address=ip_address(address), protocol=Protocol.TCP, port=80)  # fmt: skip
        assert kernel(tables).fate(packet).fate is Fate.TRANSLATED


def test_an_agent_that_begins_anew_leaves_every_slot_as_it_is() -> None:
    first, tables = served({WEB.name: Wanted(WEB, pods(1, 2, 3, 4))})
    first.change({WEB.name: Wanted(WEB, pods(2, 3, 4))})
    before = tables[4].elements, tables[4].transactions

    Reconciler(tables, NODE).begin({WEB.name: Wanted(WEB, pods(2, 3, 4))})

    assert (tables[4].elements, tables[4].transactions) == before


def test_what_the_kernel_refuses_at_the_start_holds_up_nothing_else() -> None:
    tables = {4: FakeTable(), 6: FakeTable()}
    reconciler = Reconciler(tables, NODE)
    reconciler.begin({})
    refusal = NetlinkError(errno.ENFILE, "nftables transaction")
    tables[4].failures = [refusal, refusal]  # all at once, and then the first by itself

    reconciler.begin({WEB.name: Wanted(WEB, pods(1, 2))})

    assert "nftables transaction" in reconciler.trouble
    assert reconciler.repair() == 1
    assert reconciler.trouble == ""


def test_another_view_of_the_node_changes_what_depends_on_it() -> None:
    reconciler, tables = served({WEB.name: Wanted(WEB, pods(1, 2))})
    elsewhere = replace(NODE, name="there", pods=(ip_network("10.245.0.0/16"),))

    reconciler.look(elsewhere)

    assert reconciler.repair() == 0
    fresh = {4: FakeTable(), 6: FakeTable()}
    Reconciler(fresh, elsewhere).begin({WEB.name: Wanted(WEB, pods(1, 2))})
    assert tables[4].elements == fresh[4].elements


class Older(FakeTable):
    """Works, by the rules of another version."""

    def chains(self) -> frozenset[str]:
        return super().chains() | {"services"}


@pytest.mark.parametrize("failures", [[], [NftError("too much for it")]])
def test_rules_of_another_version_are_exchanged_with_all_elements_if_nft_takes_it(
    failures: list[DataplaneError],
) -> None:
    tables, state = {4: Older(), 6: FakeTable()}, {WEB.name: Wanted(WEB, pods(1, 2))}
    tables[4].failures = list(failures)

    reconciler = Reconciler(tables, NODE)
    reconciler.begin(state)

    assert reconciler.repair() == 0
    assert (tables[4].transactions == 1) is (not failures)
    assert tables[4].elements == served(state)[1][4].elements


class Flown:
    """Stands for conntrack."""

    def __init__(self) -> None:
        self.forgotten: list[Flows] = []
        self.alive: set[Flows] = set()
        self.failure: DataplaneError | None = None

    def leading(self) -> set[Flows]:
        if self.failure:
            raise self.failure
        return self.alive

    def forget(self, which: Collection[Flows]) -> None:
        self.forgotten += which


def test_flows_to_who_left_are_forgotten_after_a_change_and_over_a_restart() -> None:
    tables = {4: FakeTable(), 6: FakeTable()}
    udp = replace(WEB, ports=(ServicePort(name="tcp", protocol=Protocol.UDP, port=80),))
    one, two = ({("tcp", Protocol.UDP): pods(*numbers)["tcp", Protocol.TCP]} for numbers in
                ((1,), (1, 2)))  # fmt: skip
    gone = Flows(4, WEB.cluster_ips[0], Protocol.UDP, 80, ip_address("10.244.1.2"))
    running, again = Flown(), Flown()
    reconciler = Reconciler(tables, NODE, running)
    reconciler.begin({WEB.name: Wanted(udp, two)})
    running.forgotten.clear()

    reconciler.change({WEB.name: Wanted(udp, one)})
    reconciler.change({WEB.name: Wanted(udp, two)})
    Reconciler(tables, NODE, again).begin({WEB.name: Wanted(udp, one)})

    assert running.forgotten == [gone]
    assert again.forgotten == [gone]


def test_who_begins_says_whom_connections_lead_to_that_left_meanwhile() -> None:
    flow = Flows(4, WEB.cluster_ips[0], Protocol.TCP, 80, ip_address("10.244.1.2"))
    conntrack, node = Flown(), replace(NODE, pods=(ip_network("10.244.0.0/16"),))
    conntrack.alive = {flow}

    def begun(*numbers: int) -> list[tuple[str, tuple[Flows, ...]]]:
        reconciler = Reconciler({4: FakeTable(), 6: FakeTable()}, node, conntrack)
        found = reconciler.begin({WEB.name: Wanted(WEB, pods(*numbers))})
        return [(str(each.address), each.flows) for each in found]

    assert begun(1, 2) == []
    assert begun(1) == [("10.244.1.2", (flow,))]
    conntrack.failure = NetlinkError(4, "conntrack")
    assert begun(1) == []


def test_the_api_servers_own_service_is_never_programmed_to_nothing() -> None:
    tables = {4: FakeTable(), 6: FakeTable()}
    own = replace(WEB, name=ServiceName("default", "kubernetes"))
    reconciler = Reconciler(tables, NODE)
    reconciler.begin({own.name: Wanted(own, pods(1, 2))})

    def programmed() -> set[Element]:
        # Where they are is not read back: each might be here, and reach itself.
        return {each for each in tables[4].elements or () if each.of.name != "hairpin"}

    before = programmed()
    unready = {port: tuple(replace(each, is_ready=False, is_serving=False) for each in members)
               for port, members in pods(1, 2).items()}  # fmt: skip

    for news in (Wanted(own, {}), Wanted(own, unready), None):
        reconciler.change({own.name: news})
        assert programmed() == before
    again = Reconciler(tables, NODE)
    again.begin({own.name: Wanted(own, {})})
    again.change({own.name: Wanted(own, unready)})
    assert programmed() == before

    again.change({own.name: Wanted(own, pods(3))})
    assert programmed() != before
