"""The programs' own network on a cluster: put there, changed, asked, taken away."""

import json
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tests.cluster import reference
from tests.cluster.cluster import Cluster, until
from tools.kind.places import ROOT

IMAGE = ROOT / "build" / "isthmus-image.tar"
NAMESPACE = "isthmus"
_INSTALLED = "daemonset/isthmus-agent", "deployment/isthmus-ipamd", "deployment/isthmus-etcd"


class Mode(StrEnum):
    """How packets go from node to node."""

    AUTO = "auto"
    DIRECT = "direct"
    VXLAN = "vxlan"


@dataclass(frozen=True, slots=True)
class Container:
    """One that runs on a node, as containerd knows it."""

    id: str
    pid: int


@dataclass(frozen=True, slots=True)
class Network:
    """isthmus on a cluster; what fails raises KindError."""

    cluster: Cluster

    @property
    def families(self) -> str:
        """The cluster's, as `isthmus manifest` names them."""
        versions = {network.version for network in reference.pod_networks(self.cluster)}
        return "dual" if len(versions) == 2 else f"ipv{versions.pop()}"

    def install(self, mode: Mode = Mode.AUTO, *options: str) -> None:
        """Apply the manifest and wait until all of it serves; also where another one is there."""
        self.apply(f"--mode={mode}", *options)
        for name in _INSTALLED:
            self.rolled_out(name)
        self.cluster.wait("condition=Ready", "nodes", "--all")

    def apply(self, *options: str) -> None:
        """Apply the manifest for the cluster's families."""
        text = manifest(f"--families={self.families}", *options)
        self.cluster.kubectl("apply", "--filename=-", stdin=text)

    def uninstall(self) -> None:
        """Take it away as docs/kubernetes.md says; pods that have its network are ended before."""
        text = manifest(f"--families={self.families}")
        self.cluster.kubectl("delete", "--ignore-not-found", "--filename=-", stdin=text)
        self.cluster.kubectl("apply", "--filename=-", stdin=manifest("--uninstall"))
        with self.cluster.without_dns():
            self.rolled_out("daemonset/isthmus-remove")
        self.cluster.kubectl("delete", "namespace", NAMESPACE)

    def rolled_out(self, name: str) -> None:
        """Wait until a Deployment or DaemonSet of the namespace is as it shall be."""
        status = ("rollout", "status", f"--namespace={NAMESPACE}", name, "--timeout=120s")
        self.cluster.kubectl(*status, timeout=130)

    def restart(self, name: str) -> None:
        """Exchange all pods of a Deployment or DaemonSet and wait until that is done."""
        self.cluster.kubectl("rollout", "restart", f"--namespace={NAMESPACE}", name)
        self.rolled_out(name)

    def scale(self, deployment: str, replicas: int) -> None:
        """Have so many pods of a Deployment, and wait until it is so."""
        where = (f"--namespace={NAMESPACE}", f"deployment/{deployment}")
        self.cluster.kubectl("scale", *where, f"--replicas={replicas}")
        self.rolled_out(where[1])
        if not replicas:
            label = f"--selector=app.kubernetes.io/name={deployment}"
            self.cluster.wait("delete", "pod", where[0], label)

    def agent(self, node: str) -> Container:
        """Return the agent's container, which the API server need not answer for."""
        name = 'labels."io.kubernetes.container.name"==agent'
        running = until(
            lambda: [one for one in containers(self.cluster, node, name) if one.pid],
            what=f"an agent runs on {node}",
        )
        return running[0]

    def on_agent(self, node: str, *argv: str) -> str:
        """Return the output of `isthmus ...` in the agent's container."""
        container = self.agent(node)
        run = ("ctr", "--namespace=k8s.io", "tasks", "exec", "--exec-id=test", container.id)
        return self.cluster.on_node(node, *run, "isthmus", *argv)

    def attachments(self, node: str) -> dict[str, dict[str, Any]]:
        """Return what the node's agent has of each pod, by namespace/name."""
        found = json.loads(self.on_agent(node, "attachments", "--json"))
        return {one["pod"]: one for one in found["attachments"]}

    def leftovers(self, node: str) -> set[str]:
        """Return the pods to which the node's agent has promised something, and which are gone."""
        there = {
            f"{one['metadata']['namespace']}/{one['metadata']['name']}"
            for one in self.cluster.get(
                "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}"
            )["items"]
        }
        return set(self.attachments(node)) - there

    def ask_ipamd(self, *argv: str) -> str:
        """Return the output of `isthmus ...` in ipamd's pod."""
        return self.cluster.in_pod(
            "deployment/isthmus-ipamd", "isthmus", *argv, namespace=NAMESPACE
        )


def manifest(*options: str) -> str:
    """Return what `isthmus manifest` prints."""
    command = (sys.executable, "-m", "cli", "manifest", *options)
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def containers(cluster: Cluster, node: str, *filters: str) -> list[Container]:
    """Return the containers that containerd has on a node; pid 0: it does not run."""
    ctr = ("ctr", "--namespace=k8s.io")
    ids = cluster.on_node(node, *ctr, "containers", "ls", "-q", ",".join(filters)).split()
    tasks = dict(
        line.split()[:2] for line in cluster.on_node(node, *ctr, "tasks", "ls").splitlines()[1:]
    )
    return [Container(one, int(tasks.get(one, "0"))) for one in ids]


def sandbox(cluster: Cluster, node: str, pod: str) -> Container:
    """Return the sandbox of a pod that runs on *node*."""
    labels = f'labels."io.kubernetes.pod.name"=={pod}', 'labels."io.cri-containerd.kind"==sandbox'
    (found,) = (one for one in containers(cluster, node, *labels) if one.pid)
    return found


def kill(cluster: Cluster, node: str, container: Container, signal: str = "SIGKILL") -> None:
    """Send a signal to the first process of a container."""
    cluster.on_node(
        node, "ctr", "--namespace=k8s.io", "tasks", "kill", f"--signal={signal}", container.id
    )
