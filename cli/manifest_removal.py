"""What takes isthmus off the nodes again, applied once its pods are gone."""

from cli.manifest_access import namespace
from cli.manifest_agent import CAPABILITIES
from cli.manifest_pods import LABEL, Object, confined, host_path, metadata, mount, pod, probe
from cli.manifest_site import Site
from cli.uninstall_node import PAGE

REMOVE = "isthmus-remove"
_HOST = "/host"
_PLACES = {
    "bin": "/opt/cni/bin",
    "lists": "/etc/cni/net.d",
    # Not our directories alone: they themselves go too.
    "state": "/var/lib",
    "run": "/run",
}


def removal(site: Site, *, force: bool) -> list[Object]:
    """A DaemonSet, ready on a node once that is clean; *force*: pods are not waited for."""
    container = {
        "name": "remove",
        "image": site.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            *("uninstall-node", "--root", _HOST, "--host-local", site.host_local),
            *(["--force"] if force else []),
        ],
        "securityContext": confined(*CAPABILITIES),
        "readinessProbe": probe("/readyz", int(PAGE.rpartition(":")[2]), periodSeconds=1),
        "volumeMounts": [
            # What the host unmounts has to go here, too: a copy of a pod's namespace would keep
            # it, and its links, for as long as they are waited for.
            *(
                mount(name, f"{_HOST}{path}", mountPropagation="HostToContainer")
                for name, path in _PLACES.items()
            ),
            mount("machine", "/etc/machine-id", readOnly=True),
            mount("tmp", "/tmp"),
        ],
    }
    template = pod(
        REMOVE,
        container,
        automountServiceAccountToken=False,
        terminationGracePeriodSeconds=1,
        volumes=[
            *(host_path(name, path) for name, path in _PLACES.items()),
            host_path("machine", "/etc/machine-id", "File"),
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    )
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(REMOVE),
        "spec": {
            "selector": {"matchLabels": {LABEL: REMOVE}},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "100%"},
            },
            "template": template,
        },
    }
    return [namespace(), daemon_set]
