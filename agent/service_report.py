"""What an operator sees of Services: frontends, endpoints, policy, and what the kernel lacks."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from dataplane.nft.objects import Protocol
from proxy.explain import Explanation
from proxy.model import ServiceName
from proxy.plan import Frontend, ListKey, Planned, ports_of, socket_of
from proxy.reconciler import Reconciler
from proxy.walk import Flow


def rows(
    reconciler: Reconciler,
    troubles: Mapping[ServiceName, Iterable[str]],
    wanted: str,
    *,
    compare: bool,
) -> list[dict[str, Any]]:
    """One for each Service that *wanted* ("", a name, or namespace/name) means.

    Raises DataplaneError.
    """
    names = [name for name in sorted(reconciler.names()) if _is_meant(name, wanted)]
    differing = reconciler.differences(names) if compare else {}
    return [
        _row(reconciler, name, troubles.get(name, ()), differing.get(name, [])) for name in names
    ]


def conflicts(reconciler: Reconciler) -> list[str]:
    """Frontends that several Services claim, a line each."""
    return [
        f"{place(frontend)} is claimed by {', '.join(map(str, [owner, *others]))}: {owner} has it"
        for frontend, (owner, others) in reconciler.conflicts.items()
    ]


def flow_of(asked: Mapping[str, Any]) -> Flow:
    """The flow that *asked* names; raises ValueError, whose text says what is allowed."""
    source, address = ip_address(str(asked.get("source"))), ip_address(str(asked.get("address")))
    if source.version != address.version:
        raise ValueError(f"{source} and {address}: must be of one family, IPv4 or IPv6")
    port = asked.get("port")
    if not isinstance(port, int) or not 0 < port < 1 << 16:
        raise ValueError(f"port {port!r}: must be 1 to 65535")
    protocols = [each.value for each in Protocol]
    if (protocol := asked.get("protocol")) not in protocols:
        raise ValueError(f"protocol {protocol!r}: must be one of {', '.join(protocols)}")
    return Flow(source, address, Protocol(protocol), port)


def explained(found: Explanation, troubles: Iterable[str] = ()) -> dict[str, Any]:
    """What becomes of a packet, and of each endpoint why it may be reached or not.

    *troubles*: what of the Service cannot be used at all.
    """
    packet, outcome, there = found.packet, found.outcome, found.programmed
    return {
        "source": str(packet.source_address),
        "source_is": packet.source.value,
        "destination": f"{socket_of(packet.address, packet.port)}/{packet.protocol}",
        "service": str(found.service or ""),
        "port": found.port,
        "fate": outcome.fate.value,
        "reason": str(outcome.reason),
        "masqueraded": outcome.is_masqueraded,
        "affinity_s": found.affinity_s,
        "remembered": str(found.remembered or ""),
        "endpoints": [
            {"at": str(each.backend), "node": each.node, "why_not": each.why_not}
            for each in found.candidates
        ],
        "problems": list(troubles),
        "programmed": found.is_programmed,
        "kernel": {
            "fate": there.fate.value if there else "the table is not there, or lost rules",
            "endpoints": sorted(map(str, there.backends)) if there else [],
        },
    }


def place(frontend: Frontend) -> str:
    """10.96.0.1:80/tcp, or NodePort 30080/tcp."""
    if frontend.address is None:
        return f"NodePort IPv{frontend.version} {frontend.port}/{frontend.protocol}"
    return f"{socket_of(frontend.address, frontend.port)}/{frontend.protocol}"


def _is_meant(name: ServiceName, wanted: str) -> bool:
    return wanted in ("", name.name, str(name))


def _row(
    reconciler: Reconciler, name: ServiceName, troubles: Iterable[str], differing: list[str]
) -> dict[str, Any]:
    planned = reconciler.planned(name)
    assert planned is not None
    service = planned.service
    why = reconciler.refused.get(name, "")
    return {
        "name": str(name),
        "frontends": [
            {
                "at": place(frontend),
                "port": port.name,
                "endpoints": _members(planned, frontend, port.name, is_local=False),
                "local": _members(planned, frontend, port.name, is_local=True),
            }
            for frontend, port in sorted(
                ports_of(service, planned.owned), key=lambda pair: place(pair[0])
            )
        ],
        "internal_policy": service.internal_policy.value,
        "external_policy": service.external_policy.value,
        "affinity_s": service.affinity_s,
        "source_ranges": [str(each) for each in service.source_ranges],
        "health_check_node_port": service.health_check_node_port,
        "programmed": not why and not differing,
        "problems": [
            *([f"the kernel refuses it: {why}"] if why else []),
            *troubles,
            *planned.overfull,
        ],
        "differing": differing,
    }


def _members(planned: Planned, frontend: Frontend, port: str, *, is_local: bool) -> list[str]:
    key = ListKey(port, frontend.protocol, frontend.version, is_local)
    return [str(each) for each in planned.slots.get(key, ())]
