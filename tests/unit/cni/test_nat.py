from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from itertools import combinations
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.capabilities import PortMapping
from cni.capabilities import Protocol as Capability
from cni.nat import Flow, Published, flows, local, plan
from cni.tables import LOCAL
from dataplane.nft.objects import Element, Protocol
from tests.unit.cni.published import NETWORKS, Port, pod, published
from tests.unit.dataplane.nft.fake import FakeTable


def listing(elements: frozenset[Element]) -> str:
    return "".join(f"{line}\n" for line in sorted(map(str, elements)))


def test_a_masqueraded_pod_is_its_addresses_and_its_networks_subnets() -> None:
    assert listing(plan([pod("a", "10.1.0.2/24", "fd00::2/64", masquerade=True)])) == dedent("""\
        local4 { 10.1.0.0/24 . 10.1.0.0/24 }
        local6 { fd00::/64 . fd00::/64 }
        masq4 { 10.1.0.2 comment "net/a/eth0" }
        masq6 { fd00::2 comment "net/a/eth0" }
        """)


def test_a_bridged_pod_with_a_port_is_masqueraded_to_its_neighbours() -> None:
    assert listing(plan([pod("a", port_mappings=(Port(8080),))])) == dedent("""\
        hairpin4 { 10.1.0.0/24 . 10.1.0.2 comment "net/a/eth0" }
        hostport4_any { tcp . 8080 comment "net/a/eth0" : 10.1.0.2 . 80 }
        """)


def test_a_routed_pod_with_a_port_is_masqueraded_to_itself_alone() -> None:
    ports = (Port(8080, protocol="sctp"),)

    assert listing(plan([pod("a", routed=True, port_mappings=ports)])) == dedent("""\
        hairpin4 { 10.1.0.2 . 10.1.0.2 comment "net/a/eth0" }
        hostport4_any { sctp . 8080 comment "net/a/eth0" : 10.1.0.2 . 80 }
        """)


def test_a_dual_stack_pod_has_the_port_in_both_families_by_its_first_addresses() -> None:
    both = pod("a", "10.1.0.2/24", "fd00::2/64", "10.1.0.9/24", port_mappings=(Port(8080),))

    assert listing(plan([both])) == dedent("""\
        hairpin4 { 10.1.0.0/24 . 10.1.0.2 comment "net/a/eth0" }
        hairpin6 { fd00::/64 . fd00::2 comment "net/a/eth0" }
        hostport4_any { tcp . 8080 comment "net/a/eth0" : 10.1.0.2 . 80 }
        hostport6_any { tcp . 8080 comment "net/a/eth0" : fd00::2 . 80 }
        """)


@pytest.mark.parametrize(
    ("host_ip", "expected"),
    [
        ("192.0.2.1", 'hostport4 { 192.0.2.1 . tcp . 80 comment "net/a/eth0" : 10.1.0.2 . 80 }'),
        ("2001:db8::1", 'hostport6 { 2001:db8::1 . tcp . 80 comment "net/a/eth0" : fd00::2 . 80 }'),
        ("0.0.0.0", 'hostport4_any { tcp . 80 comment "net/a/eth0" : 10.1.0.2 . 80 }'),
        ("::", 'hostport6_any { tcp . 80 comment "net/a/eth0" : fd00::2 . 80 }'),
    ],
)
def test_a_host_address_limits_a_mapping_to_it_and_to_its_family(
    host_ip: str, expected: str
) -> None:
    ports = (Port(80, host_ip=ip_address(host_ip)),)
    planned = plan([pod("a", "10.1.0.2/24", "fd00::2/64", port_mappings=ports)])

    assert [str(each) for each in planned if "hostport" in each.of.name] == [expected]


def test_a_mapping_of_a_family_the_pod_lacks_leaves_no_trace() -> None:
    assert plan([pod("a", port_mappings=(Port(80, host_ip=ip_address("::1")),))]) == frozenset()


def test_a_guarded_pod_is_its_host_side_and_its_mac() -> None:
    assert listing(plan([pod("a", mac_spoof_check=True)])) == dedent("""\
        guarded { "vetha" comment "net/a/eth0" }
        permitted { "vetha" . 02:00:00:00:00:01 comment "net/a/eth0" }
        """)


def test_a_pod_that_wants_nothing_is_nothing() -> None:
    assert plan([pod("a")]) == frozenset()


def test_the_later_holder_of_a_port_has_it() -> None:
    early = pod("a", "10.1.0.2/24", started=5, port_mappings=(Port(80),))
    late = pod("b", "10.1.0.3/24", started=6, port_mappings=(Port(80),))
    (holder,) = (each for each in plan([late, early]) if "hostport" in each.of.name)

    assert holder.text() == 'tcp . 80 comment "net/b/eth0" : 10.1.0.3 . 80'


def test_a_parsed_mapping_is_understood() -> None:
    mapping = PortMapping(host_port=53, container_port=5353, protocol=Capability.UDP)
    (port,) = (
        each for each in plan([pod("a", port_mappings=(mapping,))]) if "hostport" in each.of.name
    )

    assert port.text().startswith("udp . 53 ")


def test_long_names_are_cut_so_that_a_comment_fits() -> None:
    long = Published(
        who=pod("a").who.__class__("n" * 200, "c" * 64, "e" * 15),
        started_ns=1,
        addresses=pod("a").addresses,
        masquerade=True,
    )
    (masqueraded,) = plan([long])

    assert masqueraded.comment == f"{'n' * 64}/{'c' * 12}/{'e' * 15}"


def test_adjacent_subnets_of_a_network_are_one() -> None:
    halves = (ip_network("10.0.0.0/25"), ip_network("10.0.0.128/25"))
    planned = plan([pod("a", masquerade=True, subnets=halves)])

    assert [str(each) for each in planned if each.of == LOCAL[4]] == [
        "local4 { 10.0.0.0/24 . 10.0.0.0/24 }"
    ]


groups = st.lists(
    st.sampled_from(NETWORKS).map(
        lambda nets: tuple(IPv4Network(net) for net in nets if ":" not in net)
    ),
    max_size=4,
)


@given(groups, st.data())
def test_pairs_of_subnets_are_disjoint_and_cover_what_is_local_and_no_more(
    networks: list[tuple[IPv4Network, ...]], data: st.DataObject
) -> None:
    made = local(networks)
    places = [
        net[offset]
        for group in networks
        for net in group
        for offset in (0, 300 % net.num_addresses)
    ]
    place = st.sampled_from([*places, IPv4Address("192.0.2.1")])
    one, other = data.draw(place), data.draw(place)
    is_local = any(
        any(one in net for net in group) and any(other in net for net in group)
        for group in networks
    )
    covering = [
        each
        for each in made
        if each.key[:4] <= one.packed <= each.end[:4]
        and each.key[4:] <= other.packed <= each.end[4:]
    ]

    assert len(covering) == is_local


@given(st.lists(published, max_size=6))
def test_every_plan_is_taken_by_the_kernel_and_has_each_key_once(all_of: list[Published]) -> None:
    planned = plan(all_of)
    FakeTable().replace(planned)

    for one, other in combinations(planned, 2):
        assert (one.of, one.key, one.end) != (other.of, other.key, other.end)


@given(st.lists(published, max_size=5, unique_by=lambda each: each.who), st.randoms())
def test_a_plan_does_not_depend_on_order(all_of: list[Published], random: object) -> None:
    shuffled = list(all_of)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert plan(shuffled) == plan(all_of)


def test_flows_are_forgotten_for_ports_without_connections() -> None:
    ports = (
        Port(53, protocol="udp"),
        Port(80, protocol="tcp"),
        Port(9, protocol="sctp", host_ip=ip_address("2001:db8::1")),
        Port(7, protocol="udp", host_ip=ip_address("192.0.2.1")),
    )
    planned = plan([pod("a", "10.1.0.2/24", "fd00::2/64", masquerade=True, port_mappings=ports)])

    assert flows(planned) == {
        Flow(Protocol.UDP, 53, None),
        Flow(Protocol.SCTP, 9, ip_address("2001:db8::1")),
        Flow(Protocol.UDP, 7, ip_address("192.0.2.1")),
    }
