"""One call served without an agent.

It takes the lock on the state directory, replays the spool, does its verb, and goes.  Where an
agent or another program has the lock for too long, DEL is spooled and the others fail with 11
(STATUS: 50).
"""

import os
import sys
from pathlib import Path

from agent.boot import boot_id, now_ns
from agent.config import AgentConfig, load
from agent.standalone import deliver, environment
from agent.wiring import StateLocked, Wired, wire_within
from cni import undo
from cni.config import identify
from cni.dispatch import failure, serve
from cni.environment import Verb
from cni.errors import CNIError, ErrorCode
from cni.frames import MAX_BODY
from cni.request import Request, Response
from cni.spool import Spool
from dataplane.errors import DataplaneError
from net.settings import ConfigError

_LOCK_WAIT_S = 5.0


def serve_one() -> int:
    """Serve the request in environment and stdin; returns the exit status."""
    stdin = b""
    try:
        stdin = _read_stdin()
        request = _request(stdin)
        config = _config()
        wired = _wire(config)
    except StateLocked as exc:
        return _answer(_locked_out(request, config, exc))
    except Exception as exc:  # noqa: BLE001 - the edge: whatever happened, one JSON error
        return _answer(failure(exc, stdin))
    try:
        return _serve(request, wired)
    finally:
        wired.close()


def _read_stdin() -> bytes:
    """All of stdin, or what is more than can be a configuration, which is refused later."""
    try:
        with open(0, "rb", closefd=False) as stdin:
            return stdin.read(MAX_BODY)
    except OSError as exc:
        raise CNIError(ErrorCode.IO_FAILURE, f"error reading from stdin: {exc.strerror}") from exc


def _request(stdin: bytes) -> Request:
    variables = environment()
    started = variables.get("ISTHMUS_STARTED_NS", "")
    own = os.stat("/proc/self/ns/net")
    return Request(
        program=os.path.basename(sys.argv[0]),
        environment=variables,
        stdin=stdin,
        started_ns=int(started) if started.isdecimal() else now_ns(),
        boot_id=boot_id(),
        caller_netns=(own.st_dev, own.st_ino),
    )


def _config() -> AgentConfig:
    chosen = os.environ.get("ISTHMUS_CONFIG")
    try:
        return load(Path(chosen) if chosen else None)
    except ConfigError as exc:
        raise CNIError(ErrorCode.INVALID_CONFIG, "invalid agent configuration", str(exc)) from exc


def _wire(config: AgentConfig) -> Wired:
    """Build the node once the lock is ours.  Raises StateLocked, CNIError."""
    try:
        return wire_within(config, _LOCK_WAIT_S)
    except (DataplaneError, OSError) as exc:
        raise CNIError(_unable(), "cannot start", str(exc)) from exc


def _unable() -> ErrorCode:
    """How to say that this call cannot be served now: STATUS has a code of its own."""
    is_status = os.environ.get("CNI_COMMAND") == Verb.STATUS
    return ErrorCode.NOT_AVAILABLE if is_status else ErrorCode.TRY_AGAIN_LATER


def _serve(request: Request, wired: Wired) -> int:
    """Answer, and take back an ADD whose answer nobody got."""
    try:
        wired.mend_store()
        wired.reconciler.start()
        wired.leases.expire()
    except Exception as exc:  # noqa: BLE001 - the edge, as above
        return _answer(failure(exc, request.stdin))
    response = serve(request, wired.node)
    if deliver(response.stdout):
        return response.status
    if response.status == 0 and request.environment["CNI_COMMAND"] == Verb.ADD:
        undo.undelivered(request, wired.node)
    return 1


def _locked_out(request: Request, config: AgentConfig, exc: Exception) -> Response:
    if request.environment["CNI_COMMAND"] == Verb.DEL:
        try:
            identify(request.stdin, Verb.DEL)
            Spool(config.spool_dir).add(request)
            return Response(0)
        except CNIError as refused:
            return failure(refused, request.stdin)
    return failure(CNIError(_unable(), "state is locked", str(exc)), request.stdin)


def _answer(response: Response) -> int:
    return response.status if deliver(response.stdout) else 1
