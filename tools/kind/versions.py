"""The versions a cluster is made of, as the go.mod files of tools/peers pin them."""

import re
from pathlib import Path

from tools.kind.places import PEERS

# The tags that kubeadm of the pinned Kubernetes asks for: `kubeadm config images list`.
ETCD_TAG = "3.6.5-0"
COREDNS_TAG = "v1.12.1"
PAUSE_TAG = "3.10.1"
# The tags that its end-to-end tests ask for: `e2e.test --list-images`.
AGNHOST_TAG = "2.56"
# What these images hold of tools and agnhost is all that the network's tests use of them.
LIKE_AGNHOST = (
    f"e2e-test-images/agnhost:{AGNHOST_TAG}",
    "e2e-test-images/busybox:1.37.0-1",
    "e2e-test-images/jessie-dnsutils:1.7",
    "build-image/distroless-iptables:v0.7.14",
)
WEB_SERVERS = tuple(
    f"e2e-test-images/{name}"
    for name in ("httpd:2.4.38-4", "httpd:2.4.39-4", "nginx:1.14-4", "nginx:1.15-4")
)
BOOM = "e2e-test-images/regression-issue-74839:1.2"

# Published for the pinned release of kind, whose notes name the digest.
STOCK_NODE_IMAGE = (
    "kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d"
)


def pinned(go_mod: str, module: str) -> str:
    """Return the version that the text of a go.mod requires of *module*; ValueError without."""
    found = re.search(rf"^(?:require )?\t?{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"go.mod requires no {module}")
    return found[1]


def kubernetes(peers: Path = PEERS) -> str:
    """Return the version of Kubernetes, as v1.34.4."""
    return pinned((peers / "kubernetes" / "go.mod").read_text(), "k8s.io/kubernetes")
