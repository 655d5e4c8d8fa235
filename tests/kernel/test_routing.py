"""Routes between hosts, as the kernel takes them and real packets follow them."""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from cli.leftovers import remove_leftovers
from dataplane import rtnl
from dataplane.fabric import Fabric
from dataplane.fabric_model import Programmed
from ipam.calls import TableRow
from ipam.cluster import BlockState
from routing.reconciler import Outcome, clear
from routing.settings import Mode
from tests.kernel.conftest import Namespace
from tests.kernel.routed_site import (
    Site,
    heard,
    listening,
    masquerader,
    routed_site,
    standard,
)
from tests.kernel.sockets import Echo, ask, inside

pytestmark = pytest.mark.kernel


@pytest.fixture
def site(namespaces: Callable[[str], Namespace]) -> Iterator[Site]:
    with routed_site(namespaces) as site:
        yield site


def reached(pods: dict[str, tuple[Namespace, str, str]]) -> dict[str, bool]:
    """Who reaches whom in both families, as "a➜b": whether."""
    return {
        f"{one}➜{other}": pods[one][0].pings(pods[other][1]) and pods[one][0].pings(pods[other][2])
        for one in pods
        for other in pods
        if one != other
    }


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.VXLAN])
def test_pods_of_all_hosts_reach_each_other(site: Site, mode: Mode) -> None:
    pods = standard(site, mode)

    assert all(reached(pods).values())
    b, c = (site.hosts["a"].way(f"10.80.{number}.5") for number in (2, 3))
    assert "vxisthmus4" in c
    assert ("dev uplink" if mode is Mode.AUTO else "vxisthmus4") in b
    six = site.hosts["a"].way("fd80::205"), site.hosts["a"].way("fd80::305")
    assert "vxisthmus4" in six[1]
    assert ("dev uplink" if mode is Mode.AUTO else "vxisthmus4") in six[0]


def test_direct_routes_reach_who_is_on_the_link_and_say_who_is_not(site: Site) -> None:
    pods = standard(site, Mode.DIRECT)

    found = reached(pods)
    state = site.hosts["a"].reconciler.state
    assert (found["a➜b"], found["b➜a"], found["a➜c"]) == (True, True, False)
    assert (state.direct, state.tunnelled, state.tunnels, state.mtu) == (2, 0, (), 1500)
    assert [line.partition(" (")[0] for line in state.problems] == [
        "blocks of node c are out of reach"
    ] * 2


@pytest.mark.parametrize(
    ("one", "two", "tunnel"),
    [("192.0.2.1", "203.0.113.2", "vxisthmus4"), ("2001:db8:1::1", "2001:db8:2::2", "vxisthmus6")],
)
def test_pods_of_both_families_travel_over_either(
    site: Site, one: str, two: str, tunnel: str
) -> None:
    a, b = site.add("a", "one", one), site.add("b", "two", two)
    a.give("10.80.1.0/26", "fd80::100/122")
    b.give("10.80.2.0/26", "fd80::200/122")
    site.settle()
    pod, other = a.pod("10.80.1.5", "fd80::105"), b.pod("10.80.2.5", "fd80::205")

    assert pod.pings("10.80.2.5")
    assert other.pings("fd80::105")
    assert a.reconciler.state.tunnels == (tunnel,)
    assert a.reconciler.state.mtu == (1450 if tunnel.endswith("4") else 1430)


def test_strict_reverse_path_filters_are_content(site: Site) -> None:
    strict = ("net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1")
    pods = standard(site, Mode.VXLAN, *strict)
    a, c = site.hosts["a"].namespace, site.hosts["c"].namespace

    with Echo(pods["c"][0], "pod", 7000), Echo(c, "host", 7001):
        to_pod = ask(a, "10.80.3.5", 7000), ask(a, "fd80::305", 7000)
        to_host = ask(pods["a"][0], "203.0.113.3", 7001)
    assert to_pod == ("pod 192.0.2.1", "pod 2001:db8:1::1")
    assert to_host == "host 10.80.1.5"


def test_a_port_of_a_host_is_reached_from_pods_and_hosts_behind_tunnels(site: Site) -> None:
    pods = standard(site, Mode.VXLAN)
    # What a pod answers to a host goes through the tunnel, what that asked for came by the uplink.
    site.hosts["c"].namespace.run(
        "nft",
        "table ip ports { chain c { type nat hook prerouting priority -100;"
        " ip daddr 203.0.113.3 tcp dport 8080 dnat to 10.80.3.5:7000; }; }",
    )

    with Echo(pods["c"][0], "pod", 7000):
        for asking, seen in (
            (site.hosts["a"].namespace, "192.0.2.1"),
            (pods["a"][0], "10.80.1.5"),
            (site.outside, "198.51.100.9"),
        ):
            assert ask(asking, "203.0.113.3", 8080) == f"pod {seen}"


def test_pods_and_hosts_reach_each_other_though_the_network_between_knows_no_pods(
    site: Site,
) -> None:
    pods = standard(site)
    a, c = site.hosts["a"], site.hosts["c"]
    # As one that takes only what comes from nodes: in kind, in clouds.
    site.router.run(
        "nft",
        "table inet strict { chain c { type filter hook prerouting priority 0;"
        " ip saddr 10.80.0.0/16 drop; ip6 saddr fd80::/64 drop; }; }",
    )
    with Echo(c.namespace, "c", 7000):
        found = [
            ask(pods["a"][0], str(address), 7000, udp=udp)
            for address in c.addresses
            for udp in (False, True)
        ]

    assert found == ["c 10.80.1.5"] * 2 + ["c fd80::105"] * 2
    assert a.namespace.pings("10.80.3.5")
    assert a.namespace.pings("fd80::305")
    assert a.way("203.0.113.3").startswith("203.0.113.3 via 192.0.2.254")


def test_a_host_without_an_address_of_pods_family_has_one_of_its_block(site: Site) -> None:
    a, b = site.add("a", "one", "192.0.2.1"), site.add("b", "two", "203.0.113.2")
    a.give("fd80::100/122")
    b.give("fd80::200/122")
    site.settle()
    pod = b.pod("fd80::205")

    with Echo(pod, "pod", 7000):
        assert ask(a.namespace, "fd80::205", 7000) == "pod fd80::100"


def test_what_nobody_holds_is_refused_by_its_owner_and_does_not_go_round(site: Site) -> None:
    pods = standard(site)
    pod = pods["a"][0]

    for nobody, by in (("10.80.3.9", "203.0.113.3"), ("fd80::309", "2001:db8:2::3")):
        said = pod.run("ping", "-n", "-c", "1", "-W", "2", nobody, check=False)
        assert "xceeded" not in said
        assert f"From {by} icmp_seq=1 Destination" in said.replace("unreachable: ", "")


def test_a_block_that_moves_is_replaced_in_one_step(site: Site) -> None:
    standard(site)
    a, b, c = site.hosts.values()
    b.give("10.80.9.0/26", "fd80::900/122")
    site.settle()
    b.take("10.80.9.0/26", "fd80::900/122")
    c.give("10.80.9.0/26", "fd80::900/122")
    with listening(a.namespace) as news:
        site.settle()
        kinds = [kind for kind, _ in heard(news)]

    pod = c.pod("10.80.9.7", "fd80::907")
    assert rtnl.DELROUTE not in kinds
    assert kinds.count(rtnl.NEWROUTE) == 2
    assert a.namespace.pings("10.80.9.7")
    assert a.namespace.pings("fd80::907")
    assert b.namespace.pings("10.80.9.7")
    assert pod.pings("192.0.2.2")


def test_a_node_that_changes_its_address_is_followed(site: Site) -> None:
    pods = standard(site)
    a, c = site.hosts["a"], site.hosts["c"]
    c.namespace.run("ip", "address", "del", "203.0.113.3/24", "dev", "uplink")
    c.namespace.run("ip", "address", "add", "203.0.113.33/24", "dev", "uplink")
    c.namespace.run("ip", "route", "replace", "default", "via", "203.0.113.254")
    c.addresses = (ip_address("203.0.113.33"), ip_address("2001:db8:2::3"))
    c.reconciler.doubt()
    site.settle()

    assert all(reached(pods).values())
    assert "203.0.113.33" in a.namespace.run("bridge", "fdb", "show", "dev", "vxisthmus4")
    assert "203.0.113.3 " not in a.namespace.run("bridge", "fdb", "show", "dev", "vxisthmus4")


def test_a_node_replaced_under_its_name_is_reached_where_it_is_now(site: Site) -> None:
    pods = standard(site)
    old = site.hosts.pop("c")
    old.namespace.run("ip", "link", "set", "uplink", "down")
    new = site.add("c", "two", "203.0.113.44", "2001:db8:2::44")
    new.give("10.80.3.0/26", "fd80::300/122")
    site.settle()
    pods["c"] = (new.pod("10.80.3.5", "fd80::305"), "10.80.3.5", "fd80::305")

    assert all(reached(pods).values())


def test_a_node_that_goes_leaves_nothing(site: Site) -> None:
    standard(site)
    a = site.hosts["a"]
    del site.hosts["c"]
    site.settle()

    assert not [
        route for route in a.routes() + a.routes(6) if "80:0:0:3" in route or ".80.3." in route
    ]
    assert a.reconciler.state.tunnels == ()
    assert not a.namespace.succeeds("ip", "link", "show", "vxisthmus4")


def test_a_restart_changes_nothing_in_the_kernel(site: Site) -> None:
    standard(site)
    a = site.hosts["a"]
    with listening(a.namespace) as news:
        a.in_sync = False
        a.start()
        first = a.reconcile()
        a.in_sync = True
        second = a.reconcile()
        told = heard(news)

    assert (first, second, told) == (Outcome.UNCHANGED, Outcome.UNCHANGED, [])


def test_a_table_that_is_remembered_or_in_doubt_takes_nothing_away(site: Site) -> None:
    standard(site)
    a = site.hosts["a"]
    before = a.routes() + a.routes(6)
    gone = {name: site.hosts.pop(name) for name in ("b", "c")}
    a.in_sync = False
    a.start()
    a.reconcile()
    remembered = a.routes() + a.routes(6)
    a.in_sync, a.frozen = True, True
    a.reconcile()
    frozen = a.routes() + a.routes(6)
    a.frozen = False
    a.reconcile()

    assert remembered == frozen == before
    assert len(a.routes()) == 1  # its own, which leads nowhere
    assert gone


@pytest.mark.parametrize(
    "drift",
    [
        ("ip", "route", "del", "10.80.3.0/26"),
        ("ip", "-6", "route", "del", "fd80::300/122"),
        ("ip", "route", "del", "unreachable", "10.80.1.0/26"),
        ("ip", "link", "del", "vxisthmus4"),
        ("ip", "link", "set", "vxisthmus4", "down"),
        ("ip", "link", "set", "vxisthmus4", "mtu", "1300"),
    ],
    ids=["route", "route6", "unreachable", "tunnel", "down", "mtu"],
)
def test_drift_is_heard_of_and_repaired(site: Site, drift: tuple[str, ...]) -> None:
    pods = standard(site)
    a = site.hosts["a"]
    shown = a.routes() + a.routes(6)
    with listening(a.namespace) as news:
        a.namespace.run(*drift)
        is_news = [a.reconciler.is_news(*each) for each in heard(news)]
    a.reconciler.doubt()
    outcome = a.reconcile()

    assert any(is_news)
    assert outcome is Outcome.APPLIED
    assert sorted(a.routes() + a.routes(6)) == sorted(shown)
    assert all(reached(pods).values())


def test_entries_that_were_lost_are_back_after_a_round(site: Site) -> None:
    pods = standard(site)
    a = site.hosts["a"].namespace
    a.run("ip", "neigh", "flush", "dev", "vxisthmus4", "nud", "permanent")
    a.run("ip", "-6", "neigh", "flush", "dev", "vxisthmus4", "nud", "permanent")
    for line in a.run("bridge", "fdb", "show", "dev", "vxisthmus4").splitlines():
        a.run("bridge", "fdb", "del", line.split()[0], "dev", "vxisthmus4", "self")
    site.hosts["a"].reconciler.doubt()
    site.settle()

    assert all(reached(pods).values())


def test_our_own_work_and_pods_that_come_are_no_news(site: Site) -> None:
    standard(site)
    a, c = site.hosts["a"], site.hosts["c"]
    with listening(a.namespace) as news:
        c.give("10.80.8.0/26")
        site.settle()
        c.take("10.80.8.0/26")
        site.settle()
        a.pod("10.80.1.6", "fd80::106")
        told = heard(news)
        found = [kind for kind, payload in told if a.reconciler.is_news(kind, payload)]

    assert told
    assert not found


def test_what_others_made_is_left_alone_and_named(site: Site) -> None:
    a, b = site.add("a", "one", "192.0.2.1"), site.add("b", "two", "203.0.113.2")
    b.give("10.80.2.0/26", "10.80.3.0/26")
    a.namespace.run(
        *("ip", "link", "add", "vxisthmus4", "type", "vxlan", "id", "9", "dstport", "4790"),
        *("local", "192.0.2.1"),
    )
    first = a.reconcile()
    refused = a.reconciler.state.refused
    a.namespace.run("ip", "link", "del", "vxisthmus4")
    a.namespace.run("ip", "route", "add", "10.80.2.0/26", "via", "192.0.2.254", "metric", "512")
    a.reconciler.doubt()
    second = a.reconcile()

    assert (first, second) == (Outcome.RETRY, Outcome.RETRY)
    assert refused == ("vxisthmus4 is a VXLAN link of somebody else: set another name by `device`",)
    assert a.reconciler.state.refused == ("route to 10.80.2.0/26: another program has one",)
    assert "192.0.2.254" in a.way("10.80.2.9")
    assert "vxisthmus4" in a.way("10.80.3.9")


def test_a_port_in_use_is_named_and_leaves_no_link(site: Site) -> None:
    a, b = site.add("a", "one", "192.0.2.1"), site.add("b", "two", "203.0.113.2")
    b.give("10.80.2.0/26")
    with inside(a.namespace):
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taken:
        taken.bind(("0.0.0.0", 4789))
        outcome = a.reconcile()

    assert outcome is Outcome.RETRY
    assert a.reconciler.state.refused == (
        "cannot make VXLAN link vxisthmus4 (VNI 4177, UDP port 4789, from 192.0.2.1): "
        "Address already in use",
    )
    assert not a.namespace.succeeds("ip", "link", "show", "vxisthmus4")
    assert a.reconcile() is Outcome.APPLIED


def test_large_packets_fit_and_larger_ones_are_told_how_large(site: Site) -> None:
    pods = standard(site, Mode.VXLAN)
    wide = site.hosts["a"].pod("10.80.1.40", "fd80::130", mtu=1500)

    fit = ("-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(1450 - 28))
    assert pods["a"][0].succeeds("ping", *fit, "10.80.3.5")
    assert pods["a"][0].succeeds("ping", "-s", str(1450 - 48), *fit[:7], "fd80::305")
    said = wide.run("ping", *fit[:-1], "1472", "10.80.3.5", check=False)
    assert "mtu = 1450" in said or "mtu=1450" in said
    assert transferred(pods["c"][0], wide, "10.80.3.5") == 1 << 20
    assert transferred(pods["c"][0], wide, "fd80::305") == 1 << 20


def transferred(server: Namespace, client: Namespace, address: str) -> int:
    """How much of 1 MiB arrives by TCP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(server):
        listener = socket.create_server((address, 0), family=family)
    with inside(client):
        sender = socket.socket(family)
    with listener, sender:
        sender.settimeout(10)
        listener.settimeout(10)
        sender.connect((address, listener.getsockname()[1]))
        receiver, _ = listener.accept()
        receiver.settimeout(10)
        with receiver:
            data, got, sent = os.urandom(1 << 20), 0, 0
            while got < len(data):
                if sent < len(data):
                    sent += sender.send(data[sent : sent + 65536])
                got += len(receiver.recv(65536))
            return got


def test_a_thousand_nodes_cost_few_messages(site: Site) -> None:
    a = site.add("a", "one", "192.0.2.1")
    a.give("10.80.0.0/26", "fd80::/122")
    for number in range(1, 1001):
        host = ip_address(struct.pack(">I", 0xCB007100 + (number % 250) + 1))
        for cidr in (f"10.{81 + number // 256}.{number % 256}.0/26", f"fd81:{number:x}::/122"):
            block = ip_network(cidr)
            site.strangers[block] = TableRow(
                cidr=block,
                node=f"n{number}",
                epoch=1,
                addresses=(host,),
                state=BlockState.ACTIVE,
            )
    sent = []
    a.fabric._netlink.send = counting(a.fabric._netlink.send, sent)  # type: ignore[method-assign]
    began = time.monotonic()
    a.reconcile()
    first = time.monotonic() - began
    del site.strangers[ip_network("fd81:1::/122")]
    changed = len(sent)
    a.reconcile()
    again = len(sent) - changed
    a.reconciler.doubt()
    unchanged = a.reconcile()

    assert a.reconciler.state.routes == 2001
    assert changed < 40
    assert again == 1
    assert unchanged is Outcome.UNCHANGED
    assert first < 5


def counting(send: Callable[..., int], sent: list[int]) -> Callable[..., int]:
    def count(messages: list[bytes], **options: bool) -> int:
        sent.append(len(messages))
        return send(messages, **options)

    return count


def test_uninstalling_takes_routes_tunnels_and_translation_away(site: Site, tmp_path: Path) -> None:
    standard(site)
    a = site.hosts["a"]
    masquerader(a)()
    with inside(a.namespace):
        removed, faults = remove_leftovers(tmp_path / "sysctl.json", seed="none")
        again, _ = remove_leftovers(tmp_path / "sysctl.json", seed="none")

    assert removed == ["routes to other nodes vxisthmus4", "table inet isthmus-masquerade"]
    assert (faults, again) == ([], [])
    assert a.routes() + a.routes(6) == []
    assert "177" not in a.namespace.run("ip", "rule") + a.namespace.run("ip", "-6", "rule")


def test_a_host_without_any_route_has_nothing_to_take_away(
    namespaces: Callable[[str], Namespace],
) -> None:
    with inside(namespaces("bare")):
        fabric = Fabric()
    with closing(fabric):
        clear(fabric)
        around, programmed = fabric.observe(())

    assert (around.tunnels, programmed) == ((), Programmed())


def test_turned_off_nothing_is_left(site: Site) -> None:
    standard(site)
    a = site.hosts["a"]
    clear(a.fabric)

    assert a.routes() + a.routes(6) == []
    assert not a.namespace.succeeds("ip", "link", "show", "vxisthmus4")


def test_a_change_of_mode_is_a_matter_of_a_restart(site: Site) -> None:
    pods = standard(site, Mode.VXLAN)
    for mode in (Mode.AUTO, Mode.DIRECT, Mode.VXLAN):
        for host in site.hosts.values():
            host.set_mode(mode)
        site.settle()
        found = reached({name: pods[name] for name in ("a", "b")})
        assert all(found.values()), mode

    a = site.hosts["a"]
    a.settings = replace(a.settings, vni=77, port=4999)
    a.start()
    a.reconcile()
    assert "id 77" in a.namespace.run("ip", "-d", "link", "show", "vxisthmus4")
