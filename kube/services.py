"""What a cloud would read of Services of type LoadBalancer, and write into their status."""

from collections.abc import Sequence
from typing import Any

from kube.client import Client, PatchKind
from kube.objects import ASSIGNED, Condition, Service

SERVICES = "/api/v1/services"


def find_condition(service: Service) -> Condition | None:
    """What was said last of the addresses."""
    found = service.status.conditions or ()
    return next((one for one in found if one.type == ASSIGNED), None)


async def get(client: Client, namespace: str, name: str) -> Service:
    """Raises KubeError, NotFound among them."""
    return await client.get(_path(namespace, name), Service)


async def show_addresses(
    client: Client, service: Service, addresses: Sequence[str], condition: Condition, *, at: str
) -> None:
    """Put *addresses* and *condition* into its status; *at* is now (RFC 3339).

    Raises KubeError: Conflict where the Service was changed since it was read.
    """
    former = find_condition(service)
    wanted: dict[str, Any] = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
    }
    if former is None or former.status != condition.status:
        wanted["lastTransitionTime"] = at
    body = {
        "metadata": {
            "resourceVersion": service.metadata.resource_version,
            "uid": service.metadata.uid,
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": each, "ipMode": "VIP"} for each in addresses]},
            "conditions": [wanted],
        },
    }
    path = f"{_path(service.metadata.namespace, service.metadata.name)}/status"
    await client.patch(path, body, Service, by=PatchKind.STRATEGIC)


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services/{name}"
