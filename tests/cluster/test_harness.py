"""The cluster and the reference network do what tests that use them rely on."""

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, pod, service
from tests.cluster.reference import Node
from tools.kind import archive
from tools.kind.archive import Image
from tools.kind.progress import KindError

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def pods(cluster: Cluster, reference_network: list[Node]) -> Iterator[dict[str, str]]:
    """Addresses of a server and a client on two workers."""
    _, first, second = reference_network
    names = ("harness-server", "harness-client")
    server = pod(names[0], first.name, "netexec", "--http-port=8080")
    cluster.apply(server, pod(names[1], second.name, "pause"), service(names[0], 80, 8080))
    try:
        cluster.wait("condition=Ready", *(f"pod/{name}" for name in names))
        yield {name: cluster.get("pod", name)["status"]["podIP"] for name in names}
    finally:
        cluster.kubectl("delete", "pod", "--force", "--ignore-not-found", *names)
        cluster.kubectl("delete", "service", "--ignore-not-found", names[0])


def in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def test_the_cluster_has_a_control_plane_and_two_workers(cluster: Cluster) -> None:
    assert cluster.nodes == ["isthmus-control-plane", "isthmus-worker", "isthmus-worker2"]


def test_kubernetes_gives_nodes_no_blocks(cluster: Cluster) -> None:
    label = "--selector=component=kube-controller-manager"

    (manager,) = cluster.get("pods", "--namespace=kube-system", label)["items"]

    assert "--allocate-node-cidrs=false" in manager["spec"]["containers"][0]["command"]


def test_pods_of_two_nodes_reach_each_other_without_nat(
    cluster: Cluster, pods: dict[str, str]
) -> None:
    url = f"http://{in_url(pods['harness-server'])}:8080/clientip"

    seen = cluster.in_pod("harness-client", "curl", "-sS", "-m5", url)

    assert seen.rpartition(":")[0] == in_url(pods["harness-client"])


def test_kube_proxy_serves_a_service_by_its_name(cluster: Cluster, pods: dict[str, str]) -> None:
    cluster.wait("condition=Available", "deployment/coredns", "--namespace=kube-system")

    host = cluster.in_pod("harness-client", "curl", "-sS", "-m5", "http://harness-server/hostname")

    assert host == "harness-server"


def test_a_program_on_a_node_sees_the_pods_of_that_node(
    cluster: Cluster, pods: dict[str, str], reference_network: list[Node]
) -> None:
    route = cluster.on_node(reference_network[1].name, "ip", "route", "get", pods["harness-server"])

    assert " dev veth" in route


def test_a_program_that_fails_says_what_it_said(cluster: Cluster) -> None:
    with pytest.raises(KindError, match="exit status 3\nout of luck"):
        cluster.on_node(cluster.nodes[0], "sh", "-c", "echo out of luck; exit 3")


def test_an_image_is_loaded_into_every_node(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tag = "localhost/harness:loaded"
    path = tmp_path_factory.mktemp("image") / "image.tar"
    archive.write(path, [Image(tags=(tag,), layers=({"nothing": b"nothing"},))])

    cluster.load(path)

    listed = [
        cluster.on_node(node, "ctr", "--namespace=k8s.io", "images", "ls", "-q", f"name=={tag}")
        for node in cluster.nodes
    ]
    assert listed == [f"{tag}\n"] * 3
