"""From a network of reference plugins to ours, with pods that run.

They keep their network until they end.  New ones get addresses of another pool, so none of those
that are in use is given a second time.
"""

import ipaddress
from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.cluster import isthmus, reference
from tests.cluster.cluster import Cluster, pod, until
from tests.cluster.flow import flowing
from tools.kind.progress import say

pytestmark = pytest.mark.cluster

FIRST, SECOND = "isthmus-worker", "isthmus-worker2"
POOLS = ("--ipv4-pool=10.245.0.0/16", "--ipv6-pool=fd00:10:245::/56")
OLD, NEW = ("old-1", "old-2"), ("new-1", "new-2")


@pytest.fixture
def before(cluster: Cluster, isthmus_image: None) -> Iterator[Cluster]:
    """A cluster with the reference's network, and with none afterwards."""
    reference.install(cluster)
    yield cluster
    cluster.kubectl("delete", "pod", "--force", "--ignore-not-found", *OLD, *NEW)
    isthmus.Network(cluster).uninstall()
    reference.remove(cluster)


def start(cluster: Cluster, names: tuple[str, str]) -> dict[str, str]:
    """Have a pod on each worker; returns their addresses."""
    cluster.apply(
        *(pod(name, node, "netexec") for name, node in zip(names, (FIRST, SECOND), strict=True))
    )
    cluster.wait("condition=Ready", *(f"pod/{name}" for name in names))
    return {name: cluster.get("pod", name)["status"]["podIP"] for name in names}


def test_pods_of_another_network_live_on_beside_ours(before: Cluster) -> None:
    cluster, network = before, isthmus.Network(before)
    others = veths(cluster)
    addresses = start(cluster, OLD)
    with flowing(cluster, FIRST, SECOND) as flow:
        network.install(isthmus.Mode.AUTO, *POOLS)
        addresses |= start(cluster, NEW)
        for one, other in permutations(addresses, 2):
            host = addresses[other] if "." in addresses[other] else f"[{addresses[other]}]"
            url = f"http://{host}:8080/hostname"
            assert cluster.in_pod(one, "curl", "-sS", "-m5", url) == other
    restarts = [
        cluster.get("pod", name)["status"]["containerStatuses"][0]["restartCount"] for name in OLD
    ]
    cluster.kubectl("delete", "pod", *OLD)
    until(lambda: veths(cluster) <= others, what="links of the ended pods are gone")
    say(f"while the network was exchanged: {flow}")

    assert flow.lost == 0
    assert restarts == [0, 0]
    assert [addresses[name] for name in NEW] == [
        cluster.get("pod", name)["status"]["podIP"] for name in NEW
    ]
    pools = [ipaddress.ip_network(option.partition("=")[2]) for option in POOLS]
    assert all(any(ipaddress.ip_address(addresses[name]) in pool for pool in pools) for name in NEW)


def veths(cluster: Cluster) -> set[str]:
    """Links of the reference's pods on the workers."""
    links = "ip -oneline link | grep -o 'veth[0-9a-f]*' || true"
    return {
        name
        for node in (FIRST, SECOND)
        for name in cluster.on_node(node, "sh", "-c", links).split()
    }
