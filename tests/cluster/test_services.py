"""Services by isthmus alone: names, and no failed connection whatever is exchanged."""

from collections.abc import Iterator

import pytest

from tests.cluster import isthmus, reference
from tests.cluster.cluster import AGNHOST, Cluster, Manifest, pod, service, until
from tests.cluster.flow import flowing
from tests.cluster.isthmus import Mode, Network
from tests.cluster.load import Client, connecting
from tools.kind.progress import say

pytestmark = pytest.mark.cluster

CONTROL, FIRST, SECOND = "isthmus-control-plane", "isthmus-worker", "isthmus-worker2"
WEB, CLIENTS = "web", ("client", "client-on-node", "client-of-node-port")
NAMES = ("first", "on-node", "own", "nodes")
OTHERS = "elsewhere.example.com"


@pytest.fixture(scope="module")
def network(cluster: Cluster, isthmus_image: None) -> Iterator[Network]:
    """isthmus with its own Services, and no kube-proxy."""
    network = isthmus.Network(cluster)
    network.install(Mode.AUTO, "--services")
    yield network
    network.uninstall()


@pytest.fixture(scope="module")
def clients(cluster: Cluster, network: Network) -> Iterator[dict[str, Client]]:
    """Ways to a Service of four pods: from a pod, from a node, by a port of another node."""
    cluster.apply(deployment(), service(WEB, 80, 8080, type="NodePort"))
    cluster.wait("condition=Available", f"deployment/{WEB}")
    spec = cluster.get("service", WEB)["spec"]
    node = next(each for each in reference.observed(cluster) if each.name == FIRST)
    inner = f"http://{in_url(spec['clusterIP'])}/hostname"
    outer = f"http://{in_url(str(node.addresses[0]))}:{spec['ports'][0]['nodePort']}/hostname"
    yield {
        CLIENTS[0]: Client(SECOND, inner),
        CLIENTS[1]: Client(CONTROL, inner, is_host=True),
        CLIENTS[2]: Client(SECOND, outer, is_host=True),
    }
    cluster.kubectl("delete", f"deployment/{WEB}", f"service/{WEB}")


def deployment() -> Manifest:
    """Four pods that serve on while they end, as those of a rolling update should."""
    serve = ["netexec", "--http-port=8080", "--delay-shutdown=5"]
    ready = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    container = {"name": WEB, "image": AGNHOST, "args": serve, "readinessProbe": ready}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": WEB},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": WEB}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"app": WEB}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 20},
            },
        },
    }


def in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def test_names_are_known_by_every_dns_policy(cluster: Cluster, network: Network) -> None:
    cluster.wait("condition=Available", "deployment/coredns", "--namespace=kube-system")
    server = cluster.get("service/kube-dns", "--namespace=kube-system")["spec"]["clusterIP"]
    own = {"nameservers": [server], "searches": ["default.svc.cluster.local"]}
    first, on_node, with_own, nodes = NAMES
    cluster.apply(
        pod(first, FIRST, "pause"),
        pod(on_node, SECOND, "pause", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
        pod(with_own, SECOND, "pause", dnsPolicy="None", dnsConfig=own),
        pod(nodes, FIRST, "pause", dnsPolicy="Default"),
        service(first, 80, 8080, clusterIP="None"),
        service(on_node, 80, 8080),
        service("other", 80, 80, type="ExternalName", externalName=OTHERS),
    )
    try:
        cluster.wait("condition=Ready", *(f"pod/{name}" for name in NAMES))
        addresses = {cluster.get("pod", first)["status"]["podIP"]}
        virtual = cluster.get("service", on_node)["spec"]["clusterIP"]
        kind = "AAAA" if ":" in virtual else "A"

        def answers(name: str, asked: str) -> list[str]:
            dig = ("dig", "+short", "+search", "+tries=5", "+time=2")
            lines = cluster.in_pod(name, *dig, asked, kind).splitlines()
            return [line for line in lines if not line.startswith(";")]  # of a try that failed

        for name in (first, on_node, with_own):
            assert set(answers(name, first)) == addresses
            assert answers(name, on_node) == [virtual]
            assert answers(name, "other")[:1] == [f"{OTHERS}."]
        assert server not in cluster.in_pod(nodes, "cat", "/etc/resolv.conf")
        if (
            kind == "A"
        ):  # Docker's resolver has no other address, and pods without IPv4 no way to it
            assert cluster.in_pod(nodes, "getent", "hosts", FIRST)
    finally:
        cluster.kubectl("delete", "pod", "--force", "--ignore-not-found", *NAMES)
        cluster.kubectl("delete", "service", "--ignore-not-found", first, on_node, "other")


def test_no_connection_fails_while_the_pods_of_a_service_are_exchanged(
    cluster: Cluster, clients: dict[str, Client]
) -> None:
    with connecting(cluster, clients) as load:
        cluster.kubectl("rollout", "restart", f"deployment/{WEB}")
        cluster.kubectl("rollout", "status", f"deployment/{WEB}", timeout=180)
        until(
            lambda: len(cluster.get("pods", f"--selector=app={WEB}")["items"]) == 4,
            what="the former pods have ended",
        )
    say(f"while pods were exchanged: {load}")

    assert not load.failed


def test_no_connection_fails_while_agents_are_exchanged(
    cluster: Cluster, network: Network, clients: dict[str, Client]
) -> None:
    with (
        flowing(cluster, FIRST, SECOND, by=network) as flow,
        connecting(cluster, clients) as load,
    ):
        network.restart("daemonset/isthmus-agent")
    say(f"while agents were exchanged: {load}; {flow}")

    assert not load.failed
    assert flow.by_the_network == 0


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_no_connection_fails_from_isthmus_to_kube_proxy_and_back(
    cluster: Cluster, network: Network, clients: dict[str, Client], mode: str
) -> None:
    with (
        flowing(cluster, FIRST, SECOND, by=network) as flow,
        connecting(cluster, clients) as load,
    ):
        reference.install_kube_proxy(cluster, mode)
        until(lambda: translated(cluster, mode), what="kube-proxy translates on every node")
        network.install(Mode.AUTO)
        network.install(Mode.AUTO, "--services")
        said = {node: network.on_agent(node, "services") for node in cluster.nodes}
        cluster.kubectl("delete", "--namespace=kube-system", "--wait", "daemonset/kube-proxy")
        for node in cluster.nodes:
            network.on_agent(node, "remove-kube-proxy")
        left = {node for node in cluster.nodes if rules(cluster, node, mode)}
    say(f"from isthmus to kube-proxy ({mode}) and back: {load}; {flow}")

    assert not load.failed
    assert flow.by_the_network == 0
    assert not left
    assert all("DIFFERS" not in each for each in said.values())


def translated(cluster: Cluster, mode: str) -> bool:
    """Whether kube-proxy has what the Service needs on every node."""
    return all(f"default/{WEB}" in rules(cluster, node, mode) for node in cluster.nodes)


def rules(cluster: Cluster, node: str, mode: str) -> str:
    """Return kube-proxy's rules on a node; "" where there are none."""
    looked = {
        "nftables": "nft list table ip kube-proxy; nft list table ip6 kube-proxy",
        "iptables": "iptables-save; ip6tables-save",
    }[mode]
    found = cluster.on_node(node, "sh", "-c", f"({looked}) 2> /dev/null || true")
    return found if "KUBE-SERVICES" in found or mode == "nftables" else ""
