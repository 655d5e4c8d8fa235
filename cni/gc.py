"""GC: end every attachment of one network that its runtime does not list as valid.

Scoped by network name.  The runtime promises that no ADD or DEL of its own runs meanwhile; what
was added since this GC began stays all the same, as it cannot be in the list.
"""

import logging

from cni import delegate, delete
from cni.config import identify
from cni.environment import Call, Verb
from cni.errors import CNIError, ErrorCode
from cni.node import Deadline, Node
from cni.request import Request
from dataplane.errors import DataplaneError
from ipam.errors import IPAMError
from ipam.leases import Attachment

log = logging.getLogger(__name__)


def gc(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Clean as much as can be; CNIError 11 at the end where something could not.

    A list that is absent (cnitool sends none) proves nothing about anybody: then only what
    reconciliation finds dead is ended, at its own time.
    """
    network = identify(request.stdin, Verb.GC)
    faults: list[str] = []
    if network.valid_attachments is not None:
        for record in node.leases.of_network(network.name):
            is_valid = record.who in network.valid_attachments
            if not is_valid and not delete.is_newer(record, request, node.boot_id):
                faults += _end(record.who, request, node, deadline)
    if network.delegate:
        try:
            delegate.ask(network.delegate, Verb.GC, request, call, timeout=deadline.left())
        except CNIError as exc:
            # Older plugins know no GC, and say so by refusing the verb.
            if exc.code != ErrorCode.INVALID_ENVIRONMENT:
                faults.append(str(exc))
    if faults:
        raise CNIError(ErrorCode.TRY_AGAIN_LATER, "not all could be cleaned", "; ".join(faults))
    return b""


def _end(who: Attachment, request: Request, node: Node, deadline: Deadline) -> list[str]:
    with node.locks.hold(who, timeout=deadline.left()) as held:
        record = node.leases.find(who) if held else None
        if record is None:
            return [] if held else [f"{who} is being worked on"]
        # Somebody may have been adding it until now.
        if delete.is_newer(record, request, node.boot_id):
            return []
        try:
            delete.end_unasked(record, node)
        except (DataplaneError, IPAMError) as exc:
            return [f"{who}: {exc}"]
    log.info("attachment collected", extra={"attachment": str(who)})
    return []
