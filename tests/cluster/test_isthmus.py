"""What a user sees of the network: in Nodes, pods, Events, and on the wire."""

import ipaddress
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Manifest, pod, until
from tests.cluster.isthmus import Mode, Network
from tools.kind.places import KUBECONFIG, ROOT
from tools.kind.progress import say

pytestmark = pytest.mark.cluster

FIRST, SECOND = "isthmus-worker", "isthmus-worker2"


@contextmanager
def present(cluster: Cluster, manifest: Manifest) -> Iterator[str]:
    """Have a pod for a while, which need not start."""
    name = str(manifest["metadata"]["name"])
    cluster.apply(manifest)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "pod", "--force", "--ignore-not-found", name)


def started(cluster: Cluster, name: str) -> dict[str, Any]:
    cluster.wait("condition=Ready", f"pod/{name}")
    status: dict[str, Any] = cluster.get("pod", name)["status"]
    return status


def annotated(name: str, **annotations: str) -> Manifest:
    made = pod(name, FIRST, "pause")
    made["metadata"]["annotations"] = {
        f"isthmus.dev/{key}": value for key, value in annotations.items()
    }
    return made


@pytest.mark.parametrize(
    "mode", [pytest.param(Mode.DIRECT, marks=pytest.mark.slow), Mode.VXLAN, Mode.AUTO]
)
def test_every_path_works_when_nodes_are_reached(
    cluster: Cluster, isthmus_network: Network, mode: Mode
) -> None:
    begun = time.monotonic()
    isthmus_network.install(mode)
    changed = time.monotonic() - begun

    command = (sys.executable, "-m", "cli", "connectivity", "test", f"--kubeconfig={KUBECONFIG}")
    done = subprocess.run(
        [*cluster.engine.prefix, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    say(f"{mode}: all changed in {changed:.1f} s; {done.stdout.splitlines()[-1]}")
    assert done.stdout.endswith("All well.\n"), done.stdout + done.stderr


def test_nodes_say_that_their_network_serves_and_which_blocks_are_theirs(
    cluster: Cluster, isthmus_network: Network
) -> None:
    nodes = cluster.get("nodes")["items"]

    blocks = [ipaddress.ip_network(cidr) for node in nodes for cidr in node["spec"]["podCIDRs"]]
    reasons = [
        condition["reason"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "NetworkUnavailable" and condition["status"] == "False"
    ]
    assert len(set(blocks)) == len(blocks) == 3 * len(nodes[0]["spec"]["podCIDRs"])
    assert reasons == ["IsthmusServes"] * 3


def test_pods_have_addresses_of_the_blocks_that_their_node_has(
    cluster: Cluster, isthmus_network: Network
) -> None:
    (blocks,) = (
        [ipaddress.ip_network(cidr) for cidr in node["spec"]["podCIDRs"]]
        for node in cluster.get("nodes")["items"]
        if node["metadata"]["name"] == FIRST
    )
    with present(cluster, pod("usual", FIRST, "pause")) as name:
        addresses = [one["ip"] for one in started(cluster, name)["podIPs"]]

    assert len(addresses) == len(blocks)
    assert all(
        ipaddress.ip_address(address) in block
        for address, block in zip(addresses, blocks, strict=True)
    )


def test_a_pod_gets_the_address_that_it_asks_for(
    cluster: Cluster, isthmus_network: Network
) -> None:
    (block,) = (
        ipaddress.ip_network(node["spec"]["podCIDR"])
        for node in cluster.get("nodes")["items"]
        if node["metadata"]["name"] == FIRST
    )
    wanted = str(block[77])

    with present(cluster, annotated("particular", address=wanted)) as name:
        assert started(cluster, name)["podIP"] == wanted


def test_a_pod_gets_an_address_of_the_pool_that_it_names(
    cluster: Cluster, isthmus_network: Network
) -> None:
    isthmus_network.ask_ipamd(
        *("ipam", "pools", "create", "blue", "10.99.0.0/24", "--block-length", "28")
    )
    with present(cluster, annotated("blue", pool="blue")) as name:
        address = started(cluster, name)["podIP"]

    assert ipaddress.ip_address(address) in ipaddress.ip_network("10.99.0.0/24")


def test_a_pod_is_held_to_the_bandwidth_of_its_annotation(
    cluster: Cluster, isthmus_network: Network
) -> None:
    slow = pod("slow", FIRST, "pause")
    slow["metadata"]["annotations"] = {"kubernetes.io/ingress-bandwidth": "10M"}
    with present(cluster, slow) as name:
        started(cluster, name)
        link = isthmus_network.attachments(FIRST)[f"default/{name}"]["host_side"]
        limits = cluster.on_node(FIRST, "tc", "qdisc", "show", "dev", link)

    assert "rate 10Mbit" in limits


def test_a_host_port_is_reached_at_its_node(cluster: Cluster, isthmus_network: Network) -> None:
    server = pod("open", FIRST, "netexec", "--http-port=8080")
    server["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 18080}]
    caller = pod("caller", SECOND, "pause", hostNetwork=True)
    with present(cluster, server) as name, present(cluster, caller) as other:
        node = started(cluster, name)["hostIP"]
        host = node if ":" not in node else f"[{node}]"
        started(cluster, other)
        answer = cluster.in_pod(other, "curl", "-sS", "-m5", f"http://{host}:18080/hostname")

    assert answer == "open"


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        (
            {"address": "10.244.0.300"},
            'annotation isthmus.dev/address of pod default/wrong is "10.244.0.300"',
        ),
        ({"address": "192.0.2.1"}, "192.0.2.1"),
        ({"mac": "01:00:00:00:00:01"}, "isthmus.dev/mac"),
        ({"pool": "no-such"}, "no-such"),
        ({"pol": "blue"}, "did you mean isthmus.dev/pool?"),  # which starts all the same
    ],
)
def test_an_event_says_what_is_wrong_with_an_annotation(
    cluster: Cluster, isthmus_network: Network, annotations: dict[str, str], said: str
) -> None:
    with present(cluster, annotated("wrong", **annotations)) as name:
        uid = cluster.get("pod", name)["metadata"]["uid"]
        events = until(
            lambda: [
                event["message"]
                for event in cluster.get(
                    "events", f"--field-selector=involvedObject.uid={uid},type=Warning"
                )["items"]
                if event["source"].get("component", event.get("reportingComponent")) != "kubelet"
            ],
            what="an event on the pod",
        )

    say(events[0])
    assert said in events[0]
