"""What all pods of isthmus have in common: the host's network, tolerance, mounts."""

from typing import Any

from cli.manifest_site import NAMESPACE, Site

Object = dict[str, Any]

# By it ipamd knows nodes and nodes know ipamd; made by the Job.
CA_MOUNT = "/etc/isthmus-ca"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
# Where no option gives the API server's address: the kubelet's file, as kubeadm names it.
KUBELET_FILE = "/etc/kubernetes/kubelet.conf"
KUBELET_MOUNT = "/etc/isthmus-kubelet/kubelet.conf"


LABEL = "app.kubernetes.io/name"


def metadata(name: str) -> Object:
    return {"name": name, "namespace": NAMESPACE, "labels": {LABEL: name}}


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    """A pod template: on the host's network, tolerating every taint.

    No Service address, no DNS of the cluster and no address for a pod is needed to run it.
    """
    return {
        "metadata": {"labels": {LABEL: name}},
        "spec": {
            "hostNetwork": True,
            "dnsPolicy": "Default",
            "enableServiceLinks": False,
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": list(containers),
            **spec,
        },
    }


def confined(*capabilities: str) -> Object:
    """A security context with *capabilities* alone."""
    kept: Object = {"add": list(capabilities)} if capabilities else {}
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], **kept},
    }


def from_field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def host_path(name: str, path: str, kind: str = "DirectoryOrCreate") -> Object:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


def mount(name: str, path: str, **more: Any) -> Object:
    return {"name": name, "mountPath": path, **more}


def kubelet_file(site: Site) -> tuple[list[Object], list[Object]]:
    """Volumes and mounts by which the API server's address is found where no option gives it."""
    if site.api_server:
        return [], []
    return (
        [host_path("kubelet", KUBELET_FILE, "File")],
        [mount("kubelet", KUBELET_MOUNT, readOnly=True)],
    )


def probe(path: str, port: int, **more: int) -> Object:
    """By HTTP on the host's loopback, where the page is."""
    return {"httpGet": {"host": "127.0.0.1", "path": path, "port": port}, **more}
