"""The namespace and pods of a self-test, as the API takes them.  Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from connectivity.model import Target
from connectivity.plan import HOST_PORT, NODE_PORT, POD_PORT

LABEL = "app.kubernetes.io/name"
LABEL_VALUE = "isthmus-connectivity"


@dataclass(frozen=True, slots=True)
class Program:
    """The isthmus that pods run: *image*, and the *command* that it is there."""

    image: str
    command: tuple[str, ...]


def namespace(name: str) -> dict[str, Any]:
    """Pods in the host's network need the privileged level of pod security."""
    labels = {LABEL: LABEL_VALUE, "pod-security.kubernetes.io/enforce": "privileged"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def server(node: str, program: Program, *, host_network: bool) -> dict[str, Any]:
    """A pod that answers on *node*: in the host's network, or with a hostPort of its own."""
    port = NODE_PORT if host_network else POD_PORT
    ports: dict[str, Any] = {"containerPort": port, "protocol": "TCP"}
    if not host_network:
        ports["hostPort"] = HOST_PORT
    container = {
        "args": ["connectivity", "serve", f"--port={port}"],
        "ports": [ports],
        # From the kubelet, along a path that is under test itself: how long, is told apart.
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
    }
    return _pod(name_of("server", node, host_network), node, program, container, host_network)


def client(
    node: str, program: Program, targets: Iterable[Target], *, host_network: bool
) -> dict[str, Any]:
    """A pod that tries *targets* from *node*, prints what came of it, and ends."""
    document = json.dumps([each.to_json() for each in targets], separators=(",", ":"))
    container = {"args": ["connectivity", "probe", f"--node={node}", f"--targets={document}"]}
    return _pod(name_of("client", node, host_network), node, program, container, host_network)


def name_of(role: str, node: str, host_network: bool) -> str:
    """A node's name may be longer than a pod's may be once something is before it."""
    where = "host" if host_network else "pod"
    return f"{role}-{where}-{sha256(node.encode()).hexdigest()[:10]}"


def _pod(
    name: str, node: str, program: Program, container: Mapping[str, Any], host_network: bool
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {LABEL: LABEL_VALUE}},
        "spec": {
            # Past the scheduler: each node is tried, cordoned and tainted ones too.
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "hostNetwork": host_network,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": [
                {
                    "name": "isthmus",
                    "image": program.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(program.command),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    **container,
                }
            ],
        },
    }
