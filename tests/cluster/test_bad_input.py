"""What people get wrong is said where they look: a Job's log, a condition, a status, an Event.

What is wrong with a pod's annotations is in test_isthmus.py.
"""

from collections.abc import Iterator

import pytest

from tests.cluster import isthmus
from tests.cluster.cluster import Cluster, until
from tests.cluster.isthmus import Network
from tools.kind.progress import KindError, say

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NODE = "isthmus-worker"
AHEAD = "/etc/cni/net.d/05-other.conflist"


@pytest.fixture
def bare(cluster: Cluster, isthmus_image: None) -> Iterator[Cluster]:
    """A cluster without a network, and without one afterwards."""
    yield cluster
    isthmus.Network(cluster).uninstall()


def log_of_the_job(cluster: Cluster) -> str:
    try:
        where = ("--namespace=isthmus", "--selector=app.kubernetes.io/name=isthmus-begin")
        return cluster.kubectl("logs", *where)
    except KindError:
        return ""


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ("10.96.0.0/14", "overlaps 10.96.0.0/16, addresses of Services"),
        ("172.30.0.0/16", "the address of Node isthmus-"),
    ],
)
def test_a_pool_that_the_cluster_has_for_something_else_is_refused(
    bare: Cluster, pool: str, said: str
) -> None:
    text = isthmus.manifest(f"--ipv4-pool={pool}")
    bare.kubectl("apply", "--filename=-", stdin=text)

    log = until(lambda: log_of_the_job(bare), what="the Job says something")

    say(log.strip())
    assert said in log


def test_an_agent_that_may_not_ask_the_api_server_says_so(
    cluster: Cluster, isthmus_network: Network
) -> None:
    cluster.kubectl("delete", "clusterrolebinding", "isthmus-agent")
    try:
        isthmus.kill(cluster, NODE, isthmus_network.agent(NODE))
        said = until(
            lambda: [line for line in told(isthmus_network, "status") if "forbidden" in line],
            what="the agent's status says that it may not",
        )
    finally:
        isthmus_network.install()

    say(said[0].strip())
    assert "nodes" in said[0] or "pods" in said[0]


def told(network: Network, command: str) -> list[str]:
    """Return what status or doctor says, also where it exits with 1 for what it found."""
    try:
        return network.on_agent(NODE, command).splitlines()
    except KindError as error:
        return str(error).splitlines()


def test_a_network_list_that_comes_before_ours_is_said(
    cluster: Cluster, isthmus_network: Network
) -> None:
    cluster.on_node(
        NODE, "sh", "-c", f"sed s/isthmus/other/ /etc/cni/net.d/10-*.conflist > {AHEAD}"
    )
    try:
        kept = isthmus_network.agent(NODE)
        isthmus.kill(cluster, NODE, kept)
        said = until(
            lambda: [line for line in log_of_the_agent(cluster, NODE) if AHEAD in line],
            what="the agent tells of the other list",
        )
    finally:
        cluster.on_node(NODE, "rm", AHEAD)

    say(said[0])
    assert "another network list comes before ours" in said[0]


def test_an_mtu_larger_than_the_links_is_said(cluster: Cluster, isthmus_network: Network) -> None:
    isthmus_network.apply("--mtu=9000")
    try:
        said = until(
            lambda: [
                line
                for line in told(isthmus_network, "doctor")
                if "mtu = 9000 is too large" in line
            ],
            what="doctor tells of the MTU",
            seconds=120,
        )
    finally:
        isthmus_network.install()

    say(said[0].strip())
    assert "of the link's MTU" in said[0]


def log_of_the_agent(cluster: Cluster, node: str) -> list[str]:
    where = ("--namespace=isthmus", "--selector=app.kubernetes.io/name=isthmus-agent")
    (name,) = (
        one["metadata"]["name"]
        for one in cluster.get("pods", *where, f"--field-selector=spec.nodeName={node}")["items"]
    )
    return cluster.kubectl("logs", "--namespace=isthmus", name).splitlines()
