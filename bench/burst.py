"""Fifty pods at once on one node: without a network, with isthmus, with the reference."""

import json
import re
import time
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory

from figures import Figure, Table, paired

from tests.cluster import reference
from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.reference import Node
from tools.kind.progress import run

PODS = 50
SELECTOR = ("pod", "--selector=burst=yes")
# Before isthmus's own in the order of names; without it the runtime takes that.
LIST = "/etc/cni/net.d/00-burst.conflist"
PROGRAM = Path(__file__).with_name("noop.c")
NOTHING: Manifest = {"cniVersion": "1.0.0", "name": "nothing", "plugins": [{"type": "noop"}]}
ISTHMUS, NO_OP, REFERENCE = "isthmus", "a plugin that makes nothing", "ptp, host-local, portmap"
CONTAINERD, AGENT = "127.0.0.1:1338/v1/metrics", "127.0.0.1:9477/metrics"
WAITED = (
    "containerd_cri_network_plugin_operations_duration_seconds_seconds_sum"
    '{operation_type="set_up_pod"}'
)
ANSWERED = 'isthmus_cni_request_seconds_sum{verb="ADD"}'


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds from apply to all Ready; ms a pod that containerd waited for its network.

    Of these *agent_ms* are isthmus's agent's, where it was asked.
    """

    ready_s: float
    network_ms: float
    agent_ms: float


def measure(table: Table, cluster: Cluster, rounds: int) -> None:
    """Measure all three in turns on the first worker; isthmus is the cluster's network."""
    node = cluster.nodes[1]
    _prepare(cluster, node)
    # Addresses that are not isthmus's.
    theirs = Node(node, (), (IPv4Network("10.250.0.0/24"),))
    lists = {NO_OP: NOTHING, ISTHMUS: None, REFERENCE: reference.conflist(theirs)}
    found: dict[str, list[Round]] = {name: [] for name in lists}
    try:
        for number in range(rounds + 1):
            for name, conflist in lists.items():
                _use(cluster, node, conflist)
                result = _burst(cluster, node)
                if number:  # the first brings programs to memory
                    found[name].append(result)
                    print(f"    {name}: {result}", flush=True)
    finally:
        cluster.kubectl("delete", *SELECTOR, "--ignore-not-found")
        _use(cluster, node, None)
    _report(table, found)


def _report(table: Table, found: dict[str, list[Round]]) -> None:
    ours = Figure(tuple(each.ready_s for each in found[ISTHMUS]), "s")
    promises = {ISTHMUS: "", NO_OP: "at least 0.95", REFERENCE: "above 1"}
    for name, results in found.items():
        figure = Figure(tuple(each.ready_s for each in results), "s")
        beside = "" if name == ISTHMUS else paired(figure, ours)
        what = f"{PODS} pods on a node, applied to Ready"
        table.add(what, name, figure, beside=beside, promise=promises[name])
    for name, results in found.items():
        figure = Figure(tuple(each.network_ms for each in results))
        table.add("… its network, a pod, as containerd waits", name, figure)
    agent = Figure(tuple(each.agent_ms for each in found[ISTHMUS]))
    table.add("… of that, in the agent", ISTHMUS, agent)


def _prepare(cluster: Cluster, node: str) -> None:
    """Put the plugin that makes nothing on the node, and have its containerd tell times."""
    with TemporaryDirectory() as scratch:
        program = Path(scratch, "noop")
        run("musl-gcc", "-static", "-Os", "-s", "-o", program, PROGRAM)
        cluster.engine.run("docker", "cp", program, f"{node}:/opt/cni/bin/noop")
    configuration = "/etc/containerd/config.toml"
    lines = f"[metrics]\naddress = '{CONTAINERD.partition('/')[0]}'\n"
    command = f"grep -q '^.metrics' {configuration} || cat >> {configuration}"
    cluster.on_node(node, "sh", "-c", command, stdin=lines)
    cluster.on_node(node, "systemctl", "restart", "containerd")
    cluster.wait("condition=Ready", "nodes", "--all")


def _use(cluster: Cluster, node: str, conflist: Manifest | None) -> None:
    if conflist is None:
        cluster.on_node(node, "rm", "-f", LIST)
    else:
        write = f"cat > {LIST}.new && mv {LIST}.new {LIST}"
        cluster.on_node(node, "sh", "-c", write, stdin=json.dumps(conflist))
    time.sleep(2)  # containerd reads the folder when it changes, and tells nobody


def _burst(cluster: Cluster, node: str) -> Round:
    pods = [_pod(f"burst-{number}", node) for number in range(PODS)]
    before = _waited(cluster, node)
    began = time.monotonic()
    cluster.apply(*pods)
    cluster.wait("condition=Ready", *SELECTOR, seconds=180)
    ready = time.monotonic() - began
    seconds = [late - early for late, early in zip(_waited(cluster, node), before, strict=True)]
    cluster.kubectl("delete", *SELECTOR)
    return Round(ready, *(1000 * each / PODS for each in seconds))


def _waited(cluster: Cluster, node: str) -> tuple[float, ...]:
    """Seconds that containerd has waited for networks of pods, and that the agent took."""
    pages = ((WAITED, CONTAINERD), (ANSWERED, AGENT))
    return tuple(
        sum(map(float, re.findall(f"^{re.escape(name)} (.*)", _page(cluster, node, page), re.M)))
        for name, page in pages
    )


def _page(cluster: Cluster, node: str, where: str) -> str:
    address, _, path = where.partition("/")
    ask = f"exec 3<>/dev/tcp/{address.replace(':', '/')}"
    ask += rf'; printf "GET /{path} HTTP/1.0\r\n\r\n" >&3; cat <&3'
    return cluster.on_node(node, "bash", "-c", ask)


def _pod(name: str, node: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"burst": "yes"}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10.1"}],
        },
    }
