"""What happens to a cluster in years: its programs are killed, exchanged, away; nodes come and go.

Pods of two nodes talk meanwhile, and nothing that they say is lost.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, pod, until
from tests.cluster.flow import flowing
from tests.cluster.isthmus import NAMESPACE, Network, containers, kill, sandbox
from tools.kind.progress import KindError, say

pytestmark = pytest.mark.cluster

WORKERS = FIRST, SECOND = "isthmus-worker", "isthmus-worker2"
# To the control group of process $1, of either version.
LEAVE_NO_MEMORY = r"""
cd /sys/fs/cgroup/"$(sed -n 's/^[0-9]*:memory:/memory/p;s/^0:://p' /proc/$1/cgroup | head -n 1)"
used=$(sed -n 's/^\(rss\|anon\) //p' memory.stat)
for file in memory.max memory.limit_in_bytes; do
    if [ -e $file ]; then echo $((used + 4194304)) > $file; fi
done
"""
API_SERVER = "/etc/kubernetes/manifests/kube-apiserver.yaml"


@contextmanager
def running(cluster: Cluster, name: str, node: str, **spec: Any) -> Iterator[str]:
    """Have a pod, and its address."""
    cluster.apply(pod(name, node, "pause", **spec))
    try:
        cluster.wait("condition=Ready", f"pod/{name}", seconds=60)
        yield str(cluster.get("pod", name)["status"]["podIP"])
    finally:
        cluster.kubectl("delete", "pod", "--ignore-not-found", "--force", name)


def new_pods_start(cluster: Cluster) -> None:
    for node in WORKERS:
        with running(cluster, "newcomer", node):
            pass


def every_agent_is_killed(network: Network) -> None:
    for node in WORKERS:
        killed = network.agent(node)
        kill(network.cluster, node, killed)
        until(lambda: network.agent(node) != killed, what="another agent runs")  # noqa: B023
    network.rolled_out("daemonset/isthmus-agent")


def agents_get_no_more_memory(network: Network) -> None:
    for node in WORKERS:
        victim = network.agent(node)
        network.cluster.on_node(node, "sh", "-s", str(victim.pid), stdin=LEAVE_NO_MEMORY)
        # One more program in its control group: the largest of it, the agent, is killed.
        with suppress(KindError):
            network.on_agent(node, "status")
        until(lambda: network.agent(node) != victim, what="another agent runs")  # noqa: B023
    network.rolled_out("daemonset/isthmus-agent")
    pods = network.cluster.get("pods", f"--namespace={NAMESPACE}")["items"]
    states = [one["status"]["containerStatuses"][0]["lastState"] for one in pods]
    reasons = [one.get("terminated", {}).get("reason") for one in states]
    assert reasons.count("OOMKilled") == 2, reasons


def agents_are_exchanged(network: Network) -> None:
    network.restart("daemonset/isthmus-agent")


def ipamd_is_exchanged(network: Network) -> None:
    network.restart("deployment/isthmus-ipamd")


def etcd_is_away(network: Network) -> None:
    network.scale("isthmus-etcd", 0)
    try:
        new_pods_start(network.cluster)
        for node in WORKERS:
            assert "serving" in network.on_agent(node, "status")
    finally:
        network.scale("isthmus-etcd", 1)
    network.rolled_out("deployment/isthmus-ipamd")


def containerd_is_restarted(network: Network) -> None:
    for node in WORKERS:
        network.cluster.on_node(node, "systemctl", "restart", "containerd")


def kubelets_are_restarted(network: Network) -> None:
    for node in WORKERS:
        network.cluster.on_node(node, "systemctl", "restart", "kubelet")


@pytest.mark.parametrize(
    "disturb",
    [
        every_agent_is_killed,
        agents_are_exchanged,  # between two that make kubelets wait longer each time
        pytest.param(agents_get_no_more_memory, marks=pytest.mark.slow),
        ipamd_is_exchanged,
        pytest.param(etcd_is_away, marks=pytest.mark.slow),
        containerd_is_restarted,
        pytest.param(kubelets_are_restarted, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost_and_pods_start_when(
    cluster: Cluster, isthmus_network: Network, disturb: Callable[[Network], None]
) -> None:
    with flowing(cluster, FIRST, SECOND) as flow:
        disturb(isthmus_network)
        new_pods_start(cluster)
    say(f"{disturb.__name__}: {flow}")

    assert flow.packets > 1000
    assert flow.by_the_network == 0
    assert flow.megabytes > 1


@pytest.mark.slow
def test_pods_run_and_start_again_while_the_api_server_is_away(
    cluster: Cluster, isthmus_network: Network
) -> None:
    with (
        running(cluster, "again", SECOND, automountServiceAccountToken=False),
        flowing(cluster, FIRST, SECOND) as flow,
    ):
        before = isthmus_network.attachments(SECOND)["default/again"]["container_id"]
        with api_server_away(cluster):
            kill(cluster, SECOND, sandbox(cluster, SECOND, "again"))
            until(
                lambda: (
                    isthmus_network.attachments(SECOND)
                    .get("default/again", {})
                    .get("container_id", before)
                    != before
                ),
                what="the pod has a network again",
            )
        cluster.wait("condition=Ready", "pod/again")
        now = cluster.get("pod", "again")["status"]["podIP"]
        held = isthmus_network.attachments(SECOND)["default/again"]["addresses"]
    say(f"API server away: {flow}")

    assert any(one.startswith(f"{now}/") for one in held)
    assert flow.packets > 1000
    assert flow.by_the_network == 0


@contextmanager
def api_server_away(cluster: Cluster) -> Iterator[None]:
    """As a static pod is stopped: by taking its manifest away."""
    node, aside = cluster.nodes[0], "/etc/kubernetes/kube-apiserver.yaml"
    is_it = 'labels."io.kubernetes.container.name"==kube-apiserver'
    cluster.on_node(node, "mv", API_SERVER, aside)
    try:
        until(
            lambda: not any(one.pid for one in containers(cluster, node, is_it)),
            what="the API server ends",
            seconds=120,
        )
        yield
    finally:
        cluster.on_node(node, "mv", aside, API_SERVER)
        until(lambda: answers(cluster), what="the API server answers", seconds=120)


def answers(cluster: Cluster) -> bool:
    try:
        return cluster.kubectl("get", "--raw=/readyz", timeout=10) == "ok"
    except KindError:
        return False
