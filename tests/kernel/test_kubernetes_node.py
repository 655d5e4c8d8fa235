"""A node of Kubernetes: real API server, etcd, ipamd and agent, on a host of its own.

There is no kubelet: what it would ask of the plugin the tests ask.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ipam.signing import make_authority, now
from ipam.tls import SERVER
from kube.client import Client, PatchKind
from kube.objects import Node
from tests.kernel import etcd, kube_server
from tests.kernel.agents import ROOT, Machine, made_machine, until
from tests.kernel.conftest import Namespace
from tests.kernel.etcd import Host
from tests.kernel.kube_server import ADMIN, Server, make, pod_token
from tests.kernel.sockets import inside
from tests.kube_contract import NAMESPACES, NODES

pytestmark = pytest.mark.kernel

TAINT = "node.isthmus.dev/agent-not-ready"
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "isthmus",
    "mode": "routed",
    "ipam": {"type": "isthmus"},
}


@dataclass(slots=True)
class Site:
    """*directory* has the authority, and ipamd's state with an administrator's certificate."""

    directory: Path
    machine: Machine
    server: Server

    def node(self) -> Node:
        async def read(client: Client) -> Node:
            return await client.get(f"{NODES}/n1", Node)

        return self.server.ask(read)

    def told(self) -> bool:
        node = self.node()
        return bool(node.spec.pod_cidrs) and not any(
            taint.key == TAINT for taint in node.spec.taints or ()
        )

    def pod(self, name: str, **annotations: str) -> None:
        async def create(client: Client) -> None:
            spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
            said = {f"isthmus.dev/{key}": text for key, text in annotations.items()}
            metadata = {"name": name, "annotations": said}
            await make(client, f"{NAMESPACES}/shop/pods", metadata=metadata, spec=spec)

        self.server.ask(create)

    def events(self) -> list[tuple[str, str]]:
        async def read(client: Client) -> list[tuple[str, str]]:
            found = await client.get(f"{NAMESPACES}/shop/events", dict)
            return [(one["reason"], one["message"]) for one in found["items"]]

        return self.server.ask(read)

    def blocks(self) -> list[str]:
        """What the node has, as ipamd knows."""
        (node,) = json.loads(self.isthmus("ipam", "nodes", "--json"))
        return list(node["blocks"])

    def isthmus(self, *words: str) -> str:
        """The command line, as an administrator beside ipamd."""
        with self.server.host.inside():
            done = subprocess.run(
                [sys.executable, "-m", "cli", *words],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={
                    **os.environ,
                    "ISTHMUS_IPAMD": "127.0.0.1:9476",
                    "ISTHMUS_IDENTITY": str(self.directory / "state"),
                },
            )
        assert done.returncode == 0, done.stderr
        return done.stdout


def args(pod: str) -> str:
    return f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod}"


@contextmanager
def _ipamd(directory: Path, server: Server, etcd_url: str) -> Iterator[None]:
    made = make_authority(now())
    (directory / "ca.pem").write_bytes(made.certificate)
    (directory / "ca.key").write_bytes(made.key)
    (directory / "admin").write_text(ADMIN)
    (directory / "ipamd.toml").write_text(
        f'state_dir = "{directory}/state"\netcd_endpoints = ["{etcd_url}"]\n'
        f'ca = "{directory}/ca.pem"\nca_key = "{directory}/ca.key"\nhosts = ["127.0.0.1"]\n'
        f'enroll_account = "isthmus/agent"\n[kubernetes]\naddress = "{server.url}"\n'
        f'token = "{directory}/admin"\nca = "{server.ca}"\n'
    )
    with (directory / "ipamd.log").open("wb") as log, server.host.inside():
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "ipamd", "--config", str(directory / "ipamd.toml")],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        synced = "following the store"
        until(lambda: synced in (directory / "ipamd.log").read_text(), "ipamd serves")
        yield
    finally:
        process.terminate()
        process.wait(20)


async def _cluster(client: Client) -> str:
    """A Node that waits for its agent, and the token of the agent's pod on it."""
    token = await pod_token(client, "n1")
    taint = {"key": TAINT, "effect": "NoSchedule"}
    labels = {"metadata": {"labels": {"zone": "east"}}, "spec": {"taints": [taint]}}
    await client.patch(f"{NODES}/n1", labels, Node)
    address = {"type": "InternalIP", "address": "192.0.2.1"}
    status = {"status": {"addresses": [address]}}
    await client.patch(f"{NODES}/n1/status", status, Node, by=PatchKind.STRATEGIC)
    await make(client, NAMESPACES, metadata={"name": "shop"})
    return token


@pytest.fixture
def site(binary: str, tmp_path: Path) -> Iterator[Site]:
    with made_machine(tmp_path / "machine", binary, network=NETWORK) as machine:
        host = Host(namespace=machine.host)
        with (
            kube_server.running(tmp_path / "kube", host) as server,
            etcd.running(
                tmp_path / "etcd", hosts=[host], observer=host, programs=etcd.V36
            ) as store,
            _ipamd(tmp_path, server, store.urls[0]),
        ):
            site = Site(tmp_path, machine, server)
            (tmp_path / "token").write_text(server.ask(_cluster))
            site.isthmus("ipam", "init")
            for name, cidr, length in (("p4", "10.1.0.0/16", "24"), ("p6", "fd01::/100", "120")):
                site.isthmus("ipam", "pools", "create", name, cidr, "--block-length", length)
            machine.settings = _agent(tmp_path, server)
            machine.start()
            until(site.told, "the Node is told", timeout=60)
            yield site


def _agent(directory: Path, server: Server) -> dict[str, Any]:
    return {
        "ipamd": {
            "endpoints": ["127.0.0.1:9476"],
            "ca": str(directory / "ca.pem"),
            "token": str(directory / "token"),
            "server_name": SERVER,
            "node": "n1",
        },
        "kubernetes": {
            "node": "n1",
            "address": server.url,
            "token": str(directory / "admin"),
            "ca": str(server.ca),
        },
    }


def test_a_node_comes_serves_and_goes(site: Site) -> None:
    node = site.node()
    cidrs = node.spec.pod_cidrs or ()
    address = cidrs[0].replace("0/24", "77")
    conditions = {one.type: one.status for one in node.status.conditions or ()}
    assert (len(cidrs), conditions["NetworkUnavailable"]) == (2, "False")
    assert sorted(site.blocks()) == sorted(cidrs)

    # What annotations ask for is given, or said why not.
    site.pod("web", address=address, mac="02:00:00:00:00:77")
    site.pod("bad", mac="nonsense")
    web, bad = site.machine.pod(), site.machine.pod()
    added = site.machine.add(web, CNI_ARGS=args("web"))
    refused = site.machine.add(bad, CNI_ARGS=args("bad"))
    assert added.status == 0, added
    assert address in web.addresses()
    assert refused.status == 1
    until(lambda: bool(site.events()), "the pod's user is told")
    assert site.events()[0][0] == "InvalidNetwork"
    assert 'mac of pod shop/bad is "nonsense"' in site.events()[0][1]

    # Without the API server, and after a crash of the agent, known pods start and others wait.
    kept = site.machine.state / "kubernetes.json"
    until(lambda: kept.exists() and '"shop/web"' in kept.read_text(), "what was said is kept")
    site.machine.delete(web, CNI_ARGS=args("web"))
    site.server.signal(signal.SIGSTOP)
    site.machine.kill()
    site.machine.start()
    again = site.machine.add(web, CNI_ARGS=args("web"))
    unknown = site.machine.add(bad, CNI_ARGS=args("later"))
    site.server.signal(signal.SIGCONT)
    assert again.status == 0, again
    assert address in web.addresses()
    assert '"code":11' in unknown.stdout.decode()
    reason = "what pod shop/later asks for is not known"  # this launcher has less patience
    until(lambda: reason in site.machine.log.read_text(), "the log says why")

    # A deleted Node's blocks come back once they are empty; a Node made anew has blocks again.
    site.machine.delete(web, CNI_ARGS=args("web"))
    site.server.delete(f"{NODES}/n1")
    until(lambda: site.blocks() == [], "the blocks come back", timeout=60)

    async def begin_anew(client: Client) -> None:
        await make(client, NODES, metadata={"name": "n1"})

    site.server.ask(begin_anew)
    until(site.told, "the new Node is told", timeout=60)
    assert site.node().metadata.uid != node.metadata.uid


BALANCED = "192.0.2.77"


def test_a_service_gets_an_address_and_the_node_answers_for_it_until_it_goes(
    site: Site, namespaces: Callable[[str], Namespace]
) -> None:
    machine, client = site.machine, namespaces("client")
    machine.host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "far")
    machine.host.run("ip", "link", "set", "far", "netns", client.name)
    for namespace, link, address in ((machine.host, "uplink", 1), (client, "far", 254)):
        namespace.run("ip", "address", "add", f"192.0.2.{address}/24", "dev", link)
        namespace.run("ip", "link", "set", link, "up")
    site.isthmus("ipam", "pools", "create", "lb", "192.0.2.64/28", "--for", "load-balancers")
    machine.kill()
    machine.settings = {**machine.settings, "services": {}, "announce": {}}
    machine.start()

    put(site, "web")
    until(lambda: shown(site, "web") == [BALANCED], "the Service is told", timeout=60)
    until(lambda: announced(machine) == [BALANCED], "the node announces", timeout=60)

    # It has no endpoints: that it is refused says that it was asked for, answered, translated.
    assert refused(client)
    assert BALANCED in site.isthmus("ipam", "services")
    assert "shop/web (TCP/80)" in site.isthmus("ipam", "show", BALANCED)
    assert ("Assigned", f"isthmus gave {BALANCED}") in site.events()
    put(site, "other")
    until(lambda: "AddressInUse" in dict(site.events()), "the other is told", timeout=60)
    site.server.delete(f"{NAMESPACES}/shop/services/web")
    until(lambda: shown(site, "other") == [BALANCED], "the other has it", timeout=60)
    site.server.delete(f"{NAMESPACES}/shop/services/other")
    until(lambda: announced(machine) == [], "nobody announces it", timeout=60)
    assert site.isthmus("ipam", "services") == "No Service has an address of a pool.\n"


def put(site: Site, name: str) -> None:
    async def create(client: Client) -> None:
        spec = {
            "type": "LoadBalancer",
            "loadBalancerIP": BALANCED,
            "ports": [{"port": 80}],
        }
        await make(client, f"{NAMESPACES}/shop/services", metadata={"name": name}, spec=spec)

    site.server.ask(create)


def shown(site: Site, name: str) -> list[str]:
    async def read(client: Client) -> list[str]:
        found = await client.get(f"{NAMESPACES}/shop/services/{name}", dict)
        return [one["ip"] for one in found["status"]["loadBalancer"].get("ingress", ())]

    return site.server.ask(read)


def announced(machine: Machine) -> list[str]:
    return list(machine.ask("status")["status"]["announcing"].get("addresses", ()))


def refused(client: Namespace) -> bool:
    """Whether somebody on the link says no."""
    with inside(client), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asking:
        asking.settimeout(10)
        try:
            asking.connect((BALANCED, 80))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
