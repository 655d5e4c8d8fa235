"""Take back an ADD whose answer nobody got: its runtime died, and may never send a DEL."""

import logging

from cni import add, delegate, delete, spec
from cni.node import Node
from cni.request import Request
from ipam.leases import Record, State

log = logging.getLogger(__name__)


def undelivered(request: Request, node: Node) -> None:
    """Undo what the ADD *request* made, unless a later ADD of its key came in between.

    Links and rules go; the lease stays as a reservation for the key's next ADD.
    """
    who = delete.key_of(request)
    if who is None:
        return
    with node.locks.hold(who):
        record = node.leases.find(who)
        if record is None or not _is_of(record, request):
            return
        log.warning("ADD could not be delivered and is undone", extra={"attachment": str(who)})
        what = spec.of(record)
        if what.delegate:
            delegate.tell_end(what.delegate, who)
        if what.link:
            add.abandon(who, node)
        else:
            node.leases.abandon(who).result()


def _is_of(record: Record, request: Request) -> bool:
    return (
        record.state is State.HELD
        and record.boot_id == request.boot_id
        and record.started_ns == request.started_ns
    )
