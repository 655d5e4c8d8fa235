"""Throughput and round trips from pod to pod, beside plain links and routes of the same kind.

Plain pods (plain.py) are on the cluster's own nodes, beside isthmus's, so that wire, kernel,
control group and load are the same.  While they are measured isthmus's tables are dormant, and
other rules are not; connections are tracked for both.  What each rule takes: packets.py.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import plain
from figures import Figure, Table, paired

from tests.cluster.cluster import Cluster, pod, until
from tests.cluster.isthmus import Mode, Network, containers
from tools.kind.progress import KindError

SECONDS = 2
TRIPS = 5000
PODS = ("path-near", "path-server", "path-far")
ISTHMUS, PLAIN = "isthmus, Services too", "plain pods"


@dataclass(frozen=True, slots=True)
class Measured:
    """One path, once."""

    gbit: float
    round_trip_us: float


@dataclass(frozen=True, slots=True)
class Path:
    """From a network namespace of *node* to *server*; *root*: the folder of what runs there."""

    cluster: Cluster
    node: str
    root: str
    namespace: str
    server: str

    def measure(self) -> Measured:
        said = self.run("iperf3", "--json", f"--time={SECONDS}", "--client", self.server)
        rate = json.loads(said)["end"]["sum_received"]["bits_per_second"]
        return Measured(rate / 1e9, int(self.run("/run/trip", self.server, str(TRIPS))) / 1000)

    def run(self, *argv: str) -> str:
        enter = ("nsenter", f"--net={self.namespace}", f"--root={self.root}")
        return self.cluster.on_node(self.node, *enter, *argv)


@dataclass(frozen=True, slots=True)
class Sides:
    """The same path for both."""

    ours: Path
    plain: Path


def measure(table: Table, cluster: Cluster, rounds: int) -> None:
    """Measure on one node and between two, by routes and then in VXLAN."""
    network = Network(cluster)
    plain.build_trip()
    try:
        network.install(Mode.DIRECT, "--services")
        with _paths(cluster, vxlan=False) as paths:
            _compare(table, cluster, paths, rounds)
        network.install(Mode.VXLAN, "--services")
        with _paths(cluster, vxlan=True) as paths:
            _compare(table, cluster, {"VXLAN": paths["direct"]}, rounds)
    finally:
        network.install()


def _compare(table: Table, cluster: Cluster, paths: dict[str, Sides], rounds: int) -> None:
    found: dict[str, dict[str, list[Measured]]] = {way: {ISTHMUS: [], PLAIN: []} for way in paths}
    for number in range(rounds):
        for who in (ISTHMUS, PLAIN) if number % 2 else (PLAIN, ISTHMUS):
            with _dormant(cluster) if who == PLAIN else ExitStack():
                for way, sides in paths.items():
                    side = sides.plain if who == PLAIN else sides.ours
                    found[way][who].append(side.measure())
    for way, measured in found.items():
        _report(table, way, measured[ISTHMUS], measured[PLAIN])


def _report(table: Table, way: str, ours: list[Measured], others: list[Measured]) -> None:
    gbit, plain_gbit = (
        Figure(tuple(each.gbit for each in side), "Gbit/s") for side in (ours, others)
    )
    trip, plain_trip = (
        Figure(tuple(each.round_trip_us for each in side), "us") for side in (ours, others)
    )
    # In both a higher ratio is better for isthmus.
    for what, here, there, ratio in (
        ("throughput", gbit, plain_gbit, paired(gbit, plain_gbit)),
        ("round trip", trip, plain_trip, paired(plain_trip, trip)),
    ):
        table.add(f"{what}, {way}", ISTHMUS, here)
        table.add(f"{what}, {way}", PLAIN, there, beside=ratio, promise="0.97")


@contextmanager
def _dormant(cluster: Cluster) -> Iterator[None]:
    """Have the kernel leave out isthmus's tables on the workers meanwhile; they stay."""
    with ExitStack() as undo:
        for node in cluster.nodes[1:]:
            for line in cluster.on_node(node, "nft", "list", "tables").splitlines():
                if "isthmus" in line:
                    add = partial(cluster.on_node, node, "nft", "add", *line.split())
                    add("{ flags dormant; }")
                    undo.callback(add, "{ }")
        yield


@contextmanager
def _paths(cluster: Cluster, *, vxlan: bool) -> Iterator[dict[str, Sides]]:
    """A server on the first worker, a client beside it, another on the second; both kinds."""
    _, first, second = cluster.nodes
    near, server, far = PODS
    cluster.apply(pod(near, first, "pause"), pod(server, first, "pause"), pod(far, second, "pause"))
    with ExitStack() as undo:
        undo.callback(cluster.kubectl, "delete", "pod", *PODS)
        cluster.wait("condition=Ready", *(f"pod/{name}" for name in PODS))
        address = cluster.get("pod", server)["status"]["podIP"]
        found = {
            name: _of_pod(cluster, node, name, address)
            for name, node in ((near, first), (server, first), (far, second))
        }
        names = undo.enter_context(_plain(cluster, first, second, vxlan=vxlan))
        plain_ones = {
            name: Path(cluster, each.node, each.root, f"/run/netns/{namespace}", plain.SERVER)
            for (name, each), namespace in zip(found.items(), names, strict=True)
        }
        for node, path in ((first, found[near]), (second, found[far])):
            _put(cluster, node, path.root)
        for path in (found[server], plain_ones[server]):
            _serve(path, undo)
        yield {
            "same node": Sides(found[near], plain_ones[near]),
            "direct": Sides(found[far], plain_ones[far]),
        }


def _of_pod(cluster: Cluster, node: str, name: str, server: str) -> Path:
    labels = {"io.kubernetes.pod.name": name, "io.kubernetes.container.name": "agnhost"}
    filters = (f'labels."{key}"=={value}' for key, value in labels.items())
    (found,) = (one for one in containers(cluster, node, *filters) if one.pid)
    there = f"/proc/{found.pid}"
    return Path(cluster, node, f"{there}/root", f"{there}/ns/net", server)


@contextmanager
def _plain(cluster: Cluster, first: str, second: str, *, vxlan: bool) -> Iterator[list[str]]:
    """Plain pods near, server and far, in this order; the workers track connections."""
    nodes = []
    with ExitStack() as undo:
        for name in (first, second):
            addresses = cluster.get("node", name)["status"]["addresses"]
            address = next(one["address"] for one in addresses if "." in one["address"])
            node = plain.Node(partial(cluster.on_node, name), address)
            node.run("nft", "-f", "-", stdin=plain.TRACKED)
            undo.callback(node.run, "nft", "delete", "table", "inet", "plain-tracked")
            nodes.append(node)
        made = undo.enter_context(plain.pods(*nodes, vxlan=vxlan))
        yield [made["near"], made["server"], made["far"]]


def _put(cluster: Cluster, node: str, root: str) -> None:
    """Put the probe into what a pod's programs see of files."""
    cluster.engine.run("docker", "cp", plain.TRIP, f"{node}:/usr/local/bin/trip")
    cluster.on_node(node, "cp", "/usr/local/bin/trip", f"{root}/run/trip")


def _serve(path: Path, undo: ExitStack) -> None:
    """Serve iperf3 there, beside the pods' own programs, until the end."""
    pid_file = f"/run/iperf3-{path.namespace.replace('/', '-')}.pid"
    path.run("iperf3", "--server", "--daemon", f"--pidfile={pid_file}")
    kill = f"kill $(tr -d '\\0' < {path.root}{pid_file})"
    undo.callback(path.cluster.on_node, path.node, "sh", "-c", kill)
    until(lambda: _answers(path), what="iperf3 listens")


def _answers(path: Path) -> bool:
    try:
        path.run("iperf3", "--time=1", "--client", path.server)
    except KindError:
        return False
    return True
