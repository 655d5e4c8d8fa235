"""`isthmus-ipam`: the same allocator for the interfaces of other plugins (SPEC.md, section 4).

No link is made and none is looked at: the attachment is alive as long as its namespace is.
"""

from contextlib import ExitStack

from cni import attachment, delete
from cni.add import reserve, wished
from cni.check import held_record
from cni.config import Program, identify, parse
from cni.environment import Call, Verb
from cni.errors import CNIError, ErrorCode
from cni.node import Deadline, Node
from cni.request import Request
from cni.resolv import read_resolv_conf
from cni.result import DNS, IPConfig, encode
from cni.sandbox import leads_to
from cni.spec import Spec
from cni.spec import encode as encode_spec
from dataplane.errors import InvalidNamespace
from ipam.leases import Attachment, Record, State

_PASSING = ("/proc/self/", "/proc/thread-self/")


def add(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Lease an address from each range set; on disk before the answer."""
    conf = wished(parse(request.stdin, call, Program.IPAM), call.ifname, node, deadline)
    assert conf.ipam is not None
    who = Attachment(conf.name, call.container_id, call.ifname)
    with node.locks.hold(who, timeout=deadline.left()) as held, ExitStack() as undo:
        _check_held(held, who)
        delete.replay_of(who, node, before_ns=request.started_ns)
        cookie = _cookie(request, call, node)
        former = node.leases.find(who)
        if former and former.state is State.HELD and _is_same(former, cookie, node):
            addresses = ", ".join(str(address) for address in former.addresses)
            raise CNIError(
                ErrorCode.ADDRESS_IN_USE,
                f"{addresses} has been allocated to {who}, duplicate allocation is not allowed",
            )
        undo.callback(node.leases.abandon, who)
        leases = reserve(who, conf, node)
        ips = tuple(IPConfig(address=lease.address, gateway=lease.gateway) for lease in leases)
        record = Record(
            who=who,
            boot_id=request.boot_id,
            started_ns=request.started_ns,
            sandbox=call.netns,
            netns_cookie=cookie,
            addresses=tuple(lease.address for lease in leases),
            spec=encode_spec(Spec(link=False, ips=ips, pod=conf.requested.pod)),
        )
        node.leases.hold(record).result(timeout=deadline.left())
        for lease in leases:
            if lease.reused:
                node.host.forget_flows(lease.address.ip)
        dns = read_resolv_conf(conf.ipam.resolv_conf) if conf.ipam.resolv_conf else DNS()
        out = encode(attachment.ipam_result(leases, conf.ipam.routes, dns), conf.cni_version)
        undo.pop_all()
    return out


def remove(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Give the addresses of this key back; unknown is fine."""
    network = identify(request.stdin, Verb.DEL)
    who = Attachment(network.name, call.container_id, call.ifname)
    with node.locks.hold(who, timeout=deadline.left()) as held:
        _check_held(held, who)
        delete.release(who, request, node)
    return b""


def check(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Raise CNIError where this key holds nothing."""
    network = identify(request.stdin, Verb.CHECK)
    held_record(Attachment(network.name, call.container_id, call.ifname), node)
    return b""


def _check_held(held: bool, who: Attachment) -> None:
    if not held:
        raise CNIError(ErrorCode.TRY_AGAIN_LATER, f"{who} is being worked on")


def _is_same(former: Record, cookie: int, node: Node) -> bool:
    return former.boot_id == node.boot_id and former.netns_cookie == cookie


def _cookie(request: Request, call: Call, node: Node) -> int:
    """The namespace's cookie, or 0: an IPAM plugin may be asked without a namespace.

    0 as well where the path does not lead there from here, or only for now (another plugin's
    own descriptor): what cannot be found again must not look dead.
    """
    fd, path = request.netns_fd, call.netns
    if fd is not None and (path.startswith(_PASSING) or not leads_to(path, fd)):
        return 0
    try:
        with node.open_sandbox(call.netns, request.netns_fd) as pod:
            return pod.cookie
    except InvalidNamespace:
        return 0
