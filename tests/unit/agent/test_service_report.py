"""What an operator sees of Services."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent import service_report
from dataplane.nft.objects import Protocol
from proxy.model import Endpoint, NodeView, Service, ServiceName, ServicePort
from proxy.reconciler import Reconciler, Wanted
from proxy.walk import packet_of
from tests.unit.dataplane.nft.fake import FakeTable

WEB = Service(
    name=ServiceName("shop", "web"),
    ports=(ServicePort(name="http", protocol=Protocol.TCP, port=80, node_port=30080),),
    cluster_ips=(ip_address("10.96.0.20"),),
    created="1",
)
LATE = replace(WEB, name=ServiceName("shop", "late"), cluster_ips=(ip_address("10.96.0.21"),),
               created="2")  # fmt: skip
ENDPOINTS = {("http", Protocol.TCP): (Endpoint(address=ip_address("10.244.1.7"), port=8080),)}


def served() -> tuple[Reconciler, FakeTable]:
    table = FakeTable()
    reconciler = Reconciler({4: table}, NodeView(name="here"))
    reconciler.begin({each.name: Wanted(each, ENDPOINTS) for each in (WEB, LATE)})
    return reconciler, table


def test_a_service_is_shown_with_frontends_endpoints_and_policy() -> None:
    (row,) = service_report.rows(served()[0], {WEB.name: ["is odd"]}, "shop/web", compare=True)

    assert row["frontends"] == [
        {"at": "10.96.0.20:80/tcp", "port": "http", "endpoints": ["10.244.1.7:8080"], "local": []},
        {
            "at": "NodePort IPv4 30080/tcp",
            "port": "http",
            "endpoints": ["10.244.1.7:8080"],
            "local": [],
        },
    ]
    assert (row["internal_policy"], row["external_policy"]) == ("Cluster", "Cluster")
    assert (row["programmed"], row["problems"], row["differing"]) == (True, ["is odd"], [])


def test_what_the_kernel_lacks_is_named() -> None:
    reconciler, table = served()
    assert table.elements is not None
    table.elements = frozenset(each for each in table.elements if each.of.name != "endpoints")

    late, web = service_report.rows(reconciler, {}, "", compare=True)

    assert web["differing"] == ["endpoints { 10.96.0.20 . tcp . 80 . 0 : 10.244.1.7 . 8080 }"]
    assert not web["programmed"]
    assert late["name"] == "shop/late"


def test_frontends_that_two_claim_are_named_with_who_has_them() -> None:
    assert service_report.conflicts(served()[0]) == [
        "NodePort IPv4 30080/tcp is claimed by shop/web, shop/late: shop/web has it"
    ]


ASKED = {"source": "203.0.113.9", "address": "10.96.0.20", "port": 80, "protocol": "tcp"}


def test_an_explanation_has_the_fate_and_each_endpoint_with_why_not() -> None:
    reconciler, _ = served()
    packet = packet_of(service_report.flow_of(ASKED), (), own=())

    found = service_report.explained(reconciler.explain(packet))

    assert (found["service"], found["port"], found["fate"]) == ("shop/web", "http", "translated")
    assert (found["source_is"], found["masqueraded"]) == ("outside", True)
    assert found["endpoints"] == [{"at": "10.244.1.7:8080", "node": "", "why_not": ""}]
    assert found["programmed"] is True
    assert found["kernel"] == {"fate": "translated", "endpoints": ["10.244.1.7:8080"]}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"source": "nobody"}, "'nobody' does not appear to be an IPv4 or IPv6 address"),
        ({"address": "fd00::1"}, "must be of one family"),
        ({"port": 0}, "port 0: must be 1 to 65535"),
        ({"port": "80"}, "port '80': must be 1 to 65535"),
        ({"protocol": "icmp"}, "must be one of tcp, udp, sctp"),
    ],
)
def test_what_cannot_be_asked_is_named(wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        service_report.flow_of({**ASKED, **wrong})
