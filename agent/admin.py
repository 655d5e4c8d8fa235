"""The agent's answers to the operator: requests are `{"op": ...}`, answers are JSON objects.

Nothing here touches kernel or disk by itself: what the operator sees is what the node holds in
memory, and the one change that can be asked for is carried out by the node as a DEL would be.
An answer with the key `error` is a refusal, its text one line for people.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any, Protocol

from cni.attachment import host_name
from cni.spec import Spec, decode
from dataplane.errors import DataplaneError
from ipam.errors import IPAMError
from ipam.leases import Attachment, Record
from ipam.ledger import Usage
from net.address import IPAddress

_NO_SERVICES = "this agent translates no Services: its configuration has no [services]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the agent is.  *reasons* says why it is not *serving*; ages are in seconds.

    *last_reconcile_s* is None until the first reconciliation has ended; *cluster* and *mesh* are
    None where no ipamd is configured, else what agent.cluster and agent.mesh describe, and
    *kubernetes* and *announcing* likewise.
    """

    version: str
    pid: int
    boot_id: str
    uptime_s: float
    serving: bool
    reasons: tuple[str, ...] = ()
    attachments: int = 0
    reservations: int = 0
    in_flight: int = 0
    queued: int = 0
    spooled: int = 0
    last_reconcile_s: float | None = None
    resident_bytes: int = 0
    store: str = ""
    cluster: Mapping[str, Any] | None = None
    mesh: Mapping[str, Any] | None = None
    kubernetes: Mapping[str, Any] | None = None
    announcing: Mapping[str, Any] | None = None


class Leases(Protocol):
    """The allocator, as far as it is looked at."""

    def records(self) -> Sequence[Record]: ...
    def usage(self) -> Sequence[Usage]: ...


class Services(Protocol):
    """See agent.services.Services."""

    def report(self, wanted: str = "") -> list[dict[str, Any]]: ...
    def explain(self, asked: Mapping[str, Any]) -> dict[str, Any]: ...


class Node(Protocol):
    """What the answers need of the agent; every method may be called from any thread."""

    @property
    def leases(self) -> Leases: ...

    @property
    def services(self) -> Services | None:
        """None where others translate Services."""
        ...

    def status(self) -> Status: ...

    def check(self) -> Sequence[str]:
        """Compare memory, disk, links and namespaces; one line per difference."""
        ...

    def is_alive(self, record: Record) -> bool:
        """The sandbox of *record* is still there: the same one, by its cookie."""
        ...

    def release(self, who: Attachment) -> None:
        """Undo all that *who* has and forget it, durably.  Raises IPAMError, DataplaneError."""
        ...


def describe(record: Record) -> dict[str, Any]:
    """One attachment as programs see it, from the agent or from its store.

    *pod* is NAMESPACE/NAME where a Kubernetes runtime said so.  *host_side* is the name of our
    link, empty where another plugin made the interface.
    """
    try:
        spec = decode(record.spec)
    except (ValueError, KeyError, TypeError, IndexError):
        spec = Spec()
    return {
        "network": record.who.network,
        "container_id": record.who.container_id,
        "ifname": record.who.ifname,
        "state": record.state.value,
        "addresses": [str(address) for address in record.addresses],
        "pod": f"{spec.pod.namespace}/{spec.pod.name}".strip("/"),
        "host_side": host_name(record.who) if spec.link else "",
        "sandbox": record.sandbox,
        "netns_cookie": record.netns_cookie,
        "boot_id": record.boot_id,
        "started_ns": record.started_ns,
    }


def _fullness(usage: Usage) -> dict[str, Any]:
    """How full one range set is; cooling addresses are free, but the last to be given."""
    return {
        "ranges": str(usage.ranges),
        "size": usage.size,
        "held": usage.held,
        "cooling": usage.cooling,
        "free": usage.size - usage.held,
    }


def find(records: Sequence[Record], wanted: str) -> Record:
    """Return the one record that *wanted* names: a key, an address, or a container id.

    A container id, in a key too, may be shortened as long as it is clear.  Raises LookupError,
    whose text says what is allowed, when none or several fit.
    """
    address = _address(wanted)
    fitting = [
        record
        for record in records
        if str(record.who) == wanted
        or (address is not None and address in {own.ip for own in record.addresses})
    ] or [record for record in records if wanted and _is_short_for(wanted, record.who)]
    match fitting:
        case [record]:
            return record
        case []:
            raise LookupError(
                f"no attachment {wanted!r}: give NETWORK/CONTAINER/INTERFACE, an address, "
                "or a container id"
            )
    keys = ", ".join(str(record.who) for record in fitting)
    raise LookupError(f"{wanted!r} fits several attachments, give one of: {keys}")


def _is_short_for(wanted: str, who: Attachment) -> bool:
    match wanted.split("/"):
        case [container_id]:
            return who.container_id.startswith(container_id)
        case [network, container_id, ifname] if container_id:
            is_same = (network, ifname) == (who.network, who.ifname)
            return is_same and who.container_id.startswith(container_id)
    return False


def answer(op: Mapping[str, Any], node: Node) -> dict[str, Any]:
    """Answer one request of the operator; never raises for what the request contains."""
    handler = _OPERATIONS.get(str(op.get("op")))
    if handler is None:
        known = ", ".join(_OPERATIONS)
        return {"error": f"unknown operation {op.get('op')!r}: this agent knows {known}"}
    try:
        return handler(op, node)
    except (IPAMError, DataplaneError) as exc:
        return {"error": str(exc)}


def _status(_op: Mapping[str, Any], node: Node) -> dict[str, Any]:
    return {"status": asdict(node.status())}


def _attachments(_op: Mapping[str, Any], node: Node) -> dict[str, Any]:
    records = sorted(node.leases.records(), key=lambda record: record.who)
    return {"attachments": [describe(record) for record in records]}


def _ipam_show(op: Mapping[str, Any], node: Node) -> dict[str, Any]:
    return _attachments(op, node) | {"usage": [_fullness(usage) for usage in node.leases.usage()]}


def _ipam_check(_op: Mapping[str, Any], node: Node) -> dict[str, Any]:
    return {"problems": list(node.check())}


def _ipam_release(op: Mapping[str, Any], node: Node) -> dict[str, Any]:
    try:
        record = find(node.leases.records(), str(op.get("wanted", "")))
    except LookupError as exc:
        return {"error": exc.args[0]}
    if not op.get("force") and node.is_alive(record):
        return {
            "error": f"{record.who} is in use: its sandbox {record.sandbox} is alive; "
            "stop the container, or use --force to cut it off"
        }
    node.release(record.who)
    return {"released": describe(record)}


def _explain(op: Mapping[str, Any], node: Node) -> dict[str, Any]:
    if node.services is None:
        return {"error": _NO_SERVICES}
    try:
        return {"explained": node.services.explain(op)}
    except ValueError as exc:
        return {"error": str(exc)}


def _services(op: Mapping[str, Any], node: Node) -> dict[str, Any]:
    if node.services is None:
        return {"error": _NO_SERVICES}
    wanted = str(op.get("wanted", ""))
    found = node.services.report(wanted)
    if wanted and not found:
        return {"error": f"no Service {wanted!r}: give a name, or NAMESPACE/NAME"}
    return {"services": found}


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text.partition("/")[0])
    except ValueError:
        return None


_OPERATIONS: dict[str, Callable[[Mapping[str, Any], Node], dict[str, Any]]] = {
    "status": _status,
    "attachments": _attachments,
    "ipam-show": _ipam_show,
    "ipam-check": _ipam_check,
    "ipam-release": _ipam_release,
    "services": _services,
    "explain": _explain,
}
