"""CHECK: whether all we made for one attachment is still there.  Changes nothing.

Compared with prevResult where a later plugin of the chain may have changed it (`tuning` writes
another MAC), else with what we recorded.
"""

from collections.abc import Mapping

from cni import attachment, delegate, spec
from cni.config import NetConf, parse
from cni.environment import Call, Verb
from cni.errors import CNIError, ErrorCode
from cni.node import Deadline, Node
from cni.request import Request
from cni.result import Interface, Result
from cni.sandbox import open_sandbox, refuse_own_namespace
from cni.spec import Spec
from dataplane import rtnl
from dataplane.links import PodSide
from dataplane.model import Bridge, Route, Sandbox
from dataplane.netns import Sandbox as OpenSandbox
from ipam.leases import Attachment, Record, State
from net.address import IPNetwork


def check(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Raise CNIError 104 with everything that is amiss."""
    conf = parse(request.stdin, call)
    refuse_own_namespace(request, call, node)
    if conf.prev_result is None:
        raise CNIError(ErrorCode.INVALID_CONFIG, "Required prevResult missing")
    who = Attachment(conf.name, call.container_id, call.ifname)
    with node.locks.hold(who, timeout=deadline.left()) as held:
        if not held:
            raise CNIError(ErrorCode.TRY_AGAIN_LATER, f"{who} is being worked on")
        if conf.delegate:
            delegate.ask(conf.delegate, Verb.CHECK, request, call, timeout=deadline.left())
        record = held_record(who, node)
        with open_sandbox(request, call, node) as pod:
            _report(_faults(record, conf, call, pod, node))
    return b""


def held_record(who: Attachment, node: Node) -> Record:
    """The record of a live attachment; CNIError 3 where there is none."""
    record = node.leases.find(who)
    if record is None or record.state is not State.HELD:
        raise CNIError(ErrorCode.UNKNOWN_CONTAINER, f"no attachment {who} is known")
    return record


def _report(faults: list[str]) -> None:
    if faults:
        raise CNIError(ErrorCode.CHECK_FAILED, faults[0], "; ".join(faults[1:]))


def _faults(record: Record, conf: NetConf, call: Call, pod: OpenSandbox, node: Node) -> list[str]:
    what = spec.of(record)
    wanted = attachment.plan(record.who, what, started_ns=record.started_ns, seed=node.seed)
    assert conf.prev_result is not None
    if record.netns_cookie and pod.cookie and record.netns_cookie != pod.cookie:
        return [f"{call.netns} is another namespace than at ADD"]
    pod_side = node.links.observe_pod(pod, call.ifname)
    if pod_side is None:
        return [f"interface {call.ifname} is not in {call.netns}"]
    return [
        *_result_faults(conf.prev_result, wanted, call, pod_side),
        *pod_faults(wanted, pod_side),
        *_pair_faults(wanted, pod_side, node),
        *host_faults(wanted, node),
        *publication_faults(record, what, node),
    ]


def _result_faults(previous: Result, wanted: Sandbox, call: Call, pod_side: PodSide) -> list[str]:
    """prevResult against what is there: sandbox and MAC of the interfaces we made."""
    listed = {
        (interface.name, bool(interface.sandbox)): interface for interface in previous.interfaces
    }
    ours: Interface | None = listed.get((call.ifname, True))
    if ours is None:
        return [f"prevResult does not list interface {call.ifname}"]
    faults = []
    if ours.sandbox != call.netns:
        faults.append(f"prevResult's sandbox {ours.sandbox} is not CNI_NETNS {call.netns}")
    if ours.mac and ours.mac.lower() != pod_side.link.mac:
        faults.append(
            f"Interface {call.ifname} Mac {ours.mac} doesn't match container Mac: "
            f"{pod_side.link.mac}"
        )
    if (wanted.veth.host_name, False) not in listed:
        faults.append(f"prevResult does not list {wanted.veth.host_name}")
    return faults


def pod_faults(wanted: Sandbox, pod_side: PodSide) -> list[str]:
    """What the pod side lacks; what other plugins added is theirs."""
    faults = []
    if pod_side.link.kind != "veth":
        faults.append(f"interface {pod_side.link.name} is a {pod_side.link.kind}, not a veth")
    if wanted.enabled and not pod_side.link.up:
        faults.append(f"interface {pod_side.link.name} is down")
    if wanted.veth.mtu and pod_side.link.mtu > wanted.veth.mtu:
        faults.append(f"{pod_side.link.name} has MTU {pod_side.link.mtu}, not {wanted.veth.mtu}")
    present = {found.address for found in pod_side.addresses}
    faults += [
        f"Failed to match addr {address} on interface {pod_side.link.name}"
        for address in wanted.addresses
        if address not in present
    ]
    if wanted.enabled:
        faults += [
            f"route {_route_text(route)} is missing"
            for route in wanted.pod_routes
            if not any(_serves(found, route) for found in pod_side.routes)
        ]
    return faults


def _pair_faults(wanted: Sandbox, pod_side: PodSide, node: Node) -> list[str]:
    link = node.links.find(wanted.veth.host_name)
    if link and (link.index, link.peer) != (pod_side.link.peer, pod_side.link.index):
        return [f"{link.name} is not the peer of {pod_side.link.name}"]
    return []


def host_faults(
    wanted: Sandbox,
    node: Node,
    *,
    link: rtnl.Link | None = None,
    routes: Mapping[IPNetwork, int] | None = None,
) -> list[str]:
    """What the host's side of a pair, or its bridge, lacks.

    *link* and *routes* (destination to link index) are read where the caller has not.
    """
    link = link or node.links.find(wanted.veth.host_name)
    if link is None:
        return [f"host side {wanted.veth.host_name} is missing"]
    faults = [] if link.up else [f"{link.name} is down"]
    if wanted.bridge:
        return faults + _bridge_faults(link, wanted, wanted.bridge, node)
    present = node.links.addresses(link.index)
    faults += [
        f"{link.name} lacks gateway address {address}"
        for address in wanted.host_addresses
        if address not in present
    ]
    routes = node.links.host_routes() if routes is None else routes
    return faults + [
        f"host route {dst} to {link.name} is missing"
        for dst in wanted.host_routes
        if routes.get(dst) != link.index
    ]


def _bridge_faults(link: rtnl.Link, wanted: Sandbox, made: Bridge, node: Node) -> list[str]:
    bridge = node.links.find(made.name)
    if bridge is None or bridge.kind != "bridge":
        return [f"bridge {made.name} is missing"]
    faults = []
    if link.master != bridge.index:
        faults.append(f"{link.name} is not a port of {bridge.name}")
    if not bridge.up:
        faults.append(f"bridge {bridge.name} is down")
    if made.promiscuous and not bridge.promiscuous:
        faults.append(f"bridge {bridge.name} is not promiscuous")
    if (link.hairpin, link.isolated) != (wanted.port.hairpin, wanted.port.isolated):
        faults.append(f"{link.name} has not the hairpin or isolation it was given")
    present = node.links.addresses(bridge.index)
    return faults + [
        f"bridge {bridge.name} lacks gateway address {address}"
        for address in made.addresses
        if address not in present
    ]


def publication_faults(record: Record, what: Spec, node: Node) -> list[str]:
    """What nftables and traffic control lack."""
    faults = []
    if what.masquerade or what.port_mappings or what.mac_spoof_check:
        faults += node.publications.missing(attachment.published(record, what, node.pools))
    name = attachment.host_name(record.who)
    if what.bandwidth and not node.host.shaped(name, what.bandwidth):
        faults.append(f"the rate limits of {name} are not in force")
    return faults


def _serves(found: rtnl.KernelRoute, wanted: Route) -> bool:
    if found.dst != wanted.dst or (wanted.table and found.table != wanted.table):
        return False
    return wanted.via is None or found.via == wanted.via


def _route_text(route: Route) -> str:
    return f"{route.dst} via {route.via}" if route.via else str(route.dst)
