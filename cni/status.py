"""STATUS: whether an ADD could be served now, answered from memory."""

from cni import delegate
from cni.config import identify
from cni.environment import Call, Verb
from cni.errors import CNIError, ErrorCode
from cni.node import Deadline, Node
from cni.request import Request


def status(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Silence is yes; CNIError 50 says why not.

    Containerd asks every five seconds, without a time limit of its own and under a lock.
    """
    network = identify(request.stdin, Verb.STATUS)
    if reason := node.ready():
        raise CNIError(ErrorCode.NOT_AVAILABLE, reason)
    if network.delegate:
        if not call.path:
            return b""
        delegate.ask(network.delegate, Verb.STATUS, request, call, timeout=deadline.left())
    return b""
