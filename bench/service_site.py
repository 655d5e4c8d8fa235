"""Where Services are measured: a real API server, and a node for each who translates them.

the site's namespace    kube-apiserver and etcd, 10.250.0.1 on a bridge
node-NAME               one for each; whoever translates runs in it
  client                a pod behind it
  pods                  owns all addresses of pods, and one server answers for them
"""

import asyncio
import http.client
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
from hosts import PREFIX, ROOT, BenchError, ip, namespace

from kube.client import Client, PatchKind
from tests.kernel import kube_server
from tests.kernel.conftest import Namespace
from tests.kernel.etcd import Host
from tests.kernel.kube_server import ADMIN, Server
from tests.kernel.sockets import inside

CONNECTIONS = ROOT / "build/bench/connections"
API = "10.250.0.1"
RANGE, PODS, CLIENTS = "10.96.0.0/12", "10.128.0.0/10", "10.245.0.0/24"
PORT = 80
TARGET = 8080
_FIRST_IP, _FIRST_POD = ip_address("10.100.0.0"), ip_address("10.128.1.0")
_AT_ONCE = 32
_SERVICES = "/api/v1/namespaces/bench/services"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices"


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    node: Namespace
    client: Namespace

    def rate(self, address: str, port: int, count: int) -> tuple[float, float, float]:
        """Connections per second, and the time to connect: median and p99 in microseconds."""
        seconds, middle, late = map(float, self._connections("rate", address, port, count).split())
        return count / seconds, middle, late

    def throughput(self, address: str, port: int, seconds: float) -> float:
        """Gbit/s."""
        return float(self._connections("stream", address, port, seconds)) * 8 / 1e9

    def _connections(self, *words: object) -> str:
        with inside(self.client):
            done = subprocess.run(
                [CONNECTIONS, *map(str, words)], capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise BenchError(f"{self.name}, {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def page(self, path: str) -> str:
        """What its :10249 says; OSError while nobody listens."""
        with inside(self.node):
            asking = http.client.HTTPConnection("127.0.0.1", 10249, timeout=5)
            asking.request("GET", path)
            return asking.getresponse().read().decode()

    def traffic(self) -> int:
        """Bytes from and to the API server until now."""
        shown = self.node.run("ip", "-s", "-j", "link", "show", "dev", "api")
        (found,) = msgspec.json.decode(shown)
        return int(found["stats64"]["rx"]["bytes"]) + int(found["stats64"]["tx"]["bytes"])


class Site:
    """*directory* is for files of whoever runs."""

    def __init__(self, directory: Path, server: Server, nodes: Sequence[Node]) -> None:
        self.directory, self.server = directory, server
        self.nodes = {each.name: each for each in nodes}
        self.count = 0
        self.token = directory / "token"
        self.token.write_text(ADMIN)

    def grow(self, count: int, endpoints: int = 2) -> None:
        """Have *count* Services, with as many endpoints each."""
        news = range(self.count, count)
        self._all([("POST", _SERVICES, service(at)) for at in news])
        self._all([("POST", _SLICES, slice_(at, endpoints)) for at in news])
        self.count = count

    def alone(self, endpoints: int) -> None:
        """Have one Service with *endpoints* in slices of a hundred, as Kubernetes cuts them."""
        self._all([("POST", _SERVICES, service(0))])
        some = [slice_(0, endpoints, at=start, upto=100) for start in range(0, endpoints, 100)]
        self._all([("POST", _SLICES, each) for each in some])

    def empty(self) -> None:
        """Take all Services and slices away again."""
        for path in (_SERVICES, _SLICES):
            found = self._ask(lambda client, at=path: client.get(at, dict))  # type: ignore[misc]
            names = [each["metadata"]["name"] for each in found["items"]]
            self._all([("DELETE", f"{path}/{name}", None) for name in names])
        self.count = 0

    def lead(self, number: int, endpoint: int) -> None:
        """Let Service *number* have this one endpoint, of all."""
        body = {"endpoints": [endpoint_of(endpoint)]}
        self._all([("PATCH", f"{_SLICES}/web-{number}-0", body)])

    def metric(self, name: str) -> float:
        """The sum of a metric of the API server."""
        text = self._ask(lambda client: client.text("/metrics"))
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def _all(self, calls: Sequence[tuple[str, str, Any]]) -> None:
        async def play(client: Client) -> None:
            rest = iter(calls)

            async def work() -> None:
                for method, path, body in rest:
                    await _call(client, method, path, body)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(_AT_ONCE):
                    tasks.create_task(work())

        self._ask(play)

    def _ask(self, scene: Any) -> Any:
        return self.server.ask(scene)


async def _call(client: Client, method: str, path: str, body: Any) -> None:
    match method:
        case "POST":
            await client.create(path, body, msgspec.Raw)
        case "PATCH":
            await client.patch(path, body, msgspec.Raw, by=PatchKind.MERGE)
        case "DELETE":
            await client.delete(path)


def cluster_ip(number: int) -> str:
    return str(_FIRST_IP + number)


def pod(number: int) -> str:
    return str(_FIRST_POD + number)


def service(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"web-{number}", "labels": {"app": f"web-{number}"}},
        "spec": {
            "clusterIP": cluster_ip(number),
            "selector": {"app": f"web-{number}"},
            "ports": [{"name": "http", "port": PORT, "targetPort": TARGET}],
        },
    }


def endpoint_of(number: int) -> dict[str, Any]:
    return {
        "addresses": [pod(number)],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": f"node-{number % 1000}",
        "targetRef": {"kind": "Pod", "namespace": "bench", "name": f"web-{number:x}-abcde"},
        "zone": f"zone-{number % 3}",
    }


def slice_(number: int, endpoints: int, *, at: int = 0, upto: int = 1000) -> dict[str, Any]:
    first = number * endpoints
    members = range(first + at, first + min(endpoints, at + upto))
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"web-{number}-{at}",
            "labels": {
                "kubernetes.io/service-name": f"web-{number}",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": TARGET, "protocol": "TCP"}],
        "endpoints": [endpoint_of(each) for each in members],
    }


@contextmanager
def site(directory: Path, names: Sequence[str]) -> Iterator[Site]:
    """With a node for each of *names*, and no Service yet."""
    directory.mkdir()
    _build()
    with ExitStack() as undo:
        hub = Namespace(f"{PREFIX}site")
        undo.enter_context(namespace(hub.name))
        ip("-netns", hub.name, "link", "add", "br0", "type", "bridge")
        ip("-netns", hub.name, "address", "add", f"{API}/24", "dev", "br0")
        ip("-netns", hub.name, "link", "set", "br0", "up")
        nodes = [_node(undo, hub, name, at) for at, name in enumerate(names, 10)]
        server = undo.enter_context(
            kube_server.running(directory / "api", Host(namespace=hub), address=API, services=RANGE)
        )
        made = Site(directory, server, nodes)
        server.ask(lambda client: _cluster(client, names))
        yield made


async def _cluster(client: Client, names: Sequence[str]) -> None:
    await kube_server.make(client, "/api/v1/namespaces", metadata={"name": "bench"})
    for at, name in enumerate(names, 10):
        await kube_server.make(client, "/api/v1/nodes", metadata={"name": name})
        addresses = [{"type": "InternalIP", "address": f"10.250.0.{at}"}]
        body = {"status": {"addresses": addresses}}
        await client.patch(
            f"/api/v1/nodes/{name}/status", body, msgspec.Raw, by=PatchKind.STRATEGIC
        )


def _node(undo: ExitStack, hub: Namespace, name: str, at: int) -> Node:
    node, client, pods = (
        Namespace(f"{PREFIX}{name}{suffix}") for suffix in ("", "-client", "-pods")
    )
    for each in (node, client, pods):
        undo.enter_context(namespace(each.name))
    ip("link", "add", "api", "netns", node.name, "type", "veth",
       "peer", "name", f"n{at}", "netns", hub.name)  # fmt: skip
    ip("-netns", hub.name, "link", "set", f"n{at}", "master", "br0", "up")
    _address(node, "api", f"10.250.0.{at}/24")
    for other, link, net in ((client, "client", "10.245.0"), (pods, "pods", "10.246.0")):
        ip("link", "add", link, "netns", node.name, "type", "veth",
           "peer", "name", "eth0", "netns", other.name)  # fmt: skip
        _address(node, link, f"{net}.1/24")
        _address(other, "eth0", f"{net}.2/24")
        ip("-netns", other.name, "route", "add", "default", "via", f"{net}.1")
    node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    ip("-netns", node.name, "route", "add", PODS, "via", "10.246.0.2")
    ip("-netns", node.name, "route", "add", "default", "via", API)
    ip("-netns", pods.name, "route", "add", "local", PODS, "dev", "lo")
    with inside(pods):
        server = subprocess.Popen([CONNECTIONS, "serve", str(TARGET)])
    undo.callback(server.wait)
    undo.callback(server.kill)
    return Node(name, node, client)


def _address(where: Namespace, link: str, address: str) -> None:
    ip("-netns", where.name, "address", "add", address, "dev", link)
    ip("-netns", where.name, "link", "set", link, "up")


def _build() -> None:
    source = Path(__file__).with_name("connections.c")
    if not CONNECTIONS.exists() or CONNECTIONS.stat().st_mtime < source.stat().st_mtime:
        CONNECTIONS.parent.mkdir(parents=True, exist_ok=True)
        argv = ["cc", "-O2", "-Wall", "-Wextra", "-o", CONNECTIONS, source]
        subprocess.run(argv, check=True, env={**os.environ})
