"""The API's objects in this package's words: what is used, what is left out, and what is told."""

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from dataplane.nft.objects import Protocol
from kube.objects import ASSIGNED
from proxy import objects, translate
from proxy.model import Endpoint, Service, ServiceName, ServicePort, TrafficPolicy
from proxy.translate import Slice

META = {"name": "web", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}


def translated(spec: dict[str, Any], *, status: Any = None, **meta: Any) -> translate.Translated:
    whole = {
        "metadata": {**META, **meta},
        "spec": {"clusterIPs": ["10.96.0.20"], "ports": [{"port": 80}], **spec},
        "status": status or {},
    }
    return translate.service(msgspec.convert(whole, objects.Service))


def one(spec: dict[str, Any], **more: Any) -> Service:
    found = translated(spec, **more).service
    assert found is not None
    return found


def a_slice(*endpoints: dict[str, Any], kind: str = "IPv4", **more: Any) -> Slice | None:
    whole = {
        "metadata": {
            "name": "web-x",
            "namespace": "shop",
            "labels": {objects.SERVICE_NAME: "web", **more.pop("labels", {})},
            "annotations": {objects.TRIGGERED: "2026-01-01T00:00:05Z"},
        },
        "addressType": kind,
        "ports": more.pop("ports", [{"name": "http", "protocol": "TCP", "port": 8080}]),
        "endpoints": list(endpoints),
    }
    return translate.slice_(msgspec.convert(whole, objects.EndpointSlice))


def members(found: Slice | None) -> tuple[Endpoint, ...]:
    assert found is not None
    return found.endpoints["http", Protocol.TCP]


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "ExternalName", "clusterIPs": None},
        {"clusterIPs": ["None"]},
        {"clusterIPs": None, "clusterIP": ""},
    ],
)
def test_names_and_headless_services_are_nothing_to_translate(spec: dict[str, Any]) -> None:
    assert translated(spec) == translate.Translated(None)


@pytest.mark.parametrize("label", [objects.PROXY_NAME, objects.HEADLESS])
def test_what_is_labelled_as_anothers_is_left_alone(label: str) -> None:
    assert translated({}, labels={label: ""}).service is None
    assert a_slice(labels={label: ""}) is None


def test_a_service_without_more_has_the_defaults_of_the_api() -> None:
    assert one({}) == Service(
        name=ServiceName("shop", "web"),
        ports=(ServicePort(name="", protocol=Protocol.TCP, port=80),),
        cluster_ips=(ip_address("10.96.0.20"),),
        created="2026-01-01T00:00:00Z",
    )


def test_policies_affinity_and_the_health_check_are_as_said() -> None:
    found = one(
        {
            "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "sessionAffinity": "ClientIP",
            "ports": [{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053}],
        }
    )

    assert (found.internal_policy, found.external_policy) == (TrafficPolicy.LOCAL,) * 2
    assert (found.health_check_node_port, found.affinity_s) == (31000, 10800)
    assert found.ports == (
        ServicePort(name="dns", protocol=Protocol.UDP, port=53, node_port=30053),
    )
    config = {"clientIP": {"timeoutSeconds": 7}}
    assert one({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}).affinity_s == 7
    assert one({"sessionAffinityConfig": config}).affinity_s == 0


def test_balanced_addresses_are_those_that_packets_come_with() -> None:
    ingress = [
        {"ip": "198.51.100.1"},
        {"ip": "198.51.100.2", "ipMode": "VIP"},
        {"ip": "198.51.100.3", "ipMode": "Proxy"},
        {"hostname": "lb.example"},
    ]

    found = one({"loadBalancerClass": "theirs"}, status={"loadBalancer": {"ingress": ingress}})

    assert list(map(str, found.load_balancer_ips)) == ["198.51.100.1", "198.51.100.2"]


def test_addresses_are_ours_to_announce_where_the_condition_says_that_we_gave_them() -> None:
    def assigned(*conditions: dict[str, str]) -> bool:
        return one({}, status={"conditions": list(conditions)}).is_assigned

    assert assigned({"type": ASSIGNED, "status": "True"})
    assert not assigned({"type": ASSIGNED, "status": "False"})
    assert not assigned({"type": "other", "status": "True"})
    assert not assigned()


def test_source_ranges_may_have_spaces_and_host_bits() -> None:
    found = one({"loadBalancerSourceRanges": [" 10.1.2.3/8", "fd00::/8 "]})

    assert found.source_ranges == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def test_ranges_that_nobody_can_read_let_nobody_in() -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}

    found = translated({"loadBalancerSourceRanges": ["anywhere"]}, status=status)

    assert found.service is not None
    assert found.service.load_balancer_ips == ()
    assert "anywhere" in found.troubles[0]


def test_what_cannot_be_used_takes_nothing_good_with_it() -> None:
    found = translated(
        {
            "externalIPs": ["127.0.0.1", "no address", "192.0.2.7"],
            "ports": [{"port": 80, "protocol": "QUIC"}, {"port": 81}],
        }
    )

    assert found.service is not None
    assert found.service.external_ips == (ip_address("192.0.2.7"),)
    assert [port.port for port in found.service.ports] == [81]
    assert len(found.troubles) == 3


@pytest.mark.parametrize(
    ("conditions", "ready", "serving", "terminating"),
    [
        ({}, True, True, False),
        ({"ready": None, "serving": None, "terminating": None}, True, True, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True, True),
        ({"ready": False, "serving": False}, False, False, False),
    ],
)
def test_conditions_that_are_not_said_mean_what_the_api_says(
    conditions: dict[str, Any], ready: bool, serving: bool, terminating: bool
) -> None:
    (found,) = members(a_slice({"addresses": ["10.244.1.7"], "conditions": conditions}))

    assert (found.is_ready, found.is_serving, found.is_terminating) == (ready, serving, terminating)


def test_hints_and_node_come_along_and_hints_are_shared() -> None:
    hints = {"forZones": [{"name": "z1"}], "forNodes": [{"name": "a"}]}
    first, second = members(
        a_slice(
            {"addresses": ["10.244.1.7", "10.244.1.99"], "nodeName": "a", "hints": hints},
            {"addresses": ["10.244.1.8"], "hints": hints},
        )
    )

    assert (first.address, first.port, first.node) == (ip_address("10.244.1.7"), 8080, "a")
    assert (first.zone_hints, first.node_hints) == ({"z1"}, {"a"})
    assert first.zone_hints is second.zone_hints


@pytest.mark.parametrize(("kind", "name"), [("Pod", "web-1"), ("Node", "")])
def test_an_endpoint_has_the_name_of_its_pod_if_it_is_one(kind: str, name: str) -> None:
    target = {"kind": kind, "name": "web-1"}

    (found,) = members(a_slice({"addresses": ["10.244.1.7"], "targetRef": target}))

    assert found.pod == name


def test_names_of_hosts_and_slices_of_nobody_are_ignored() -> None:
    assert a_slice({"addresses": ["host.example"]}, kind="FQDN") is None
    assert a_slice(labels={objects.SERVICE_NAME: ""}) is None


@pytest.mark.parametrize("address", ["fd00::1", "127.0.0.1", "169.254.1.1", "nonsense", "0.0.0.0"])
def test_an_endpoint_that_cannot_be_reached_is_left_out_and_told(address: str) -> None:
    found = a_slice({"addresses": [address]}, {"addresses": ["10.244.1.7"]})

    assert [str(each.address) for each in members(found)] == ["10.244.1.7"]
    assert found is not None
    assert address in found.troubles[0]


def test_ports_without_a_number_lead_nowhere() -> None:
    found = a_slice({"addresses": ["10.244.1.7"]}, ports=[{"name": "any"}, {"port": 53}])

    assert found is not None
    assert list(found.endpoints) == [("", Protocol.TCP)]
    assert found.triggered == "2026-01-01T00:00:05Z"


def test_slices_of_one_service_come_together_without_circles() -> None:
    first = a_slice({"addresses": ["10.244.1.7"]}, {"addresses": ["10.96.0.20"]})
    second = a_slice({"addresses": ["10.244.1.8"]}, {"addresses": ["10.96.7.7"]})
    third = a_slice({"addresses": ["192.0.2.7"]})
    assert first
    assert second
    assert third

    found, troubles = translate.gather(
        [first, second, third], one({"externalIPs": ["192.0.2.7"]}), [ip_network("10.96.0.0/16")]
    )

    assert [str(each.address) for each in found["http", Protocol.TCP]] == [
        "10.244.1.7",
        "10.244.1.8",
    ]
    assert len(troubles) == 3


def test_endpoints_of_one_slice_are_not_kept_twice() -> None:
    only = a_slice({"addresses": ["10.244.1.7"]})
    assert only

    found, _ = translate.gather([only], one({}), [])

    assert found["http", Protocol.TCP] is only.endpoints["http", Protocol.TCP]


def test_somebody_answers_who_is_ready_or_still_serves_while_it_ends() -> None:
    def answers(**conditions: bool) -> bool:
        found = a_slice({"addresses": ["10.244.1.7"], "conditions": conditions})
        assert found
        return translate.answers(found.endpoints)

    assert answers()
    assert answers(ready=False, serving=True, terminating=True)
    assert not answers(ready=False, serving=True)
    assert not answers(ready=False, serving=False, terminating=True)


def test_ranges_of_services_are_all_that_can_be_read() -> None:
    found = [
        msgspec.convert({"spec": {"cidrs": texts}}, objects.ServiceCIDR)
        for texts in (["10.96.0.0/16", "fd00:96::/112"], ["10.97.0.0/24", "rubbish"], None)
    ]

    assert list(map(str, translate.cidrs(found))) == [
        "10.96.0.0/16",
        "10.97.0.0/24",
        "fd00:96::/112",
    ]
