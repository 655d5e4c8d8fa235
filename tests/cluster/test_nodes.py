"""Nodes are started again, leave, come again; and are clean once the network is taken away."""

import json

import pytest

from tests.cluster.cluster import Cluster, pod, until
from tests.cluster.flow import flowing
from tests.cluster.isthmus import Network
from tools.kind.progress import say

pytestmark = pytest.mark.cluster

FIRST, SECOND = "isthmus-worker", "isthmus-worker2"
BOOT = "/proc/sys/kernel/random/boot_id"


def is_ready(cluster: Cluster, node: str) -> bool:
    found = cluster.get("nodes", f"--field-selector=metadata.name={node}")["items"]
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for one in found
        for condition in one["status"]["conditions"]
    )


def running_since(cluster: Cluster, name: str) -> str:
    (status,) = cluster.get("pod", name)["status"]["containerStatuses"]
    return str(status["state"].get("running", {}).get("startedAt", ""))


@pytest.mark.slow
def test_a_node_that_was_started_again_gives_its_pods_a_network_anew(
    cluster: Cluster, isthmus_network: Network
) -> None:
    cluster.apply(pod("resident", SECOND, "pause"), pod("neighbour", FIRST, "netexec"))
    try:
        cluster.wait("condition=Ready", "pod/resident", "pod/neighbour")
        before = isthmus_network.attachments(SECOND)["default/resident"]
        started, boot = running_since(cluster, "resident"), cluster.on_node(SECOND, "cat", BOOT)

        cluster.engine.run("docker", "restart", "--time=1", SECOND)
        until(
            lambda: running_since(cluster, "resident") not in ("", started),
            what="the pod runs again",
            seconds=120,
        )
        after = isthmus_network.attachments(SECOND)
        peer = cluster.get("pod", "neighbour")["status"]["podIP"]
        host = f"[{peer}]" if ":" in peer else peer
        answer = cluster.in_pod("resident", "curl", "-sS", "-m9", f"http://{host}:8080/hostname")

        say(f"boot id the same: {cluster.on_node(SECOND, 'cat', BOOT) == boot}")
        assert after["default/resident"]["sandbox"] != before["sandbox"]
        assert answer == "neighbour"
        until(
            lambda: not isthmus_network.leftovers(SECOND),
            what="nothing of the former life is held",
            seconds=120,
        )
    finally:
        cluster.kubectl("delete", "pod", "--force", "--ignore-not-found", "resident", "neighbour")


@pytest.mark.slow
def test_a_node_that_is_drained_deleted_and_added_again_serves(
    cluster: Cluster, isthmus_network: Network
) -> None:
    drain = ("drain", SECOND, "--ignore-daemonsets", "--force", "--delete-emptydir-data")
    with flowing(cluster, cluster.nodes[0], FIRST) as flow:
        cluster.kubectl(*drain, "--timeout=60s")
        former = cluster.get("node", SECOND)["metadata"]["uid"]
        cluster.kubectl("delete", "node", SECOND)
        try:
            until(lambda: not blocks_of(isthmus_network, SECOND), what="its blocks are given back")
        finally:
            cluster.on_node(SECOND, "systemctl", "restart", "kubelet")
        until(lambda: is_ready(cluster, SECOND), what="the node is ready again", seconds=120)
        isthmus_network.rolled_out("daemonset/isthmus-agent")
        cluster.apply(pod("newcomer", SECOND, "pause"))
        cluster.wait("condition=Ready", "pod/newcomer")
        cluster.kubectl("delete", "pod", "--force", "newcomer")
    node = cluster.get("node", SECOND)
    say(f"a node away and back: {flow}; pod CIDRs {node['spec']['podCIDRs']}")

    assert node["metadata"]["uid"] != former
    assert flow.by_the_network == 0


def blocks_of(network: Network, node: str) -> list[str]:
    found = json.loads(network.ask_ipamd("ipam", "nodes", "--json"))
    return [block for one in found if one["name"] == node for block in one["blocks"]]


def test_nothing_of_the_network_stays_on_nodes_it_was_taken_from(
    cluster: Cluster, isthmus_network: Network
) -> None:
    isthmus_network.uninstall()
    try:
        left = {node: cluster.on_node(node, "sh", "-c", LEFT).split("\n") for node in cluster.nodes}
    finally:
        isthmus_network.install()

    assert left == {node: [""] for node in cluster.nodes}


LEFT = r"""
ls -d /etc/cni/net.d/*isthmus* /opt/cni/bin/isthmus* /var/lib/isthmus* /run/isthmus* 2> /dev/null
nft list tables | grep isthmus
ip -oneline link | grep -E 'isth|vxlan'
for family in -4 -6; do
    ip $family route show table all | grep -E '^(blackhole|unreachable) |10\.244\.|fd00:10:244:'
done
true
"""
