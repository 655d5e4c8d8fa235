"""What an operator sees of Services: frontends, endpoints, policy, and what the kernel lacks."""

from collections.abc import Iterable, Mapping
from typing import Any

from proxy.model import ServiceName
from proxy.plan import Frontend, ListKey, Planned, ports_of, socket_of
from proxy.reconciler import Reconciler


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
