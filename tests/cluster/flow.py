"""A UDP flow of 1 kHz and a TCP stream between pods of two nodes, and what they lost."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.cluster import AGNHOST, Cluster, pod, service, until
from tests.cluster.isthmus import Network, containers, kill

SERVER, CLIENT, WITNESS = "flow-server", "flow-client", "witness"
_PORTS = {"udp": "5201", "tcp": "5202"}
_SERVED = [
    {"name": name, "port": int(port), "protocol": protocol}
    for name, port, protocol in (
        ("datagrams", _PORTS["udp"], "UDP"),
        ("control", _PORTS["udp"], "TCP"),
        ("stream", _PORTS["tcp"], "TCP"),
    )
]
# The largest that Linux allows by default: room for half a second in which nobody reads.
_ROOM = "--window=208K"
_RATES = {"udp": ("--udp", "--length=100", "--bitrate=800K", _ROOM), "tcp": ("--bitrate=8M",)}


@dataclass(slots=True)
class Flow:
    """Complete when it has ended; *unread* packets arrived, and the busy receiver dropped them.

    *overflown*: packets that came to a link on the way, and found their processor's queue full: the
    kernel counts them at that link.
    *losses*: of both, by the second in which they were missed.
    *needless*: TCP segments that were sent again, and had come the first time.
    """

    packets: int = 0
    lost: int = 0
    unread: int = 0
    overflown: int = 0
    megabytes: float = 0.0
    sent_again: int = 0
    needless: int = 0
    losses: dict[int, int] = field(default_factory=dict)

    @property
    def by_the_network(self) -> int:
        """How many datagrams and segments were lost that no queue of the machine accounts for."""
        segments = max(0, self.sent_again - self.needless)
        return max(0, self.lost + segments - self.overflown)

    def __str__(self) -> str:
        return (
            f"{self.lost} of {self.packets} UDP packets lost{self._when()}, {self.unread} unread, "
            f"{self.overflown} dropped by full queues; "
            f"TCP: {self.megabytes:.1f} MB, {self.sent_again} segments sent again, "
            f"{self.needless} of them needlessly"
        )

    def _when(self) -> str:
        return "".join(f", {count} in second {at}" for at, count in self.losses.items())


@contextmanager
def flowing(
    cluster: Cluster, server: str, client: str, *, by: Network | None = None
) -> Iterator[Flow]:
    """Have pods on these nodes talk meanwhile; then the Flow says what became of it.

    *by*: the network that translates a Service, which the client then asks.
    """
    flow = Flow()
    before = _overflown(cluster, server, client)
    cluster.apply(_pod(SERVER, server, {kind: ("-s", "-1") for kind in _PORTS}))
    try:
        cluster.wait("condition=Ready", f"pod/{SERVER}")
        address = cluster.get("pod", SERVER)["status"]["podIP"]
        if by is not None:
            address = _service(cluster, by, client, address)
        arguments = {kind: ("-c", address, "-t", "0", *_RATES[kind]) for kind in _PORTS}
        cluster.apply(_pod(CLIENT, client, arguments))
        cluster.wait("condition=Ready", f"pod/{CLIENT}")
        yield flow
        _end(cluster, flow)
        after = _overflown(cluster, server, client, SERVER, CLIENT)
        flow.overflown = sum(max(0, count - before.get(at, 0)) for at, count in after.items())
    finally:
        cluster.kubectl("delete", "pod", "--force", "--ignore-not-found", SERVER, CLIENT)
        cluster.kubectl("delete", "service", "--ignore-not-found", SERVER)


def _service(cluster: Cluster, network: Network, node: str, endpoint: str) -> str:
    """Return the address of a Service that *node* translates to the endpoint."""
    cluster.apply(service(SERVER, 0, 0, ports=_SERVED))
    until(
        lambda: endpoint in network.on_agent(node, "services", SERVER),
        what="the Service has its endpoint",
    )
    address: str = cluster.get("service", SERVER)["spec"]["clusterIP"]
    return address


def _pod(name: str, node: str, arguments: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"name": kind, "image": AGNHOST, "command": ["iperf3", "-J", "-p", _PORTS[kind], *more]}
        for kind, more in arguments.items()
    ]
    # It lives on when these have ended, and with it what the kernel counts for the pod.
    parts.append({"name": WITNESS, "image": AGNHOST, "args": ["pause"]})
    return pod(name, node, containers=parts, restartPolicy="Never")


def _overflown(cluster: Cluster, *places: str) -> dict[tuple[str, str], int]:
    """Return how many packets each link between nodes, and of these nodes and pods, dropped.

    At these it is for a full queue alone: what routes and rules drop is not a link's.
    """
    ask = ("ip", "-json", "-stats", "link")
    said = {"": cluster.engine.run(*ask)}
    for place in places:
        is_pod = place in (SERVER, CLIENT)
        said[place] = _witness(cluster, place, *ask) if is_pod else cluster.on_node(place, *ask)
    return {
        (place, link["ifname"]): link["stats64"]["rx"]["dropped"]
        for place, links in said.items()
        for link in json.loads(links)
    }


def _witness(cluster: Cluster, name: str, *argv: str) -> str:
    """Return the output of a program in the network of a pod of ours."""
    return cluster.kubectl("exec", name, f"--container={WITNESS}", "--", *argv)


def _end(cluster: Cluster, flow: Flow) -> None:
    # While sockets are there to hear from the receiver what came twice (RFC 2883); it tells later.
    sent_by = _counters(cluster, CLIENT)
    flow.sent_again = sent_by["TcpRetransSegs"] - sent_by["TcpExtTCPSynRetrans"]
    flow.needless = _counters(cluster, CLIENT)["TcpExtTCPDSACKRecvSegs"]
    # The client first: what it has sent arrives, and the server counts it.
    # By its node: a program in the container is killed with it, and has failed.
    client = cluster.get("pod", CLIENT)
    node, uid = client["spec"]["nodeName"], client["metadata"]["uid"]
    for kind in _PORTS:
        is_it = (
            f'labels."io.kubernetes.pod.uid"=={uid}',
            f'labels."io.kubernetes.container.name"=={kind}',
        )
        (one,) = containers(cluster, node, *is_it)
        kill(cluster, node, one, "SIGINT")
    until(lambda: _ended(cluster), what="the servers have ended")
    received_by = _counters(cluster, SERVER)
    flow.unread = sum(received_by[f"{kind}RcvbufErrors"] for kind in ("Udp", "Udp6"))
    received = _report(cluster, SERVER, "udp")
    flow.packets, flow.lost = (received["end"]["sum"][key] for key in ("packets", "lost_packets"))
    flow.lost = max(0, flow.lost - flow.unread)
    flow.losses = {
        int(one["sum"]["start"]): one["sum"]["lost_packets"]
        for one in received["intervals"]
        if one["sum"]["lost_packets"]
    }
    flow.megabytes = _report(cluster, SERVER, "tcp")["end"]["sum_received"]["bytes"] / 1e6


def _ended(cluster: Cluster) -> bool:
    """Tell whether both servers have ended well."""
    statuses = cluster.get("pod", SERVER)["status"]["containerStatuses"]
    ends = [one["state"].get("terminated") for one in statuses if one["name"] in _PORTS]
    assert not any(end and end["exitCode"] for end in ends), ends
    return all(ends)


def _report(cluster: Cluster, name: str, kind: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(cluster.kubectl("logs", name, f"--container={kind}"))
    return report


def _counters(cluster: Cluster, name: str) -> dict[str, int]:
    """Return what the kernel counts for a pod of ours."""
    said = json.loads(
        _witness(cluster, name, "nstat", "--json", "--zeros", "--ignore", "--noupdate")
    )
    counters: dict[str, int] = said["kernel"]
    return counters
