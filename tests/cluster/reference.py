"""The network to compare with: ptp, host-local, portmap, static routes, kube-proxy.

Each node has one block of each family of the cluster's, by its place among the nodes.
"""

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice

from tests.cluster.cluster import Cluster, Manifest

NAME = "10-reference.conflist"
DIRECTORY = "/etc/cni/net.d"
# host-local's addresses; not on disk, so that a node that was started again has none.
LEASES = "/run/reference-leases"
# As isthmus cuts blocks, so that those of the same nodes can be its own later.
PREFIXES = {4: 24, 6: 112}
# By which our routes are removed, and not those that another network has for the same block.
PROTOCOL = 99

Address = IPv4Address | IPv6Address
Block = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the network sees it: its addresses and blocks, one of each family."""

    name: str
    addresses: tuple[Address, ...]
    blocks: tuple[Block, ...]


def conflist(node: Node) -> Manifest:
    """Return the network configuration of a node."""
    defaults = {4: "0.0.0.0/0", 6: "::/0"}
    ipam = {
        "type": "host-local",
        "dataDir": LEASES,
        "ranges": [[{"subnet": str(block)}] for block in node.blocks],
        "routes": [{"dst": defaults[block.version]} for block in node.blocks],
    }
    return {
        "cniVersion": "1.0.0",
        "name": "reference",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def routes(node: Node, nodes: list[Node]) -> list[str]:
    """Return what `ip -batch` makes of it that *node* reaches the pods of all others."""
    return [
        f"route replace {block} via {address} proto {PROTOCOL}"
        for other in nodes
        if other != node
        for block in other.blocks
        for address in other.addresses
        if address.version == block.version
    ]


def planned(names: Mapping[str, tuple[Address, ...]], pods: tuple[Block, ...]) -> list[Node]:
    """Return the nodes, with addresses by name, each with its blocks of the cluster's *pods*."""
    cut = [list(_first_blocks(network, len(names))) for network in pods]
    return [
        Node(name, names[name], tuple(blocks[place] for blocks in cut))
        for place, name in enumerate(sorted(names))
    ]


def install(cluster: Cluster) -> list[Node]:
    """Give the cluster this network and wait until its nodes are ready."""
    nodes = observed(cluster)
    for node in nodes:
        batch = "\n".join(routes(node, nodes))
        cluster.on_node(node.name, "ip", "-batch", "-", stdin=batch)
        write = f"cat > {DIRECTORY}/.new && mv {DIRECTORY}/.new {DIRECTORY}/{NAME}"
        cluster.on_node(node.name, "sh", "-c", write, stdin=json.dumps(conflist(node)))
    cluster.wait("condition=Ready", "nodes", "--all")
    return nodes


def remove(cluster: Cluster) -> None:
    """Take the network away; pods of tests that still use it keep their interfaces.

    Each has a gateway's address on its node, from which that answers datagrams of other pods too.
    """
    nodes = observed(cluster)
    with cluster.without_dns():
        for node in nodes:
            batch = "\n".join(route.replace("replace", "delete") for route in routes(node, nodes))
            cluster.on_node(node.name, "rm", "-f", f"{DIRECTORY}/{NAME}")
            cluster.on_node(node.name, "ip", "-force", "-batch", "-", stdin=batch)


def install_kube_proxy(cluster: Cluster, mode: str = "nftables") -> None:
    """Have kubeadm install kube-proxy, which kind was told to leave out."""
    configuration = f"""
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {mode}
conntrack:
  maxPerCore: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
"""
    command = "cat /kind/kubeadm.conf - > /run/kube-proxy.conf && "
    command += "kubeadm init phase addon kube-proxy --config /run/kube-proxy.conf"
    cluster.on_node(cluster.nodes[0], "sh", "-c", command, stdin=configuration)
    cluster.kubectl(
        *("rollout", "status", "daemonset/kube-proxy", "--namespace=kube-system", "--timeout=90s")
    )


def remove_kube_proxy(cluster: Cluster) -> None:
    """Remove kube-proxy and what it made of the nodes."""
    names = ("daemonset/kube-proxy", "configmap/kube-proxy")
    cluster.kubectl("delete", "--namespace=kube-system", "--ignore-not-found", *names)
    for node in cluster.nodes:
        cleanup = "for f in ip ip6; do nft delete table $f kube-proxy 2> /dev/null || true; done"
        cluster.on_node(node, "sh", "-c", cleanup)


def observed(cluster: Cluster) -> list[Node]:
    """Return the cluster's nodes with the blocks that they have by this module."""
    addresses = {
        item["metadata"]["name"]: tuple(
            ipaddress.ip_address(address["address"])
            for address in item["status"]["addresses"]
            if address["type"] == "InternalIP"
        )
        for item in cluster.get("nodes")["items"]
    }
    return planned(addresses, pod_networks(cluster))


def pod_networks(cluster: Cluster) -> tuple[Block, ...]:
    """Return what the cluster was made with for pods, one of each family."""
    configuration = cluster.get("configmap/kubeadm-config", "--namespace=kube-system")
    for line in configuration["data"]["ClusterConfiguration"].splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "podSubnet":
            return tuple(ipaddress.ip_network(network) for network in value.split(","))
    raise AssertionError("kubeadm's configuration of the cluster has no podSubnet")


def _first_blocks(network: Block, count: int) -> list[Block]:
    subnets: Iterator[Block] = network.subnets(new_prefix=PREFIXES[network.version])
    return list(islice(subnets, count))
