"""From a network of reference plugins to ours, under pods that run.

They keep network and addresses until they end, and nobody else gets these: neither from isthmus,
whose pool has them, nor from the plugins that are exchanged.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import permutations

import pytest

from tests.cluster import isthmus, reference
from tests.cluster.cluster import Cluster, pod, until
from tests.cluster.flow import flowing
from tools.kind.progress import KindError, say

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WORKERS = FIRST, SECOND = "isthmus-worker", "isthmus-worker2"
OLD, NEW = ("old-1", "old-2"), ("new-1", "new-2")


@pytest.fixture
def before(cluster: Cluster, isthmus_image: None) -> Iterator[Cluster]:
    """A cluster with the reference's network, and with none afterwards."""
    reference.install(cluster)
    yield cluster
    cluster.kubectl("delete", "pod", "--force", "--ignore-not-found", *OLD, *NEW)
    isthmus.Network(cluster).uninstall()
    with suppress(KindError):  # the test did it
        reference.remove(cluster)


def start(cluster: Cluster, names: tuple[str, str]) -> dict[str, str]:
    """Have a pod on each worker; returns their addresses."""
    cluster.apply(*(pod(name, node, "netexec") for name, node in zip(names, WORKERS, strict=True)))
    cluster.wait("condition=Ready", *(f"pod/{name}" for name in names))
    return {name: cluster.get("pod", name)["status"]["podIP"] for name in names}


def reach_each_other(cluster: Cluster, addresses: dict[str, str]) -> None:
    for one, other in permutations(addresses, 2):
        host = addresses[other] if "." in addresses[other] else f"[{addresses[other]}]"
        url = f"http://{host}:8080/hostname"
        assert cluster.in_pod(one, "curl", "-sS", "-m5", url) == other


def test_pods_of_another_network_live_on_in_ours(before: Cluster) -> None:
    cluster, network = before, isthmus.Network(before)
    others = veths(cluster)
    addresses = start(cluster, OLD)
    with flowing(cluster, FIRST, SECOND) as flow:
        network.install(isthmus.Mode.AUTO, f"--host-local={reference.LEASES}")
        addresses |= start(cluster, NEW)
        reach_each_other(cluster, addresses)
        reference.remove(cluster)  # its routes; ours lead to the same pods
        reach_each_other(cluster, addresses)
    say(f"while the network was exchanged: {flow}")
    held = {node: former(network, node) for node in WORKERS}
    rows = json.loads(network.ask_ipamd("ipam", "blocks", "--json"))
    blocks = {row["cidr"]: row["node"] for row in rows}
    restarts = [
        cluster.get("pod", name)["status"]["containerStatuses"][0]["restartCount"] for name in OLD
    ]
    cluster.kubectl("delete", "pod", *OLD)
    until(lambda: veths(cluster) <= others, what="links of the ended pods are gone")
    left = {address for node in WORKERS for address in reserved(cluster, node)}
    for name, node in zip(OLD, WORKERS, strict=True):
        until(
            lambda: addresses[name] not in former(network, node),  # noqa: B023
            what=f"the address of {name} is free in isthmus, too",
            seconds=240,
        )

    assert flow.by_the_network == 0
    assert restarts == [0, 0]
    assert len(set(addresses.values())) == 4
    for name, node in zip(OLD, WORKERS, strict=True):
        assert addresses[name] in held[node]
        assert addresses[name] not in left
        assert blocks[block_of(cluster, node)] == node


def block_of(cluster: Cluster, node: str) -> str:
    """The block of the first family that the reference's network gave a node."""
    (found,) = (one for one in reference.observed(cluster) if one.name == node)
    return str(found.blocks[0])


def former(network: isthmus.Network, node: str) -> set[str]:
    """The addresses that the node's agent holds for pods of the reference's network."""
    said = network.on_agent(node, "attachments", "--network", "reference", "--json")
    return {
        address.partition("/")[0]
        for one in json.loads(said)["attachments"]
        for address in one["addresses"]
    }


def reserved(cluster: Cluster, node: str) -> set[str]:
    """The addresses that host-local has given on a node, or we beside it."""
    listed = cluster.on_node(node, "sh", "-c", f"ls {reference.LEASES}/reference || true")
    return set(listed.split())


def veths(cluster: Cluster) -> set[str]:
    """Links of the reference's pods on the workers."""
    links = "ip -oneline link | grep -o 'veth[0-9a-f]*' || true"
    return {name for node in WORKERS for name in cluster.on_node(node, "sh", "-c", links).split()}
