"""ADD: attach one sandbox, or leave no trace of having tried."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from cni import attachment, delegate, delete, former
from cni.config import NetConf, parse
from cni.document import decode as decode_json
from cni.environment import Call, Verb
from cni.errors import CNIError, ErrorCode
from cni.link_config import Mode
from cni.node import Deadline, Node
from cni.request import Request
from cni.resolv import read_resolv_conf
from cni.result import DNS, IPConfig, Result, encode
from cni.result import parse as parse_result
from cni.sandbox import open_sandbox, refuse_own_namespace
from cni.spec import Delegate, Spec, pod_key
from cni.spec import encode as encode_spec
from cni.spec import of as spec_of
from cni.wishes import IFNAME, applied
from dataplane.links import InterfaceExists, exists
from dataplane.model import Sandbox
from dataplane.netns import Sandbox as OpenSandbox
from ipam.errors import NoFreeAddress
from ipam.leases import Attachment, Lease, Record, State, Wanted

LOOK_UP_S = 2.0
"""How long an ADD waits for the API server to tell of a pod that it has not told of by itself."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One ADD: what was asked, of which node, and for whom."""

    request: Request
    call: Call
    conf: NetConf
    node: Node
    deadline: Deadline
    who: Attachment


@dataclass(frozen=True, slots=True)
class _Given:
    """What the IPAM said; *leases* are ours, *asked* is the foreign plugin that was asked."""

    result: Result
    leases: tuple[Lease, ...] = ()
    asked: Delegate | None = None


def add(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Make the attachment and return its result.

    Each undo is registered before the step it undoes: a step that raised may still have
    happened, and every undo is idempotent.  The lease is on disk before the host side opens,
    and so before anybody is told.
    """
    conf = wished(parse(request.stdin, call), call.ifname, node, deadline)
    refuse_own_namespace(request, call, node)
    who = Attachment(conf.name, call.container_id, call.ifname)
    job = _Job(request, call, conf, node, deadline, who)
    with node.locks.hold(who, timeout=deadline.left()) as held, ExitStack() as undo:
        if not held:
            raise CNIError(ErrorCode.TRY_AGAIN_LATER, f"{who} is being worked on")
        delete.replay_of(who, node, before_ns=request.started_ns)
        with open_sandbox(request, call, node) as pod:
            _make_way(who, pod, node)
            undo.push(partial(_undo, who, node))
            given = _addresses(job, pod, undo)
            spec = attachment.design(
                who, conf, given.result, uplink_mtu=node.host.uplink_mtu(), delegate=given.asked
            )
            bridge_mac = _build(job, spec, given.leases, pod)
        dns = given.result.dns if conf.dns is None else conf.dns
        made = attachment.result(who, spec, sandbox=call.netns, bridge_mac=bridge_mac, dns=dns)
        # Not every result has a form in every version: then nothing stays, either.
        out = encode((conf.prev_result or Result()).extended(made), conf.cni_version)
        undo.pop_all()
    return out


def wished(conf: NetConf, ifname: str, node: Node, deadline: Deadline) -> NetConf:
    """*conf* with what the pod's annotations ask for.  CNIError 2, 7 or 11."""
    pod = conf.requested.pod
    if node.kubernetes is None or not pod.name or ifname != IFNAME:
        return conf
    within_s = min(LOOK_UP_S, deadline.left())
    return applied(conf, node.kubernetes.wishes(pod, within_s=within_s))


def _undo(who: Attachment, node: Node, _: object, failure: object, __: object) -> None:
    """Undo an ADD that failed; a pair that was in its way is not its own to take off."""
    if isinstance(failure, InterfaceExists):
        node.leases.abandon(who)
    else:
        abandon(who, node)


def abandon(who: Attachment, node: Node) -> None:
    """Take off all that an ADD of *who* made; its addresses wait for its next ADD."""
    record = node.leases.find(who)
    with ExitStack() as steps:
        steps.callback(node.leases.abandon, who)
        steps.callback(node.publications.withdraw, who)
        if record and spec_of(record).bandwidth:
            steps.callback(node.host.unshape, attachment.host_name(who))
        steps.callback(node.links.detach, attachment.host_name(who))


def _make_way(who: Attachment, pod: OpenSandbox, node: Node) -> None:
    """Refuse a second ADD of a live attachment; clear what is left of one that is dead.

    It is dead when its sandbox is another than this one, or its pair is gone or was never
    finished: runtimes that crashed start anew without a DEL.
    """
    former = node.leases.find(who)
    if former is None or former.state is State.RESERVED:
        return
    link = node.links.find(attachment.host_name(who))
    # An adopted attachment's cookie is not known: what lives under its key is taken for it.
    same = former.boot_id == node.boot_id and former.netns_cookie in (0, pod.cookie)
    if same and link and link.alias:
        raise exists(attachment.plan(who, Spec(), started_ns=0).veth)
    node.links.detach(attachment.host_name(who))
    node.publications.withdraw(who)
    if asked := spec_of(former).delegate:
        # It would refuse to give a second address to what it takes for the same interface.
        delegate.tell_end(asked, who)


def _addresses(job: _Job, pod: OpenSandbox, undo: ExitStack) -> _Given:
    """Ask whoever gives addresses: nobody, a foreign plugin, or our allocator."""
    request, call, conf = job.request, job.call, job.conf
    if conf.ipam is None:
        return _Given(Result())
    if kind := conf.delegate:
        asked = delegate.remember(kind, request, call)
        # On disk before it is asked: should this process end on the way, nobody else knows.
        promise = job.node.leases.hold(_record(job, Spec(delegate=asked), (), pod))
        promise.result(timeout=job.deadline.left())
        undo.callback(delegate.undo_add, kind, request, call)
        out = delegate.ask(kind, Verb.ADD, request, call, timeout=job.deadline.left())
        result = parse_result(decode_json(out, f"{kind}'s result"), conf.cni_version)
        if not result.ips:
            raise CNIError(ErrorCode.INVALID_CONFIG, "IPAM plugin returned missing IP config", kind)
        return _Given(result, asked=asked)
    leases = reserve(job.who, conf, job.node)
    ips = tuple(IPConfig(address=lease.address, gateway=lease.gateway) for lease in leases)
    dns = read_resolv_conf(conf.ipam.resolv_conf) if conf.ipam.resolv_conf else DNS()
    return _Given(Result(ips=ips, routes=conf.ipam.routes, dns=dns), leases)


def reserve(who: Attachment, conf: NetConf, node: Node) -> tuple[Lease, ...]:
    """Ask our allocator: for what is in *conf*, or for the node's blocks of a pool.

    What another plugin turns out to have given is held as that, and another address chosen.
    """
    while True:
        leases = _reserve(who, conf, node)
        try:
            others = former.in_the_way(who, leases, node)
        except OSError as exc:
            raise CNIError(
                ErrorCode.TRY_AGAIN_LATER, "host-local's addresses cannot be looked at", str(exc)
            ) from exc
        if not others:
            return leases
        node.leases.release(who)
        _, faults = former.hold(others, node)
        if faults:
            raise CNIError(ErrorCode.TRY_AGAIN_LATER, "addresses of others", "; ".join(faults))


def _reserve(who: Attachment, conf: NetConf, node: Node) -> tuple[Lease, ...]:
    ipam = conf.ipam
    assert ipam is not None
    requested = conf.requested.addresses
    if not ipam.from_blocks:
        wanted = Wanted(range_sets=ipam.range_sets, requested=requested, excluded=ipam.reservations)
        return node.leases.reserve(who, wanted)
    if node.blocks is None:
        raise CNIError(
            ErrorCode.INVALID_CONFIG,
            "no ranges in ipam",
            "give it a subnet, or a list of ranges: no ipamd is configured to get blocks from",
        )
    wanted = node.blocks.wanted(
        ipam.pools,
        bridge="" if conf.link.mode is Mode.ROUTED else conf.link.bridge,
        network=who.network,
        pod=pod_key(who, conf.requested.pod),
        requested=requested,
    )
    if ipam.reservations:
        wanted = replace(wanted, excluded=wanted.excluded + ipam.reservations)
    try:
        return node.leases.reserve(who, wanted)
    except NoFreeAddress as exc:
        raise node.blocks.exhaustion(ipam.pools, exc) from exc


def _build(job: _Job, spec: Spec, leases: tuple[Lease, ...], pod: OpenSandbox) -> str:
    """Disk and kernel at the same time; the host side opens when both are done.

    Returns the MAC of the bridge, if there is one.
    """
    node = job.node
    record = _record(job, spec, leases, pod)
    sandbox = attachment.plan(job.who, spec, started_ns=record.started_ns, seed=node.seed)
    job.deadline.check("the lease is written")
    durable = node.leases.hold(record)
    reused = [lease.address.ip for lease in leases if lease.reused]
    for address in reused:
        node.host.forget_flows(address)
    node.links.attach(sandbox, pod)
    _serve_neighbours(record, spec, sandbox, node)
    durable.result(timeout=job.deadline.left())
    job.deadline.check("the host side is opened")
    node.links.complete(sandbox, pod)
    if reused:
        node.links.announce(sandbox, pod, reused)
    return node.links.ensure_bridge(sandbox.bridge).mac if sandbox.bridge else ""


def _serve_neighbours(record: Record, spec: Spec, sandbox: Sandbox, node: Node) -> None:
    """What the rest of the host does for the pod: limits, forwarding, translation."""
    name = sandbox.veth.host_name
    if spec.bandwidth:
        node.host.shape(name, spec.bandwidth)
    forward(spec, node)
    if spec.masquerade or spec.port_mappings or spec.mac_spoof_check:
        node.publications.publish(attachment.published(record, spec, node.pools))
    # After the rule is there that keeps everybody else from using it.
    let_localhost_in(spec, name, node)


def forward(spec: Spec, node: Node) -> None:
    """Let the host route packets of this attachment, if it has any to route."""
    if spec.ips and (spec.bridge is None or spec.bridge.gateway):
        node.host.enable_forwarding(frozenset(ip.address.version for ip in spec.ips))


def let_localhost_in(spec: Spec, host_name: str, node: Node) -> None:
    """Let the host's own 127.0.0.1:port reach the pod, if a port of the host is its."""
    if not spec.port_mappings:
        return
    if spec.bridge:
        node.host.allow_localhost_mappings(spec.bridge.name, lasting=True)
    else:
        node.host.allow_localhost_mappings(host_name, lasting=False)


def _record(job: _Job, spec: Spec, leases: tuple[Lease, ...], pod: OpenSandbox) -> Record:
    return Record(
        who=job.who,
        boot_id=job.request.boot_id,
        started_ns=job.request.started_ns,
        sandbox=pod.path,
        netns_cookie=pod.cookie,
        addresses=tuple(lease.address for lease in leases),
        spec=encode_spec(spec),
    )
