import msgspec
import pytest

from kube.objects import EndpointSlice, Node, Page, Pod


def test_of_a_node_a_few_fields_are_read() -> None:
    text = b"""{"kind": "Node", "metadata": {"name": "a", "resourceVersion": "7", "more": {}},
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "taints": [
            {"key": "k", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "images": [1]}}"""

    node = msgspec.json.decode(text, type=Node)

    assert (node.metadata.name, node.metadata.resource_version) == ("a", "7")
    assert node.spec.pod_cidrs == ("10.0.0.0/24",)
    assert node.spec.taints is not None
    assert node.spec.taints[0].time_added == "2026-01-01T00:00:00Z"
    assert node.status.conditions is not None
    assert node.status.conditions[0].status == "True"


@pytest.mark.parametrize("text", [b"{}", b'{"metadata": {"labels": null}, "spec": {}}'])
def test_what_is_absent_or_null_is_nothing(text: bytes) -> None:
    pod = msgspec.json.decode(text, type=Pod)

    assert (pod.metadata.labels, pod.spec.node_name, pod.status.pod_ips) == (None, "", None)


def test_a_page_says_how_to_go_on() -> None:
    text = b"""{"metadata": {"resourceVersion": "9", "continue": "x"}, "items": [
        {"metadata": {"name": "p", "namespace": "n"}, "status": {"podIPs": [{"ip": "::1"}]}}]}"""

    page = msgspec.json.decode(text, type=Page[Pod])

    assert (page.metadata.version, page.metadata.go_on) == ("9", "x")
    assert page.items is not None
    assert page.items[0].status.pod_ips is not None
    assert page.items[0].status.pod_ips[0].ip == "::1"


def test_a_slice_may_have_no_endpoints_and_no_ready_condition() -> None:
    text = b"""{"metadata": {"name": "s"}, "endpoints": [{"addresses": ["10.0.0.1"],
        "conditions": {}}], "ports": [{"name": "ipamd", "port": 9476}]}"""

    full = msgspec.json.decode(text, type=EndpointSlice)
    empty = msgspec.json.decode(b'{"endpoints": null}', type=EndpointSlice)

    assert full.endpoints is not None
    assert full.endpoints[0].conditions.ready is None
    assert empty.endpoints is None
