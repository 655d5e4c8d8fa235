"""From one raw request to one raw answer: the verb table, and the one place where errors end."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout

from cni import add, check, delete, gc, ipam_plugin, status
from cni.config import Program, version_of
from cni.environment import Call, Verb
from cni.environment import check as check_environment
from cni.errors import CNIError, ErrorCode, error_document
from cni.node import Deadline, Node
from cni.request import Request, Response
from cni.versions import VERSION_DOCUMENT
from dataplane.errors import DataplaneError, DumpInterrupted, NetlinkError, NftUnavailable
from dataplane.links import InterfaceExists
from ipam.errors import (
    AddressUnavailable,
    IPAMError,
    NoFreeAddress,
    NotServed,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

_Verb = Callable[[Request, Call, Node, Deadline], bytes]

_VERBS: Mapping[Program, Mapping[Verb, _Verb]] = {
    Program.MAIN: {
        Verb.ADD: add.add,
        Verb.DEL: delete.delete,
        Verb.CHECK: check.check,
        Verb.GC: gc.gc,
        Verb.STATUS: status.status,
    },
    Program.IPAM: {
        Verb.ADD: ipam_plugin.add,
        Verb.DEL: ipam_plugin.remove,
        Verb.CHECK: ipam_plugin.check,
        Verb.GC: gc.gc,
        Verb.STATUS: status.status,
    },
}

# Seconds; each is below what the launcher waits, so that we undo before it gives up.
LIMITS: Mapping[Verb, float] = {
    Verb.ADD: 20.0,
    Verb.DEL: 10.0,
    Verb.CHECK: 20.0,
    Verb.GC: 20.0,
    Verb.STATUS: 2.0,
}


def serve(request: Request, node: Node) -> Response:
    """Answer *request*; never raises.  A success is one result or nothing, else one error."""
    try:
        call = check_environment(request.environment)
        if call.command is Verb.VERSION:
            return Response(0, VERSION_DOCUMENT)
        verbs = _VERBS[Program.IPAM if request.program == Program.IPAM else Program.MAIN]
        limit = Deadline(node.now() + int(LIMITS[call.command] * 1e9), node.now)
        return Response(0, verbs[call.command](request, call, node, limit))
    except Exception as exc:  # noqa: BLE001 - the edge: whatever happened, one JSON error
        return failure(exc, request.stdin)


def failure(exc: Exception, stdin: bytes = b"") -> Response:
    """The answer that *exc* is, in the version of the configuration on *stdin*."""
    error = as_cni_error(exc)
    if error.code == ErrorCode.INTERNAL and error is not exc:
        log.error("bug", exc_info=exc)
    return Response(1, error_document(error, version_of(stdin)))


def as_cni_error(exc: Exception) -> CNIError:
    """Put a number on what went wrong."""
    if isinstance(exc, CNIError):
        return exc
    for kind, code in _CODES:
        if isinstance(exc, kind):
            return CNIError(code, str(exc) or "out of time")  # as a wait that ended is
    return CNIError(ErrorCode.INTERNAL, "internal error", "see the agent's log")


_CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (NoFreeAddress, ErrorCode.NO_FREE_ADDRESS),
    (AddressUnavailable, ErrorCode.ADDRESS_IN_USE),
    (NotServed, ErrorCode.TRY_AGAIN_LATER),
    (StoreUnavailable, ErrorCode.TRY_AGAIN_LATER),
    (IPAMError, ErrorCode.INVALID_CONFIG),
    (InterfaceExists, ErrorCode.INTERFACE_EXISTS),
    (DumpInterrupted, ErrorCode.TRY_AGAIN_LATER),
    (NftUnavailable, ErrorCode.DATAPLANE),
    (NetlinkError, ErrorCode.DATAPLANE),
    (DataplaneError, ErrorCode.DATAPLANE),
    (FutureTimeout, ErrorCode.TRY_AGAIN_LATER),
    # Out of descriptors or memory: it passes, and it is no bug.
    (OSError, ErrorCode.TRY_AGAIN_LATER),
)
