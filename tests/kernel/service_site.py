"""A node with Services in miniature: pods, another host, a client beyond; all as namespaces."""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from dataplane.nft.elements import Elements
from dataplane.nft.objects import Protocol
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from proxy.model import Endpoint, Endpoints, NodeView, Service, ServiceName
from proxy.reconciler import Reconciler, Wanted
from proxy.tables import skeleton
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import Echo, inside

PODS = {"p1": 11, "p2": 12, "far": 13}
OUTSIDE = {4: "192.0.2.9", 6: "2001:db8::9"}
NODE = {4: "192.0.2.1", 6: "2001:db8::1"}
VIEW = NodeView(
    name="here",
    addresses=(ip_network("192.0.2.1/32"), ip_network("2001:db8::1/128")),
    pods=(ip_network("10.244.0.0/16"), ip_network("fd00:244::/64")),
    service_cidrs=(ip_network("10.96.0.0/16"), ip_network("fd00:96::/112")),
)
PORT = 8080


def pod_address(name: str, version: int) -> str:
    return f"10.244.1.{PODS[name]}" if version == 4 else f"fd00:244::{PODS[name]}"


@dataclass(frozen=True, slots=True)
class Site:
    """*node* has the tables; *pods* and *outside* are behind it, a link each."""

    node: Namespace
    pods: dict[str, Namespace]
    outside: Namespace
    reconciler: Reconciler

    def endpoints(self, *pods: str, **state: bool) -> Endpoints:
        """Of the port named http, in both families; the pod *far* is on another node."""
        return {
            ("http", protocol): tuple(
                Endpoint(
                    address=ip_address(pod_address(pod, version)),
                    port=PORT,
                    node="there" if pod == "far" else "here",
                    **state,
                )
                for pod in pods
                for version in (4, 6)
            )
            for protocol in (Protocol.TCP, Protocol.UDP)
        }

    def put(self, service: Service, endpoints: Endpoints) -> None:
        self.reconciler.change({service.name: Wanted(service, endpoints)})
        assert self.reconciler.refused == {}, self.reconciler.refused

    def rest(self, seconds: float) -> None:
        """Let the kernel's own clock go on, which cannot be set."""
        threading.Event().wait(seconds)

    def remove(self, name: ServiceName) -> None:
        self.reconciler.change({name: None})

    def answers(self, client: Namespace, address: str, port: int, times: int = 1) -> Counter[str]:
        """Who answered over TCP, or the name of the error, each as often as it did."""
        return Counter(said.partition(" ")[0] for said in self.says(client, address, port, times))

    def says(self, client: Namespace, address: str, port: int, times: int = 1) -> list[str]:
        """What was answered: a name, and the address that it was asked from."""
        with inside(client):
            return [_ask(address, port) for _ in range(times)]


def _ask(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect((address, port))
            asking.sendall(b"?")
            return asking.recv(200).decode()
        except OSError as exc:
            return type(exc).__name__


@contextmanager
def site(namespaces: Callable[[str], Namespace]) -> Iterator[Site]:
    node = namespaces("node")
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        node.run("sysctl", "-qw", f"{setting}=1")
    pods = {name: namespaces(name) for name in PODS}
    for name, pod in pods.items():
        _link(node, pod, name, pod_address(name, 4), pod_address(name, 6))
    outside = namespaces("outside")
    _link(node, outside, "out", OUTSIDE[4], OUTSIDE[6])
    for address in NODE.values():
        node.run("ip", "address", "add", f"{address}/32" if "." in address else f"{address}/128",
                 "dev", "out", *(() if "." in address else ("nodad",)))  # fmt: skip
    # Its own packets to a Service's address need some way out before they are translated.
    node.run("ip", "route", "add", "default", "via", OUTSIDE[4], "dev", "out", "onlink",
             "src", NODE[4])  # fmt: skip
    node.run("ip", "-6", "route", "add", "default", "via", OUTSIDE[6], "dev", "out", "onlink",
             "src", NODE[6])  # fmt: skip
    with ExitStack() as undo:
        for name, pod in pods.items():
            undo.enter_context(Echo(pod, name, PORT))
        undo.enter_context(inside(node))
        tables = {
            version: NftTable(skeleton(version), NftRunner(), undo.enter_context(Elements()))
            for version in (4, 6)
        }
        reconciler = Reconciler(tables, VIEW)
        reconciler.begin({})
        yield Site(node, pods, outside, reconciler)


def _link(node: Namespace, other: Namespace, name: str, v4: str, v6: str) -> None:
    node.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0",
             "netns", other.name)  # fmt: skip
    node.run("ip", "address", "add", "169.254.1.1/32", "dev", name)
    node.run("ip", "address", "add", "fe80::1/64", "dev", name, "nodad")
    node.run("ip", "link", "set", name, "up")
    other.run("ip", "address", "add", f"{v4}/32", "dev", "eth0")
    other.run("ip", "address", "add", f"{v6}/128", "dev", "eth0", "nodad")
    other.run("ip", "link", "set", "eth0", "up")
    other.run("ip", "route", "add", "169.254.1.1", "dev", "eth0")
    other.run("ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
    other.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
    node.run("ip", "route", "add", v4, "dev", name)
    node.run("ip", "-6", "route", "add", v6, "dev", name)
