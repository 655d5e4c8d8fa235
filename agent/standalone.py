"""The CNI plugin in one process: the same verbs, for a host without an agent.

It takes the lock on the state directory, replays the spool, does its verb, and goes.  Where an
agent or another program has the lock for too long, DEL is spooled and the others fail with 11.
"""

import os
import sys
import threading
from pathlib import Path

from agent.boot import boot_id, now_ns
from agent.config import AgentConfig, ConfigError, load
from cni.dispatch import failure, serve
from cni.environment import Verb
from cni.errors import CNIError, ErrorCode
from cni.frames import MAX_BODY
from cni.request import Request, Response
from cni.spool import Spool
from cni.versions import SUPPORTED, VERSION_DOCUMENT

_LOCK_WAIT_S = 5.0
_ABOUT = "CNI isthmus plugin, standalone"


def main() -> int:
    """Serve the one request in environment and stdin; returns the exit status."""
    command = os.environ.get("CNI_COMMAND", "")
    if command == Verb.VERSION:
        return _answer(Response(0, VERSION_DOCUMENT))
    if not command:
        sys.stderr.write(f"{_ABOUT}\nCNI protocol versions supported: {', '.join(SUPPORTED)}\n")
        return 0
    return _answer(_respond())


def _respond() -> Response:
    try:
        request = _request()
        config = _config()
    except CNIError as exc:
        return failure(exc)
    return _serve_locked(request, config)


def _request() -> Request:
    try:
        stdin = sys.stdin.buffer.read(MAX_BODY)
    except OSError as exc:
        raise CNIError(ErrorCode.IO_FAILURE, f"error reading from stdin: {exc}") from exc
    started = os.environ.get("ISTHMUS_STARTED_NS", "")
    own = os.stat("/proc/self/ns/net")
    return Request(
        program=os.path.basename(os.environ.get("ISTHMUS_PROGRAM") or sys.argv[0]),
        environment=dict(os.environ),
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


def _serve_locked(request: Request, config: AgentConfig) -> Response:
    from agent.wiring import StateLocked, wire
    from dataplane.errors import DataplaneError

    until, pause = now_ns() + int(_LOCK_WAIT_S * 1e9), threading.Event()
    while True:
        try:
            wired = wire(config)
            break
        except StateLocked as exc:
            if now_ns() < until:
                pause.wait(0.05)
                continue
            return _locked_out(request, config, exc)
        except (DataplaneError, OSError) as exc:
            return failure(CNIError(ErrorCode.TRY_AGAIN_LATER, "cannot start", str(exc)))
    try:
        wired.mend_store()
        wired.reconciler.start()
        wired.leases.expire()
        return serve(request, wired.node)
    except DataplaneError as exc:
        return failure(exc, request.stdin)
    finally:
        wired.close()


def _locked_out(request: Request, config: AgentConfig, exc: Exception) -> Response:
    if request.environment.get("CNI_COMMAND") == Verb.DEL:
        try:
            Spool(config.spool_dir).add(request)
            return Response(0)
        except CNIError as refused:
            return failure(refused, request.stdin)
    return failure(CNIError(ErrorCode.TRY_AGAIN_LATER, "state is locked", str(exc)), request.stdin)


def _answer(response: Response) -> int:
    try:
        sys.stdout.buffer.write(response.stdout)
        sys.stdout.buffer.flush()
    except OSError:
        return 1
    return response.status
