"""A real cluster as tests use it: kubectl, its nodes, its pods."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tools.kind import cluster as kind
from tools.kind.engine import Engine
from tools.kind.places import KUBECONFIG

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.56"

Manifest = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster of an engine.  What fails raises KindError with all that the program said."""

    engine: Engine

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes, sorted: the control plane is the first."""
        return kind.nodes(self.engine)

    def kubectl(self, *arguments: str, stdin: str = "", timeout: float = 120) -> str:
        """Return the output of kubectl."""
        command = ("kubectl", f"--kubeconfig={KUBECONFIG}", *arguments)
        return self.engine.run(*command, stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get` says of objects."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, *manifests: Manifest) -> None:
        """Create the objects, or change them to this."""
        objects = {"apiVersion": "v1", "kind": "List", "items": manifests}
        self.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(objects))

    def wait(self, condition: str, *arguments: str, seconds: int = 90) -> None:
        """Wait until the objects have *condition*, as `kubectl wait --for` understands it."""
        self.kubectl(
            *("wait", f"--for={condition}", f"--timeout={seconds}s", *arguments),
            timeout=seconds + 10,
        )

    def events(self, name: str) -> str:
        """Return what the events of an object say, one a line."""
        found = self.get(
            "events", "--all-namespaces", f"--field-selector=involvedObject.name={name}"
        )
        return "\n".join(f"{one['reason']}: {one['message']}" for one in found["items"])

    def on_node(self, node: str, *argv: str, stdin: str = "", timeout: float = 120) -> str:
        """Return the output of a program that runs on a node."""
        command = ("docker", "exec", "--interactive", node, *argv)
        return self.engine.run(*command, stdin=stdin, timeout=timeout)

    def in_pod(self, pod: str, *argv: str, namespace: str = "default", timeout: float = 60) -> str:
        """Return the output of a program that runs in the first container of a pod."""
        command = ("exec", f"--namespace={namespace}", pod, "--", *argv)
        return self.kubectl(*command, timeout=timeout)

    @contextmanager
    def without_dns(self) -> Iterator[None]:
        """Have no pods of the cluster's DNS meanwhile: they would keep the network they have."""
        where = ("--namespace=kube-system", "deployment/coredns")
        self.kubectl("scale", *where, "--replicas=0")
        try:
            self.wait("delete", "pod", where[0], "--selector=k8s-app=kube-dns")
            yield
        finally:
            self.kubectl("scale", *where, "--replicas=2")

    def load(self, archive: Path) -> None:
        """Put the images of a docker-archive into every node."""
        kind.load(self.engine, archive)


def pod(
    name: str, node: str, *arguments: str, labels: Mapping[str, str] | None = None, **spec: Any
) -> Manifest:
    """Return a pod on *node* that runs agnhost with *arguments*; *spec* is added to its own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, **(labels or {})}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "agnhost", "image": AGNHOST, "args": list(arguments)}],
            **spec,
        },
    }


def service(name: str, port: int, target: int, **spec: Any) -> Manifest:
    """Return a Service for the pods whose label app is *name*."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"port": port, "targetPort": target}],
            **spec,
        },
    }


def until(look: Callable[[], T], *, what: str, seconds: float = 60) -> T:
    """Return what *look* sees once that is true; AssertionError where it never is."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)
    return seen
