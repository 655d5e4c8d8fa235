"""What a Service has in the maps, as nft writes it."""

import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network

from dataplane.nft.objects import Element, Kind, Protocol
from proxy.model import (
    Endpoint,
    Endpoints,
    NodeView,
    Service,
    ServiceName,
    ServicePort,
    TrafficPolicy,
)
from proxy.plan import Planned, elements, frontends, hairpin, node_elements, plan
from proxy.tables import NUMBERS

NODE = NodeView(name="here", pods=(ip_network("10.244.0.0/16"),))
WEB = Service(
    name=ServiceName("shop", "web"),
    ports=(ServicePort(name="http", protocol=Protocol.TCP, port=80),),
    cluster_ips=(ip_address("10.96.0.20"),),
)
LOCAL = TrafficPolicy.LOCAL


def endpoints(*places: str) -> Endpoints:
    """Each "10.244.1.7:8080@node"."""
    found = []
    for place in places:
        where, _, node = place.partition("@")
        address, _, port = where.rpartition(":")
        found.append(Endpoint(address=ip_address(address), port=int(port), node=node or "there"))
    return {("http", Protocol.TCP): tuple(found)}


def planned(service: Service, where: Endpoints, before: Planned | None = None) -> Planned:
    owned = list(frontends(service, (4, 6)))
    return plan(service, where, NODE, owned=owned, before=before)


def shown(service: Service, *places: str) -> list[str]:
    """Elements as nft writes them, but for chains: by name, in the place of their number."""
    return sorted(map(named, elements(planned(service, endpoints(*places)))))


def named(each: Element) -> str:
    if each.of.data != (Kind.CLASS,):
        return str(each)
    number = int.from_bytes(each.data, sys.byteorder)
    (chain,) = [name for name, its in NUMBERS.items() if its == number]
    return f"{str(each).rpartition(' : ')[0]} : goto {chain} }}"


A, B = "10.244.1.7:8080", "10.244.2.7:8080@here"


def test_a_cluster_ip_has_its_endpoints_in_slots_and_goes_to_their_class() -> None:
    assert shown(WEB, A, B) == [
        "cluster-ips { 10.96.0.20 }",
        "endpoints { 10.96.0.20 . tcp . 80 . 0 : 10.244.1.7 . 8080 }",
        "endpoints { 10.96.0.20 . tcp . 80 . 1 : 10.244.2.7 . 8080 }",
        'services { 10.96.0.20 . tcp . 80 comment "shop/web" : goto pick-2 }',
    ]


def test_without_endpoints_clients_are_refused() -> None:
    assert shown(WEB) == [
        "cluster-ips { 10.96.0.20 }",
        'services { 10.96.0.20 . tcp . 80 comment "shop/web" : goto refuse }',
    ]


def test_internal_policy_local_uses_those_here_and_drops_where_none_is() -> None:
    local = replace(WEB, internal_policy=LOCAL)

    assert "endpoints { 10.96.0.20 . tcp . 80 . 0 : 10.244.2.7 . 8080 }" in shown(local, A, B)
    assert shown(local, A)[-1].endswith("goto discard }")
    assert shown(local)[-1].endswith("goto refuse }")


def test_a_node_port_and_a_load_balancer_come_in_by_the_external_chains() -> None:
    balanced = replace(
        WEB,
        ports=(replace(WEB.ports[0], node_port=30080),),
        load_balancer_ips=(ip_address("192.0.2.10"),),
        source_ranges=(ip_network("198.51.100.0/24"),),
    )
    found = shown(balanced, A)

    assert 'nodeports { tcp . 30080 comment "shop/web" : goto nodeport-external }' in found
    assert "nodeport-cluster { tcp . 30080 : goto nodeport-pick-1 }" in found
    assert "nodeport-endpoints { tcp . 30080 . 0 : 10.244.1.7 . 8080 }" in found
    assert (
        'services { 192.0.2.10 . tcp . 80 comment "shop/web" : goto firewalled-external }' in found
    )
    assert "source-ranges { 192.0.2.10 . tcp . 80 . 198.51.100.0/24 }" in found


def test_external_policy_local_has_both_lists_and_cluster_ips_do_not_care() -> None:
    outer = replace(WEB, external_ips=(ip_address("192.0.2.9"),), external_policy=LOCAL)
    found = shown(outer, A, B)

    assert 'services { 192.0.2.9 . tcp . 80 comment "shop/web" : goto external-local }' in found
    assert "cluster { 192.0.2.9 . tcp . 80 : goto pick-2 }" in found
    assert "local { 192.0.2.9 . tcp . 80 : goto local-1 }" in found
    assert "endpoints { 192.0.2.9 . tcp . 80 . 1048576 : 10.244.2.7 . 8080 }" in found
    assert 'services { 10.96.0.20 . tcp . 80 comment "shop/web" : goto pick-2 }' in found


def test_affinity_remembers_and_knows_who_is_still_there() -> None:
    found = shown(replace(WEB, affinity_s=600), A)

    assert 'services { 10.96.0.20 . tcp . 80 comment "shop/web" : goto sticky-pick-1 }' in found
    assert "affinity-of { 10.96.0.20 . tcp . 80 : goto timeout-600 }" in found
    assert "affinity-valid { 10.96.0.20 . tcp . 80 . 10.244.1.7 . 8080 }" in found


def test_each_family_has_its_own_endpoints() -> None:
    dual = replace(WEB, cluster_ips=(*WEB.cluster_ips, ip_address("fd00:10:96::20")))
    found = shown(dual, A, "fd00:10:244::7:8080")

    assert "endpoints { fd00:10:96::20 . tcp . 80 . 0 : fd00:10:244::7 . 8080 }" in found
    assert "endpoints { 10.96.0.20 . tcp . 80 . 0 : 10.244.1.7 . 8080 }" in found


def test_what_an_older_service_has_is_left_to_it() -> None:
    nobody = plan(WEB, endpoints(A), NODE, owned=())

    assert list(elements(nobody)) == []


def test_slots_are_kept_from_what_was_there() -> None:
    three = planned(WEB, endpoints(A, "10.244.1.8:8080", "10.244.1.9:8080"))

    two = planned(WEB, endpoints("10.244.1.8:8080", "10.244.1.9:8080"), three)

    (slots,) = two.slots.values()
    assert [str(each.address) for each in slots] == ["10.244.1.9", "10.244.1.8"]


def test_only_pods_that_may_be_here_can_reach_themselves() -> None:
    found = planned(WEB, endpoints(A, B))

    assert [str(hairpin(each)) for each in found.hairpin] == ["hairpin { 10.244.2.7 . 10.244.2.7 }"]


def test_the_node_says_where_its_node_ports_are_and_who_is_a_pod() -> None:
    node = NodeView(
        name="here",
        addresses=(ip_network("172.18.0.2/32"),),
        pods=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
        service_cidrs=(ip_network("10.96.0.0/16"),),
    )

    found = [each for each in node_elements(node) if each.of.name not in ("ways", "picks")]
    assert sorted(map(str, found)) == [
        "node-addresses { 172.18.0.2 }",
        "pods { 10.244.0.0/16 }",
        "pods { fd00:10:244::/56 }",
        "service-cidrs { 10.96.0.0/16 }",
    ]
