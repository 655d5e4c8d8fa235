"""What is read of the API's JSON."""

import msgspec

from kube.objects import Ingress
from proxy import objects


def test_a_service_is_read_by_the_names_that_the_api_gives_its_fields() -> None:
    raw = b"""{"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
     "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "externalIPs": ["192.0.2.1"],
     "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 9}},
     "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
     "loadBalancerSourceRanges": ["10.0.0.0/8"], "healthCheckNodePort": 31000,
     "ports": [{"port": 80, "nodePort": 30080, "targetPort": "http"}]},
     "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "Proxy"}]}}}"""

    found = msgspec.json.decode(raw, type=objects.Service)

    assert found.metadata.creation_timestamp == "2026-01-01T00:00:00Z"
    assert found.spec.affinity_config is not None
    assert found.spec.affinity_config.client_ip == objects.ClientIPConfig(9)
    assert found.spec.ports == (objects.ServicePort(port=80, node_port=30080),)
    assert (found.spec.internal_policy, found.spec.external_policy) == ("Local", "Local")
    assert (found.spec.external_ips, found.spec.source_ranges) == (("192.0.2.1",), ("10.0.0.0/8",))
    assert found.spec.health_check_node_port == 31000
    assert found.status.load_balancer.ingress == (Ingress("198.51.100.1", ip_mode="Proxy"),)


def test_a_slice_is_read_with_hints_and_with_what_is_null() -> None:
    raw = b"""{"metadata": {"name": "web-x"}, "addressType": "IPv4", "ports": null,
     "endpoints": [{"addresses": ["10.244.1.7"], "conditions": {"serving": true}, "nodeName": "a",
     "hints": {"forZones": [{"name": "z1"}], "forNodes": null}}]}"""

    (found,) = msgspec.json.decode(raw, type=objects.EndpointSlice).endpoints or ()

    assert found.conditions == objects.Conditions(None, True, None)
    assert found.hints == objects.Hints((objects.Meant("z1"),), None)
    assert found.node_name == "a"
