"""Services and EndpointSlices as the API has them, for tests."""

from typing import Any

Json = dict[str, Any]


def service(name: str, *cluster_ips: str, namespace: str = "shop", **more: Any) -> Json:
    """One with a TCP and a UDP port 80; *more* is of its spec."""
    ports = [
        {"name": protocol.lower(), "protocol": protocol, "port": 80} for protocol in ("TCP", "UDP")
    ]
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"clusterIPs": list(cluster_ips), "ports": ports, **more},
    }


def slice_(
    of: str, *endpoints: str, port: int = 8080, suffix: str = "a", namespace: str = "shop"
) -> Json:
    """Each endpoint as "10.244.1.7@node", with "!" for one that ends and "?" for one unready.

    It is a pod, named as its address.
    """
    return {
        "metadata": {
            "name": f"{of}-{suffix}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": "IPv6" if any("::" in each for each in endpoints) else "IPv4",
        "ports": [
            {"name": protocol.lower(), "protocol": protocol, "port": port}
            for protocol in ("TCP", "UDP")
        ],
        "endpoints": [_endpoint(each) for each in endpoints],
    }


def _endpoint(text: str) -> Json:
    address, _, node = text.rstrip("!?").partition("@")
    conditions = {"ready": True, "serving": True, "terminating": False}
    if text.endswith("!"):
        conditions = {"ready": False, "serving": True, "terminating": True}
    if text.endswith("?"):
        conditions = {"ready": False, "serving": False, "terminating": False}
    return {
        "addresses": [address],
        "conditions": conditions,
        "nodeName": node or "here",
        "targetRef": {"kind": "Pod", "name": address},
    }


def pod(address: str, *, name: str = "", phase: str = "Running", namespace: str = "shop") -> Json:
    return {
        "metadata": {"name": name or address, "namespace": namespace},
        "status": {"phase": phase, "podIP": address, "podIPs": [{"ip": address}]},
    }
