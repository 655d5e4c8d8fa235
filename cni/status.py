"""STATUS: whether an ADD could be served now, answered from memory."""

from cni import delegate
from cni.config import Network, Program, identify, parse
from cni.environment import Call, Verb
from cni.errors import CNIError, ErrorCode
from cni.link_config import Mode
from cni.node import Deadline, Node
from cni.request import Request
from ipam.errors import IPAMError


def status(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Silence is yes; CNIError 50 says why not, 51 where pods are cut off as well.

    Containerd asks every five seconds, without a time limit of its own and under a lock.
    """
    network = identify(request.stdin, Verb.STATUS)
    if reason := node.ready() or _lacks_blocks(request, call, network, node):
        cut_off = node.blocks is not None and node.blocks.cut_off()
        code = ErrorCode.LIMITED_CONNECTIVITY if cut_off else ErrorCode.NOT_AVAILABLE
        raise CNIError(code, reason)
    if network.delegate:
        if not call.path:
            return b""
        delegate.ask(network.delegate, Verb.STATUS, request, call, timeout=deadline.left())
    return b""


def _lacks_blocks(request: Request, call: Call, network: Network, node: Node) -> str:
    """Why the network has no block to give from, where it needs one, or "".

    CNIError 7 or 2 for a configuration that no ADD would take.
    """
    if node.blocks is None or network.delegate:
        return ""
    is_ipam = request.program == Program.IPAM
    conf = parse(request.stdin, call, Program.IPAM if is_ipam else Program.MAIN)
    if conf.ipam is None or not conf.ipam.from_blocks:
        return ""
    bridge = "" if conf.link.mode is Mode.ROUTED else conf.link.bridge
    try:
        node.blocks.wanted(conf.ipam.pools, bridge=bridge, network=conf.name)
    except IPAMError as exc:
        return str(exc)
    return ""
