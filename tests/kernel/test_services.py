"""Services with real packets: who answers, and from where they seem to be asked."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from threading import Event, Thread

import pytest

from dataplane.nft.elements import Elements
from dataplane.nft.objects import Chain, Protocol
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from proxy import tables
from proxy.model import Service, ServiceName, ServicePort, TrafficPolicy
from proxy.reconciler import Reconciler, Wanted
from proxy.tables import skeleton
from tests.kernel.conftest import Namespace
from tests.kernel.service_site import NODE, OUTSIDE, PORT, VIEW, Site, pod_address, site
from tests.kernel.sockets import Echo, inside

pytestmark = pytest.mark.kernel

IPS = {4: "10.96.0.20", 6: "fd00:96::20"}
EXTERNAL = {4: "198.51.100.7", 6: "2001:db8:f::7"}
WEB = Service(
    name=ServiceName("shop", "web"),
    ports=(
        ServicePort(name="http", protocol=Protocol.TCP, port=80, node_port=30080),
        ServicePort(name="http", protocol=Protocol.UDP, port=80, node_port=30080),
    ),
    cluster_ips=tuple(map(ip_address, IPS.values())),
)
LOCAL = TrafficPolicy.LOCAL
BOTH = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture
def here(namespaces: Callable[[str], Namespace]) -> Iterator[Site]:
    with site(namespaces) as made:
        yield made


@BOTH
def test_a_pod_and_the_node_reach_every_endpoint_and_pods_are_seen_as_themselves(
    here: Site, version: int
) -> None:
    here.put(WEB, here.endpoints("p2", "far"))

    assert set(here.answers(here.pods["p1"], IPS[version], 80, 40)) == {"p2", "far"}
    assert set(here.answers(here.node, IPS[version], 80, 40)) == {"p2", "far"}
    assert here.says(here.pods["p1"], IPS[version], 80)[0].endswith(pod_address("p1", version))


@BOTH
def test_a_pod_reaches_itself_by_its_own_service(here: Site, version: int) -> None:
    here.put(WEB, here.endpoints("p1"))

    assert here.answers(here.pods["p1"], IPS[version], 80) == {"p1": 1}


@BOTH
def test_where_nobody_answers_clients_are_refused_at_once(here: Site, version: int) -> None:
    here.put(WEB, {})

    for client in (here.pods["p1"], here.node):
        assert here.answers(client, IPS[version], 80) == {"ConnectionRefusedError": 1}
        assert here.answers(client, IPS[version], 81) == {"ConnectionRefusedError": 1}
    here.remove(WEB.name)
    assert here.answers(here.pods["p1"], IPS[version], 80) == {"TimeoutError": 1}


@BOTH
def test_a_node_port_is_open_to_the_world_and_masqueraded(here: Site, version: int) -> None:
    here.put(WEB, here.endpoints("p1", "far"))

    found = here.says(here.outside, NODE[version], 30080, 30)

    assert {each.partition(" ")[0] for each in found} == {"p1", "far"}
    assert not [each for each in found if each.endswith(OUTSIDE[version])]


@BOTH
def test_policy_local_keeps_the_clients_address_and_stays_on_the_node(
    here: Site, version: int
) -> None:
    here.put(replace(WEB, external_policy=LOCAL), here.endpoints("p1", "far"))

    found = here.says(here.outside, NODE[version], 30080, 20)

    assert {each.partition(" ")[0] for each in found} == {"p1"}
    assert all(each.endswith(OUTSIDE[version]) for each in found)
    assert set(here.answers(here.pods["p2"], NODE[version], 30080, 40)) == {"p1", "far"}


@BOTH
def test_policy_local_drops_where_the_node_has_no_endpoint(here: Site, version: int) -> None:
    here.put(replace(WEB, external_policy=LOCAL, internal_policy=LOCAL), here.endpoints("far"))

    assert here.answers(here.outside, NODE[version], 30080) == {"TimeoutError": 1}
    assert here.answers(here.pods["p1"], IPS[version], 80) == {"TimeoutError": 1}
    assert here.answers(here.pods["p1"], NODE[version], 30080) == {"far": 1}


@BOTH
def test_source_ranges_let_in_whom_they_name_and_nobody_else(here: Site, version: int) -> None:
    balanced = replace(WEB, load_balancer_ips=(ip_address(EXTERNAL[version]),))
    inside = ip_network(f"{OUTSIDE[version]}/{'30' if version == 4 else '120'}", strict=False)
    elsewhere = ip_network("203.0.113.0/24" if version == 4 else "2001:db8:dead::/48")

    here.put(replace(balanced, source_ranges=(inside,)), here.endpoints("p1"))
    assert here.answers(here.outside, EXTERNAL[version], 80) == {"p1": 1}

    here.put(replace(balanced, source_ranges=(elsewhere,)), here.endpoints("p1"))
    assert here.answers(here.outside, EXTERNAL[version], 80) == {"TimeoutError": 1}


@BOTH
def test_a_client_beyond_the_cluster_may_use_a_cluster_ip_by_this_node(
    here: Site, version: int
) -> None:
    here.put(WEB, here.endpoints("p1"))

    (said,) = here.says(here.outside, IPS[version], 80)

    assert said.startswith("p1 ")
    assert not said.endswith(OUTSIDE[version])


def test_every_endpoint_is_found_whatever_their_number(here: Site) -> None:
    for pods in (["p1"], ["p1", "p2"], ["p1", "p2", "far"], ["p2", "far"], ["far"]):
        here.put(WEB, here.endpoints(*pods))

        assert set(here.answers(here.outside, NODE[4], 30080, 40)) == set(pods)


def test_what_is_planned_is_what_the_kernel_has_after_any_course(here: Site) -> None:
    other = replace(WEB, name=ServiceName("shop", "other"), created="2",
                    cluster_ips=(ip_address("10.96.0.21"),),
                    external_ips=(ip_address(EXTERNAL[4]),))  # fmt: skip
    for pods in (["p1"], ["p1", "p2", "far"], ["far"], []):
        here.put(WEB, here.endpoints(*pods))
        here.put(replace(other, external_policy=LOCAL), here.endpoints(*pods))
        here.put(other, here.endpoints(*pods))
    here.remove(WEB.name)

    assert here.reconciler.repair() == 0
    assert here.answers(here.outside, NODE[4], 30080) == {"ConnectionRefusedError": 1}


def test_a_frontend_that_two_claim_is_the_older_ones_and_then_the_others(here: Site) -> None:
    first = replace(WEB, created="2026-01-01T00:00:00Z")
    second = replace(first, name=ServiceName("shop", "late"), created="2026-01-02T00:00:00Z",
                     cluster_ips=(ip_address("10.96.0.21"),))  # fmt: skip
    here.put(second, here.endpoints("p2"))
    here.put(first, here.endpoints("p1"))

    assert set(here.answers(here.outside, NODE[4], 30080, 10)) == {"p1"}
    here.remove(first.name)
    assert set(here.answers(here.outside, NODE[4], 30080, 10)) == {"p2"}


def test_somebody_elses_hand_in_the_table_is_mended(here: Site) -> None:
    here.put(WEB, here.endpoints("p1"))
    here.node.run("nft", "flush", "map", "ip", "isthmus-services", "services")
    here.node.run("nft", "delete", "table", "ip6", "isthmus-services")

    assert here.reconciler.repair() > 0
    assert [here.answers(here.pods["p2"], IPS[v], 80) for v in (4, 6)] == [{"p1": 1}] * 2


STICKY = replace(WEB, affinity_s=2)


@BOTH
@pytest.mark.parametrize("way", ["cluster ip", "node port"])
def test_a_client_keeps_its_endpoint_until_the_time_is_over(
    here: Site, version: int, way: str
) -> None:
    here.put(STICKY, here.endpoints("p1", "p2", "far"))
    client, address, port = {
        "cluster ip": (here.pods["p1"], IPS[version], 80),
        "node port": (here.outside, NODE[version], 30080),
    }[way]

    rounds = []
    for _ in range(6):  # each after nothing for longer than the timeout
        rounds.append(set(here.answers(client, address, port, 12)))
        here.rest(2.2)

    assert [len(each) for each in rounds] == [1] * 6
    # By chance alone it would be one endpoint of three each time in one run of 243.
    assert len(set.union(*rounds)) > 1


@BOTH
def test_a_client_of_an_endpoint_that_goes_is_given_another_at_once(
    here: Site, version: int
) -> None:
    patient = replace(WEB, affinity_s=600)
    here.put(patient, here.endpoints("p1", "p2"))
    (kept,) = here.answers(here.outside, NODE[version], 30080, 5)
    (pods,) = here.answers(here.pods["far"], IPS[version], 80, 5)
    other = {"p1": "p2", "p2": "p1"}

    here.put(patient, here.endpoints(other[kept]))

    # An attempt that is dropped would be the first of two, a second apart.
    assert here.answers(here.outside, NODE[version], 30080, 5) == {other[kept]: 5}
    assert here.answers(here.pods["far"], IPS[version], 80, 5) == {other[kept]: 5}
    assert pods in other


def test_affinity_of_one_service_is_nothing_to_another(here: Site) -> None:
    second = replace(STICKY, name=ServiceName("shop", "second"), affinity_s=600,
                     ports=(ServicePort(name="http", protocol=Protocol.TCP, port=80),),
                     cluster_ips=(ip_address("10.96.0.30"),))  # fmt: skip
    here.put(STICKY, here.endpoints("p1"))
    here.put(second, here.endpoints("p2"))

    assert here.reconciler.refused == {}
    assert here.answers(here.outside, IPS[4], 80, 3) == {"p1": 3}
    assert here.answers(here.outside, "10.96.0.30", 80, 3) == {"p2": 3}
    assert here.reconciler.repair() == 0


@BOTH
def test_clients_that_there_is_no_room_for_are_counted_and_served(
    namespaces: Callable[[str], Namespace], monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(tables, "MOST_REMEMBERED", 1)
    with site(namespaces) as here:
        here.put(replace(WEB, affinity_s=600), here.endpoints("p1", "p2"))
        first, second = here.pods["far"], here.outside
        (kept,) = here.answers(first, IPS[version], 80, 6)
        before = here.reconciler.overflown()
        served = here.answers(second, IPS[version], 80, 20)
        after = here.reconciler.overflown()

        assert (before, after) == (0, 20)
        assert set(served) == {"p1", "p2"}
        assert here.answers(first, IPS[version], 80, 6) == {kept: 6}
        listed = here.node.run("nft", "list", "chain", "ip", "isthmus-services", "timeout-600")
        assert "goto overflow" in listed


@BOTH
def test_affinity_holds_for_an_endpoint_in_the_nodes_own_network(here: Site, version: int) -> None:
    patient = replace(WEB, affinity_s=600)
    pods = here.endpoints("p1", "p2")
    on_node = {port: tuple(replace(each, address=ip_address(NODE[each.address.version]))
                           for each in members[:2]) for port, members in pods.items()}  # fmt: skip
    with Echo(here.node, "node", PORT):
        here.put(patient, on_node)
        assert here.answers(here.outside, IPS[version], 80) == {"node": 1}

        here.put(patient, {port: (*on_node[port], *pods[port]) for port in pods})

        assert here.answers(here.outside, IPS[version], 80, 12) == {"node": 12}


@BOTH
def test_what_conntrack_calls_invalid_does_not_leave_for_a_services_address(
    here: Site, version: int
) -> None:
    here.put(WEB, here.endpoints("p2"))
    elsewhere = {4: "203.0.113.1", 6: "2001:db8:e::1"}[version]
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
    with inside(here.outside):
        seen = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with inside(here.pods["p1"]):
        sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    for address in (IPS[version], elsewhere):
        here.outside.run("ip", "address", "add", address, "dev", "lo")
    found: list[bytes] = []
    end = time.monotonic() + 20
    with seen, sender:
        seen.settimeout(0.5)
        # What goes first over a link that has just come up may be lost, and nothing repeats it.
        while len(found) < 2 and time.monotonic() < end:
            for number, address in enumerate((IPS[version], elsewhere), 1):
                sender.sendto(struct.pack(">HH16x", number, 80), (address, 0))
            with suppress(TimeoutError):
                found.append(seen.recv(100)[-20:-18])

    assert found == [struct.pack(">H", 2)] * 2


def test_another_layout_takes_over_at_once_with_all_elements_and_what_is_remembered(
    here: Site,
) -> None:
    """As an agent of another version does; a client connects all the while."""
    patient = replace(WEB, affinity_s=600)
    here.put(patient, here.endpoints("p1", "p2"))
    (kept,) = here.answers(here.outside, NODE[4], 30080, 4)
    (kept6,) = here.answers(here.outside, NODE[6], 30080, 4)
    former = here.reconciler
    more = Chain("of-another-version", ("counter",))
    with ExitStack() as undo:
        later = {
            version: NftTable(
                replace(skeleton(version), chains=(*skeleton(version).chains, more)),
                NftRunner(),
                undo.enter_context(Elements()),
            )
            for version in (4, 6)
        }
        said: list[str] = []
        done = Event()

        def ask() -> None:
            while not done.is_set() or len(said) < 50:
                said.extend(here.says(here.outside, NODE[4], 30080, 5))

        asking = Thread(target=ask)
        asking.start()
        again = Reconciler(later, VIEW)
        again.begin({patient.name: Wanted(patient, here.endpoints("p1", "p2"))})
        done.set()
        asking.join()

        assert {each.partition(" ")[0] for each in said} == {kept}
        assert set(here.answers(here.outside, NODE[6], 30080, 8)) == {kept6}
        assert again.repair() == 0
        assert former.repair() > 0  # and back again, with the chains of the timeout at work
        assert set(here.answers(here.outside, NODE[4], 30080, 8)) == {kept}


def test_what_an_exchange_that_was_cut_off_left_goes_with_the_next_life(here: Site) -> None:
    here.put(WEB, here.endpoints("p1"))
    other = skeleton(4).stand_in
    for script in (other.unasked.script(), other.opening()):
        NftRunner().load(script)
    before = here.node.run("nft", "list", "tables")
    with Elements() as elements:
        Reconciler({4: NftTable(skeleton(4), NftRunner(), elements)}, VIEW).begin({})

    assert other.name in before
    assert other.name not in here.node.run("nft", "list", "tables")
