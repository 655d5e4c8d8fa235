"""Which blocks of a new pool have to be whose: pods of a former network have addresses of them.

Each node's own, by spec.podCIDRs of its Node, which stay as they are for as long as that is there,
and by the addresses of the pods that run on it.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cli.answers import Problem
from ipam.cluster import Pool, Settings
from kube import objects
from net.address import IPNetwork

if TYPE_CHECKING:
    from kube.client import Client

_MOST = Settings().blocks_per_node
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class InUse:
    """Addresses that *node* has already, and whose they are, in words."""

    cidr: IPNetwork
    node: str
    what: str


async def in_use(client: "Client") -> list[InUse]:
    """What Nodes and pods have.  Raises KubeError."""
    found = []
    async with aclosing(client.pages("/api/v1/nodes", objects.Node)) as nodes:
        async for page in nodes:
            for node in page.items or ():
                name = node.metadata.name
                found += [
                    InUse(ip_network(cidr), name, f"spec.podCIDRs of Node {name}")
                    for cidr in node.spec.pod_cidrs or ()
                ]
    async with aclosing(client.pages("/api/v1/pods", objects.Pod)) as pods:
        async for some in pods:
            for pod in some.items or ():
                found += _of_pod(pod)
    return found


def _of_pod(pod: objects.Pod) -> list[InUse]:
    if pod.spec.host_network or not pod.spec.node_name or pod.status.phase in _ENDED:
        return []
    name = f"pod {pod.metadata.namespace}/{pod.metadata.name}"
    return [
        InUse(ip_network(one.ip), pod.spec.node_name, name)
        for one in pod.status.pod_ips or ()
        if one.ip
    ]


def pins(pool: Pool, known: Sequence[InUse]) -> dict[IPNetwork, str]:
    """The blocks that are to be pinned, and to which node.  Raises Problem."""
    holders: dict[IPNetwork, InUse] = {}
    wrong: list[str] = []
    for one in known:
        if not (one.cidr.version == pool.cidr.version and one.cidr.overlaps(pool.cidr)):
            continue
        if 1 << max(pool.block_length - one.cidr.prefixlen, 0) > _MOST:
            wrong.append(
                f"{one.what} ({one.cidr}) is many blocks of pool {pool.name} (/"
                f"{pool.block_length}): make them /{one.cidr.prefixlen}, or choose another pool"
            )
            continue
        for block in _blocks(pool, one.cidr):
            first = holders.setdefault(block, one)
            if first.node != one.node:
                wrong.append(
                    f"block {block} of pool {pool.name} is {first.what} on {first.node}, and "
                    f"{one.what} on {one.node}: no block is of two nodes; make them smaller, or "
                    "choose another pool"
                )
    if wrong:
        raise Problem("\n".join(dict.fromkeys(wrong)))
    return {block: one.node for block, one in holders.items()}


def _blocks(pool: Pool, cidr: IPNetwork) -> list[IPNetwork]:
    if cidr.prefixlen >= pool.block_length:
        return [cidr.supernet(new_prefix=pool.block_length)]
    inside = pool.cidr if cidr.prefixlen < pool.cidr.prefixlen else cidr
    return list(inside.subnets(new_prefix=pool.block_length))
