"""What we write into Nodes, each by one patch that is refused where somebody was quicker."""

from collections.abc import Sequence
from typing import Any

from kube.client import Client, PatchKind
from kube.objects import Condition, Node

NODES = "/api/v1/nodes"
NETWORK_UNAVAILABLE = "NetworkUnavailable"


async def set_pod_cidrs(client: Client, node: Node, cidrs: Sequence[str]) -> Node:
    """Name the node's first blocks in a Node that has none; the API lets nobody change them.

    Raises KubeError: Conflict where the Node was changed since, Rejected where it has others.
    """
    spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)}
    return await client.patch(_path(node), {"metadata": _same(node), "spec": spec}, Node)


async def remove_taint(client: Client, node: Node, key: str) -> Node:
    """Take every taint *key* off.  Raises KubeError, Conflict as above.

    The API knows taints only as a whole list: another's that came meanwhile must not be lost.
    """
    rest = [_taint(taint) for taint in node.spec.taints or () if taint.key != key]
    body = {"metadata": _same(node), "spec": {"taints": rest or None}}
    return await client.patch(_path(node), body, Node)


async def set_condition(client: Client, node: Node, condition: Condition, *, at: str) -> Node:
    """Put *condition*; *at* is now (RFC 3339), since when it holds if its status changes."""
    old = find_condition(node, condition.type)
    wanted: dict[str, Any] = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": at,
    }
    if old is None or old.status != condition.status:
        wanted["lastTransitionTime"] = at
    body = {"status": {"conditions": [wanted]}}
    return await client.patch(f"{_path(node)}/status", body, Node, by=PatchKind.STRATEGIC)


def find_condition(node: Node, kind: str) -> Condition | None:
    return next((one for one in node.status.conditions or () if one.type == kind), None)


def _taint(taint: Any) -> dict[str, str]:
    """As the API writes it, without what is not said."""
    fields = {
        "key": taint.key,
        "value": taint.value,
        "effect": taint.effect,
        "timeAdded": taint.time_added,
    }
    return {name: value for name, value in fields.items() if value}


def _path(node: Node) -> str:
    return f"{NODES}/{node.metadata.name}"


def _same(node: Node) -> dict[str, str]:
    return {
        "resourceVersion": node.metadata.resource_version,
        "uid": node.metadata.uid,
    }
