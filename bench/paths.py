"""Throughput and round trips from pod to pod, beside plain links and routes of the same kind.

A plain pod is a namespace with one veth to that of a plain node, which forwards.  Two such
nodes have their links on one bridge, as the cluster's have.  There are no rules.
"""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from figures import Figure, Table, paired

from tests.cluster.cluster import Cluster, pod
from tests.cluster.isthmus import Mode, Network
from tools.kind.places import DEBIAN, KUBECONFIG
from tools.kind.progress import KindError, run

SECONDS = 2
PINGS = 2000
PODS = ("path-near", "path-server", "path-far")
# Of plain pods, and the same for the network of a node.
SERVER, NEAR, FAR = "10.251.1.1", "10.251.1.2", "10.251.2.1"
ROOM_FOR_VXLAN = 50  # bytes of a packet's headers: IPv4, UDP, VXLAN, Ethernet


@dataclass(frozen=True, slots=True)
class Client:
    """How a program is run where packets are sent from, and the address they are sent to."""

    prefix: tuple[str, ...]
    server: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One way, once."""

    gbit: float
    round_trip_us: float


def measure(table: Table, cluster: Cluster, rounds: int) -> None:
    """Measure on one node and between two, by routes and then in VXLAN."""
    network = Network(cluster)
    with _pods(cluster) as ours, _plain(vxlan=False) as plain:
        _compare(table, cluster, {way: (ours[way], plain[way]) for way in ours}, rounds)
    network.install(Mode.VXLAN)
    try:
        with _pods(cluster) as ours, _plain(vxlan=True) as plain:
            _compare(table, cluster, {"VXLAN": (ours["direct"], plain["direct"])}, rounds)
    finally:
        network.install()


def _compare(
    table: Table, cluster: Cluster, pairs: dict[str, tuple[Client, Client]], rounds: int
) -> None:
    found: dict[str, tuple[list[Measured], list[Measured]]] = {way: ([], []) for way in pairs}
    for number in range(rounds):
        for way, pair in pairs.items():
            # Each goes first as often.
            for side in (0, 1) if number % 2 else (1, 0):
                found[way][side].append(_measured(cluster, pair[side]))
    for way, sides in found.items():
        _report(table, way, sides)


def _report(table: Table, way: str, sides: tuple[list[Measured], list[Measured]]) -> None:
    gbit, trip = (
        [Figure(tuple(getattr(one, name) for one in side), unit) for side in sides]
        for name, unit in (("gbit", "Gbit/s"), ("round_trip_us", "us"))
    )
    # In both rows a higher ratio is better for isthmus.
    for what, (ours, plain), ratio in (
        ("throughput", gbit, paired(*gbit)),
        ("round trip", trip, paired(*reversed(trip))),
    ):
        table.add(f"{what}, {way}", "isthmus", ours)
        table.add(f"{what}, {way}", "plain", plain, beside=ratio, promise="0.97")


def _measured(cluster: Cluster, client: Client) -> Measured:
    def there(*argv: str) -> str:
        return cluster.engine.run(*client.prefix, *argv, client.server, timeout=90)

    report = json.loads(there("iperf3", "--json", f"--time={SECONDS}", "--client"))
    said = there("ping", "-q", "-f", "-c", str(PINGS))
    trip = re.search(r"= [\d.]+/([\d.]+)/", said)
    if trip is None:
        raise KindError(f"ping tells no round trip: {said}")
    return Measured(report["end"]["sum_received"]["bits_per_second"] / 1e9, 1000 * float(trip[1]))


@contextmanager
def _pods(cluster: Cluster) -> Iterator[dict[str, Client]]:
    """A server on the first worker, a client beside it, another on the second."""
    _, first, second = cluster.nodes
    near, server, far = PODS
    manifests = [pod(near, first, "pause"), pod(server, first), pod(far, second, "pause")]
    manifests[1]["spec"]["containers"][0] |= {"command": ["iperf3", "--server"], "args": []}
    cluster.apply(*manifests)
    try:
        cluster.wait("condition=Ready", *(f"pod/{name}" for name in PODS))
        address = cluster.get("pod", server)["status"]["podIP"]
        kubectl = ("kubectl", f"--kubeconfig={KUBECONFIG}", "exec")
        yield {
            "same node": Client((*kubectl, near, "--"), address),
            "direct": Client((*kubectl, far, "--"), address),
        }
    finally:
        cluster.kubectl("delete", "pod", "--ignore-not-found", *PODS)


@contextmanager
def _plain(*, vxlan: bool) -> Iterator[dict[str, Client]]:
    """The same of namespaces alone, whose programs are those of the pods."""
    mark = secrets.token_hex(3)
    name = {one: f"plain-{one}-{mark}" for one in ("wire", "n1", "n2", "server", "near", "far")}
    with ExitStack() as undo:
        for namespace in name.values():
            run("ip", "netns", "add", namespace)
            undo.callback(run, "ip", "netns", "delete", namespace)
        _ip(name["wire"], "link add br0 type bridge", "link set br0 up")
        _node(name["wire"], name["n1"], 1, vxlan=vxlan)
        _node(name["wire"], name["n2"], 2, vxlan=vxlan)
        mtu = 1500 - ROOM_FOR_VXLAN * vxlan
        for node, where, address in (
            ("n1", "server", SERVER),
            ("n1", "near", NEAR),
            ("n2", "far", FAR),
        ):
            _pod(name[node], name[where], address, mtu)
        prefix = {
            where: ("ip", "netns", "exec", name[where], "chroot", str(DEBIAN / "tools"))
            for where in ("server", "near", "far")
        }
        pid_file = "/run/iperf3.pid"
        run(*prefix["server"], "iperf3", "--server", "--daemon", f"--pidfile={pid_file}")
        undo.callback(run, *prefix["server"], "sh", "-c", f"kill $(tr -d '\\0' < {pid_file})")
        yield {"same node": Client(prefix["near"], SERVER), "direct": Client(prefix["far"], SERVER)}


def _node(wire: str, node: str, number: int, *, vxlan: bool) -> None:
    other = 3 - number
    _ip(wire, f"link add w{number} type veth peer name eth0 netns {node}")
    _ip(wire, f"link set w{number} master br0", f"link set w{number} up")
    _ip(node, "link set lo up", "link set eth0 up", f"address add 192.0.2.{number}/24 dev eth0")
    run("ip", "netns", "exec", node, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    if not vxlan:
        _ip(node, f"route add 10.251.{other}.0/24 via 192.0.2.{other}")
        return
    mac = f"02:00:00:00:00:0{other}"
    _ip(
        node,
        f"link add vx type vxlan id 9 dstport 4790 local 192.0.2.{number} nolearning",
        f"link set vx address 02:00:00:00:00:0{number}",
        f"link set vx mtu {1500 - ROOM_FOR_VXLAN} up",
        f"neighbour add 10.251.{other}.0 lladdr {mac} dev vx",
        f"route add 10.251.{other}.0/24 via 10.251.{other}.0 dev vx onlink",
    )
    run("bridge", "-netns", node, *f"fdb append {mac} dev vx dst 192.0.2.{other}".split())


def _pod(node: str, where: str, address: str, mtu: int) -> None:
    link = f"p{address.rpartition('.')[2]}"
    _ip(node, f"link add {link} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {where}")
    _ip(node, f"address add 169.254.1.1/32 dev {link}", f"link set {link} up")
    _ip(node, f"route add {address} dev {link}")
    _ip(where, "link set lo up", "link set eth0 up", f"address add {address}/32 dev eth0")
    _ip(where, "route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1")


def _ip(namespace: str, *commands: str) -> None:
    for command in commands:
        run("ip", "-netns", namespace, *command.split())
