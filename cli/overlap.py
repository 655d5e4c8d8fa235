"""Which pools reach into what a cluster of Kubernetes uses already: its nodes, its Services."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from ipam.cluster import Pool
from kube.errors import NotFound
from net.address import IPNetwork

if TYPE_CHECKING:
    from kube.client import Client


@dataclass(frozen=True, slots=True)
class Used:
    """*by*: the kind of object that has it; *what* it is, in words."""

    cidr: IPNetwork
    by: str
    what: str


async def used(client: "Client") -> list[Used]:
    """Addresses of nodes, and CIDRs of Services from Kubernetes 1.33 on.  Raises KubeError."""
    nodes = await client.get("/api/v1/nodes", dict[str, Any])
    found = [
        Used(
            ip_network(address["address"]),
            "Node",
            f"the address of Node {node['metadata']['name']}",
        )
        for node in nodes["items"]
        for address in node.get("status", {}).get("addresses", ())
        if address["type"] == "InternalIP"
    ]
    try:
        ranges = await client.get("/apis/networking.k8s.io/v1/servicecidrs", dict[str, Any])
    except NotFound:
        return found
    return found + [
        Used(ip_network(cidr), "Service", "addresses of Services")
        for one in ranges["items"]
        for cidr in one["spec"].get("cidrs", ())
    ]


def overlaps(pools: Sequence[Pool], known: Sequence[Used]) -> list[str]:
    """What is wrong, a line each: the first of each kind for a pool."""
    found: dict[tuple[str, str], str] = {}
    for pool in pools:
        for one in known:
            if pool.cidr.version == one.cidr.version and pool.cidr.overlaps(one.cidr):
                found.setdefault(
                    (pool.name, one.by),
                    f"pool {pool.name} ({pool.cidr}) overlaps {one.cidr}, {one.what}: "
                    "pods need addresses that nothing else has (isthmus manifest --ipv4-pool, "
                    "--ipv6-pool)",
                )
    return list(found.values())
