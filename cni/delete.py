"""DEL: take an attachment off, whatever is left of it, by its owner's key alone."""

import logging
from contextlib import ExitStack

from cni import attachment, delegate, spec
from cni.config import Network, Program, identify
from cni.environment import Call, Verb, check
from cni.errors import CNIError, ErrorCode
from cni.node import Deadline, Node
from cni.request import Request
from cni.sandbox import refuse_own_namespace
from ipam.errors import StoreUnavailable
from ipam.leases import Attachment, Record

log = logging.getLogger(__name__)

_WRITTEN_S = 8.0  # a disk that takes longer hangs, and a DEL has ten seconds


def delete(request: Request, call: Call, node: Node, deadline: Deadline) -> bytes:
    """Undo an ADD that started before this DEL did; success where there is nothing to undo.

    The namespace is not entered: the pair is found by the name its key gives, and goes from
    the host's side.
    """
    network = identify(request.stdin, Verb.DEL)
    refuse_own_namespace(request, call, node)
    who = Attachment(network.name, call.container_id, call.ifname)
    with node.locks.hold(who, timeout=deadline.left()) as held:
        if not held:
            raise CNIError(ErrorCode.TRY_AGAIN_LATER, f"{who} is being worked on")
        _delete(request, call, network, node, deadline)
    return b""


def replay_of(who: Attachment, node: Node, *, before_ns: int) -> None:
    """Carry out the spooled deletions of *who*, whose lock the caller holds.

    Raises CNIError 11 where one of them, or one done already, is newer than the ADD that started
    at *before_ns*: nobody waits for that ADD any more.
    """
    try:
        for entry in node.spool.pending():
            if key_of(entry.request) != who:
                continue
            if entry.request.boot_id == node.boot_id and entry.request.started_ns > before_ns:
                raise _superseded(who)
            replay(entry.request, node)
            node.spool.remove(entry)
    except OSError as exc:
        raise CNIError(
            ErrorCode.TRY_AGAIN_LATER, "waiting deletions cannot be read or removed", str(exc)
        ) from exc
    if node.departed.since(who, before_ns):
        raise _superseded(who)


def replay(request: Request, node: Node) -> None:
    """Carry out one spooled deletion of a key whose lock the caller holds."""
    call = check(request.environment)
    if request.program == Program.IPAM:
        release(Attachment(identify(request.stdin, Verb.DEL).name, *_key(call)), request, node)
        return
    limit = Deadline(node.now() + 10_000_000_000, node.now)
    _delete(request, call, identify(request.stdin, Verb.DEL), node, limit)


def key_of(request: Request) -> Attachment | None:
    """Whom an ADD or DEL is about, or None where it does not say."""
    try:
        call = check(request.environment)
        return Attachment(identify(request.stdin, Verb.DEL).name, *_key(call))
    except CNIError:
        return None


def end(record: Record, node: Node) -> None:
    """Take off all of *record*; for DEL, GC and reconciliation.  The caller holds its lock.

    Every step is tried, and the lease is the last: an address is free only when nothing of
    its owner is left.
    """
    what = spec.of(record)
    name = attachment.host_name(record.who)
    if what.link:
        with ExitStack() as steps:
            steps.callback(node.publications.withdraw, record.who)
            if what.bandwidth:
                steps.callback(node.host.unshape, name)
            steps.callback(node.links.detach, name)
    _release(record.who, node)


def end_unasked(record: Record, node: Node) -> None:
    """The same where no runtime asks for it: a foreign IPAM plugin hears of it from us."""
    end(record, node)
    if asked := spec.of(record).delegate:
        delegate.tell_end(asked, record.who)


def release(who: Attachment, request: Request, node: Node) -> None:
    """Give back what `isthmus-ipam` gave to *who*, unless an ADD since then got it."""
    record = node.leases.find(who)
    if record is None:
        _forget(who, request, node)
    elif not is_newer(record, request, node.boot_id):
        end(record, node)


def is_newer(record: Record, request: Request, boot_id: str) -> bool:
    """Whether *record* is of an ADD that started after *request* did; *boot_id* is today's."""
    if record.boot_id == request.boot_id:
        return record.started_ns > request.started_ns
    return record.boot_id == boot_id


def _delete(request: Request, call: Call, network: Network, node: Node, deadline: Deadline) -> None:
    who = Attachment(network.name, call.container_id, call.ifname)
    record = node.leases.find(who)
    if record and is_newer(record, request, node.boot_id):
        log.info("old DEL ignored", extra={"attachment": str(who)})
        return
    if record and spec.of(record).former:
        _let_go(who, node)
    elif record:
        end(record, node)
    else:
        _let_go(who, node)
        _clear_unrecorded(who, request, node)
        _forget(who, request, node)
    if network.delegate:
        delegate.ask(network.delegate, Verb.DEL, request, call, timeout=deadline.left())


def _let_go(who: Attachment, node: Node) -> None:
    """Of a pod that a former network left: free in its directory, and with us once it is unused.

    Runtimes tell whichever network there is by now.
    """
    try:
        if node.host_local:
            node.host_local.release(who.container_id, who.ifname)
    except OSError as exc:
        raise CNIError(
            ErrorCode.TRY_AGAIN_LATER, "host-local's addresses cannot be freed", str(exc)
        ) from exc


def _forget(who: Attachment, request: Request, node: Node) -> None:
    """Let go of what a failed ADD chose and never wrote; be ready for an ADD that comes late."""
    if request.boot_id == node.boot_id:
        node.departed.note(who, request.started_ns, now_ns=node.now())
    _release(who, node)


def _release(who: Attachment, node: Node) -> None:
    try:
        node.leases.release(who).result(timeout=_WRITTEN_S)
    except TimeoutError as exc:
        raise StoreUnavailable(
            f"the release of {who} is not on disk after {_WRITTEN_S:g} s"
        ) from exc


def _superseded(who: Attachment) -> CNIError:
    return CNIError(ErrorCode.TRY_AGAIN_LATER, "superseded by a later DEL", str(who))


def _clear_unrecorded(who: Attachment, request: Request, node: Node) -> None:
    """Remove a pair that no record tells of: an ADD was cut off, or the store was lost."""
    name = attachment.host_name(who)
    link = node.links.find(name)
    if link is None:
        return
    adopted = attachment.record_of_alias(link.alias, boot_id=node.boot_id)
    if adopted and is_newer(adopted, request, node.boot_id):
        return
    node.links.detach(name)
    node.publications.withdraw(who)


def _key(call: Call) -> tuple[str, str]:
    return call.container_id, call.ifname
