"""What Kubernetes is told in this node's Node: that pods can come, and which are their CIDRs.

taint node.isthmus.dev/agent-not-ready      taken off once ADD can be served
condition NetworkUnavailable                False while it can, True with the reason while not
spec.podCIDRs                               the node's first blocks, where nobody has set them
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_network

from ipam.holdings import OwnBlock, OwnState
from kube import nodes, objects
from kube.client import Client
from kube.objects import Condition

NOT_READY = "node.isthmus.dev/agent-not-ready"
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class Duty:
    """What is to be written; nothing of it twice."""

    pod_cidrs: tuple[str, ...] = ()
    condition: Condition | None = None
    is_tainted: bool = False

    def __bool__(self) -> bool:
        return bool(self.pod_cidrs or self.condition or self.is_tainted)


def plan(
    node: objects.Node,
    *,
    unready: str,
    blocks: Collection[OwnBlock],
    families: Collection[int] | None = (),
) -> Duty:
    """*unready*: why ADD cannot be served, or ""; *families*: of which to have a block, None:
    that is not known.

    podCIDRs cannot be changed: until there is one of each, nothing is written.
    """
    taints = node.spec.taints or ()
    is_tainted = not unready and any(taint.key == NOT_READY for taint in taints)
    cidrs = () if node.spec.pod_cidrs else first_blocks(blocks)
    if families is None or {*families} - {ip_network(cidr).version for cidr in cidrs}:
        cidrs = ()
    wanted = condition(unready)
    same = nodes.find_condition(node, nodes.NETWORK_UNAVAILABLE) == wanted
    return Duty(cidrs, None if same else wanted, is_tainted)


def condition(unready: str) -> Condition:
    return Condition(
        type=nodes.NETWORK_UNAVAILABLE,
        status="True" if unready else "False",
        reason="IsthmusCannotServe" if unready else "IsthmusServes",
        message=unready[:_LONGEST] or "isthmus gives pods addresses and routes",
    )


def is_wording(node: objects.Node, duty: Duty) -> bool:
    """Whether nothing is to be written but another reason for the same condition."""
    if duty.condition is None or duty.pod_cidrs or duty.is_tainted:
        return False
    known = nodes.find_condition(node, duty.condition.type)
    return known is not None and known.status == duty.condition.status


def first_blocks(blocks: Iterable[OwnBlock]) -> tuple[str, ...]:
    """One of each family, the first that was granted, IPv4 before IPv6."""
    granted = sorted(
        (block for block in blocks if block.state is OwnState.ACTIVE and block.default),
        key=lambda block: block.revision,
        reverse=True,
    )
    first = {block.cidr.version: str(block.cidr) for block in granted}
    return tuple(first[family] for family in sorted(first))


async def carry_out(client: Client, node: objects.Node, duty: Duty, *, at: str) -> objects.Node:
    """Write it; the taint last, since pods come then.  Raises KubeError."""
    if duty.pod_cidrs:
        node = await nodes.set_pod_cidrs(client, node, duty.pod_cidrs)
    if duty.condition:
        node = await nodes.set_condition(client, node, duty.condition, at=at)
    if duty.is_tainted:
        node = await nodes.remove_taint(client, node, NOT_READY)
    return node
