"""From the cluster's table to routes, entries and tunnels."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.fabric_model import BlockRoute, Forward, Neighbour, Programmed, Rule, Source
from ipam.calls import TableRow
from ipam.cluster import BlockState
from ipam.holdings import OwnState
from routing.model import Direct, Local, Peer, Through
from routing.names import (
    NODE_TABLE,
    ROUTE_PRIORITY,
    UNREACHABLE_PRIORITY,
    tunnel_gateway,
    tunnel_mac,
)
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
from tests.unit.routing.samples import UPLINK, B, C, local, own, row

TUNNEL = {4: 7, 6: 8}
MAC = tunnel_mac("c")


def planned(rows: tuple[TableRow, ...], here: Local, mode: Mode = Mode.AUTO) -> Programmed:
    others = peers(rows, here)
    return plan(here, others, hops(here, others, mode), TUNNEL)


def lines(found: Programmed) -> list[str]:
    """The routes to blocks, as ip would show them."""
    return sorted(
        f"{route.dst} via {route.via} dev {route.link} src {route.source}"
        for route in found.routes
        if route.link and not route.table
    )


def test_a_node_on_the_link_is_routed_to_directly_and_another_through_a_tunnel() -> None:
    found = planned((*B, *C), local())

    assert lines(found) == [
        "10.80.2.0/26 via 192.0.2.2 dev 2 src None",
        "10.80.3.0/26 via 10.80.3.0 dev 7 src 192.0.2.1",
        "fd80::200/122 via 2001:db8:1::2 dev 2 src None",
        f"fd80::300/122 via {tunnel_gateway(MAC)} dev 7 src 2001:db8:1::1",
    ]
    assert found.neighbours == {
        Neighbour(7, ip_address("10.80.3.0"), MAC),
        Neighbour(7, tunnel_gateway(MAC), MAC),
    }
    assert found.forwards == {Forward(7, MAC, ip_address("203.0.113.3"))}
    assert found.sources == frozenset()


def test_our_own_blocks_lead_nowhere_but_for_the_pods_own_routes() -> None:
    found = planned((), local())

    assert found == Programmed(
        routes=frozenset(
            {
                BlockRoute(ip_network("10.80.1.0/26"), UNREACHABLE_PRIORITY),
                BlockRoute(ip_network("fd80::100/122"), UNREACHABLE_PRIORITY),
            }
        )
    )


def test_pods_reach_nodes_behind_a_tunnel_through_it_and_others_do_not() -> None:
    found = planned((*B, *C), local())

    assert {route for route in found.routes if route.table} == {
        BlockRoute(
            ip_network("203.0.113.3/32"),
            ROUTE_PRIORITY,
            7,
            ip_address("10.80.3.0"),
            None,
            NODE_TABLE,
        ),
        BlockRoute(
            ip_network("2001:db8:2::3/128"),
            ROUTE_PRIORITY,
            7,
            tunnel_gateway(MAC),
            None,
            NODE_TABLE,
        ),
    }
    assert found.rules == {
        Rule(ip_network("10.80.1.0/26"), ip_network("203.0.113.3/32"), NODE_TABLE),
        Rule(ip_network("fd80::100/122"), ip_network("2001:db8:2::3/128"), NODE_TABLE),
    }
    assert planned(B, local()).rules == frozenset()


def test_packets_to_the_smallest_network_with_all_nodes_behind_tunnels_are_looked_at() -> None:
    further = (
        row("10.80.4.0/26", "d", "203.0.113.9", "2001:db8:2::8000"),
        row("10.80.5.0/26", "e", "203.0.113.12", "2001:db8:2::4"),
    )

    found = planned((*C, *further), local())

    assert {rule.destination for rule in found.rules} == {
        ip_network("203.0.113.0/28"),
        ip_network("2001:db8:2::3/128"),
    }


def test_a_host_without_an_address_of_the_pods_family_has_one_of_its_block() -> None:
    found = planned(C, local(["192.0.2.1"]))

    assert found.sources == {Source(7, ip_address("fd80::100"))}
    assert lines(found)[1].endswith("src fd80::100")


def test_several_blocks_of_a_node_share_its_entries() -> None:
    found = planned((*C, row("10.80.4.0/26", "c", "203.0.113.3", "2001:db8:2::3")), local())

    assert len(lines(found)) == 3
    assert len(found.forwards) == 1
    assert {str(one.address) for one in found.neighbours if one.address.version == 4} == {
        "10.80.3.0"
    }


def test_modes_choose() -> None:
    others = peers((*B, *C), local())
    ways = {mode: hops(local(), others, mode) for mode in Mode}

    assert {type(way) for way in ways[Mode.VXLAN].values()} == {Through}
    assert {key for key, way in ways[Mode.AUTO].items() if isinstance(way, Direct)} == {
        ("b", 4),
        ("b", 6),
    }
    assert set(ways[Mode.DIRECT]) == {("b", 4), ("b", 6)}


def test_the_narrowest_network_says_which_link() -> None:
    here = local()
    wide = replace(here.on_link[0], network=ip_network("192.0.0.0/8"), link=9)

    for on_link in permutations((*here.on_link, wide)):
        way = hops(replace(here, on_link=on_link), peers(B, here), Mode.AUTO)["b", 4]

        assert way == Direct(UPLINK, ip_address("192.0.2.2"))


def test_pods_of_both_families_travel_over_whichever_both_nodes_have() -> None:
    six_only = (
        row("10.80.9.0/26", "d", "2001:db8:9::9"),
        row("fd80::900/122", "d", "2001:db8:9::9"),
    )
    four_only = local(["192.0.2.1"])

    assert lines(planned(six_only, local()))[0].startswith("10.80.9.0/26 via 10.80.9.0 dev 8 ")
    assert planned(six_only, local()).forwards == {
        Forward(8, tunnel_mac("d"), ip_address("2001:db8:9::9"))
    }
    assert lines(planned(six_only, four_only)) == []
    assert problems(four_only, peers(six_only, four_only), {}, Settings())[0] == (
        "blocks of node d are out of reach (10.80.9.0/26): "
        "we have no address of a family of its own (2001:db8:9::9)"
    )


def test_what_cannot_be_is_named() -> None:
    here = local()
    rows = (
        row("10.80.5.0/26", "mute"),
        row("10.80.6.0/26", "twin", "192.0.2.1"),
        row("10.80.7.0/26", "far", "203.0.113.3"),
    )
    others = peers(rows, here)
    ways = hops(here, others, Mode.DIRECT)

    assert ways == {}
    assert [
        line.partition(": ")[2] for line in problems(here, others, ways, Settings(mode=Mode.DIRECT))
    ] == [
        "no address of theirs of that family (203.0.113.3) is on a link of ours",
        "no address of it is known",
        "it says that it has our address (192.0.2.1)",
    ]


def test_only_blocks_in_use_by_others_are_routed() -> None:
    rows = (
        row("10.80.1.0/26", "thief", "192.0.2.9"),
        row("10.80.2.0/26", "b", "192.0.2.2", state=BlockState.DRAINING),
        row("10.80.3.0/26", "gone", "192.0.2.3", state=BlockState.QUARANTINED),
        row("10.80.4.0/26", "a", "192.0.2.1"),
    )

    assert [peer.name for peer in peers(rows, local())] == ["b"]


def test_of_two_addresses_of_a_node_that_of_the_later_epoch_counts() -> None:
    rows = (
        row("10.80.2.0/26", "b", "192.0.2.2", epoch=2),
        row("10.80.3.0/26", "b", "192.0.2.77", epoch=1),
    )

    for order in permutations(rows):
        (peer,) = peers(order, local())

        assert peer.addresses == (ip_address("192.0.2.2"),)
        assert len(peer.blocks) == 2


def test_a_block_is_ours_by_our_store_or_by_the_table_and_never_when_lost() -> None:
    rows = (row("10.80.1.0/26", "a"), row("10.80.2.0/26", "a"), row("10.80.3.0/26", "b"))
    held = (own("10.80.2.0/26", state=OwnState.LOST), own("10.80.4.0/26"))

    assert own_blocks("a", rows, held) == {ip_network("10.80.1.0/26"), ip_network("10.80.4.0/26")}


def test_the_hosts_own_address_is_of_the_oldest_block_that_stays() -> None:
    held = (
        own("10.80.5.0/26", 5),
        own("10.80.9.0/26", 3),
        own("10.80.1.0/26", 1, OwnState.RETURNING),
        own("10.80.2.0/26", 2, OwnState.LOST),
        own("fd80::/122", 4, OwnState.DRAINING),
    )

    assert sources(held) == {4: ip_address("10.80.9.0"), 6: ip_address("fd80::")}


def test_tunnels_are_made_for_the_families_that_packets_travel_in() -> None:
    here = local(mtu=9000)
    ways = hops(here, peers(C, here), Mode.AUTO)
    (tunnel,) = tunnels(here, ways, Settings(vni=5, port=9, device="vx"))

    assert (tunnel.name, tunnel.vni, tunnel.port, tunnel.mtu) == ("vx4", 5, 9, 8950)
    assert (tunnel.mac, str(tunnel.local)) == (tunnel_mac("a"), "192.0.2.1")
    assert tunnels(here, hops(here, peers(B, here), Mode.AUTO), Settings()) == ()
    assert tunnels(here, ways, Settings(mtu=1300))[0].mtu == 1300


def test_pods_leave_room_for_a_tunnel_that_may_come() -> None:
    six = local(["2001:db8:1::1"])

    assert pod_mtu(local(), Settings()) == 1450
    assert pod_mtu(six, Settings()) == 1430
    assert pod_mtu(local(), Settings(mode=Mode.DIRECT)) == 1500
    assert pod_mtu(local(), Settings(mtu=1400)) == 1400
    assert pod_mtu(local([]), Settings()) == 0


def test_an_mtu_that_cannot_work_is_named() -> None:
    assert problems(local(mtu=1300), (), {}, Settings()) == [
        "pods' MTU is 1250, and IPv6 needs 1280: the link's MTU is too small"
    ]
    assert problems(local(), (), {}, Settings(mtu=1500)) == [
        "mtu = 1500 is too large: VXLAN leaves 1430 bytes of the link's MTU"
    ]
    assert problems(local(), (), {}, Settings(mode=Mode.DIRECT, mtu=1501)) == [
        "mtu = 1501 is too large: the link has 1500"
    ]
    assert problems(local(), (), {}, Settings(mtu=1500, mode=Mode.DIRECT)) == []


nodes = st.sampled_from("abcdefg")
addresses = st.lists(
    st.sampled_from(("192.0.2.1", "192.0.2.2", "203.0.113.7", "2001:db8:1::5", "2001:db8:9::1")),
    max_size=3,
    unique=True,
)
tables = st.dictionaries(
    st.sampled_from([f"10.80.{n}.0/26" for n in range(9)] + [f"fd80::{n}00/122" for n in range(9)]),
    st.tuples(nodes, addresses),
)


@settings(deadline=None)
@given(tables, st.sampled_from(Mode), st.randoms())
def test_every_block_has_at_most_one_way_whatever_the_order(
    table: dict[str, tuple[str, list[str]]], mode: Mode, random: st.DataObject
) -> None:
    where = {node: found for node, found in table.values()}
    rows = [row(cidr, node, *where[node]) for cidr, (node, _) in table.items()]
    found = planned(tuple(rows), local(), mode)
    random.shuffle(rows)  # type: ignore[attr-defined]

    keys = [route.key for route in found.routes]
    assert len(keys) == len(set(keys))
    assert planned(tuple(rows), local(), mode) == found
    # Whatever a tunnel's route names is known, and where it is too.
    known = {one.key for one in found.neighbours}
    macs = {one.mac for one in found.forwards}
    for route in found.routes:
        if route.link in TUNNEL.values():
            assert (route.link, route.via) in known
    assert {one.mac for one in found.neighbours} == macs
    # A block of ours never leads elsewhere.
    ours = {ip_network("10.80.1.0/26"), ip_network("fd80::100/122")}
    assert all(route.link == 0 for route in found.routes if route.dst in ours)


def test_a_peer_is_what_it_is_made_of() -> None:
    (peer,) = peers(B, local())

    assert peer == Peer(
        name="b",
        addresses=(ip_address("192.0.2.2"), ip_address("2001:db8:1::2")),
        blocks=(ip_network("10.80.2.0/26"), ip_network("fd80::200/122")),
    )
