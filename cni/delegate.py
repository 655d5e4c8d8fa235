"""Run an IPAM plugin that is not ours: the one place besides dataplane/ that runs programs.

The delegate is found in CNI_PATH, gets the whole configuration on stdin and our environment
(SPEC.md 1.1.0, section 4).  The namespace stays the path it was where that leads to the same
one here (the `dhcp` plugin hands it on to its daemon), else it is our descriptor's.
"""

import errno
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cni.environment import Call, Verb
from cni.errors import CNIError, ErrorCode
from cni.request import Request
from cni.sandbox import leads_to
from cni.spec import Delegate
from ipam.leases import Attachment

log = logging.getLogger(__name__)

_UNDO_S = 5.0
_BUSY_TRIES = 6
_BUSY_PAUSE_S = 1.0


def ask(kind: str, verb: Verb, request: Request, call: Call, *, timeout: float) -> bytes:
    """Run *verb* of the IPAM plugin *kind* for this call; returns its stdout.

    Raises CNIError: the delegate's own where it gave one.
    """
    environment = dict(request.environment, CNI_COMMAND=verb.value)
    fds: tuple[int, ...] = ()
    if request.netns_fd is not None and not leads_to(call.netns, request.netns_fd):
        environment["CNI_NETNS"] = f"/proc/self/fd/{request.netns_fd}"
        fds = (request.netns_fd,)
    program = find(kind, call.path)
    return run(program, environment, request.stdin, timeout=timeout, pass_fds=fds)


def undo_add(kind: str, request: Request, call: Call) -> None:
    """Ask the delegate to forget an ADD that failed here; it may never have done it."""
    try:
        ask(kind, Verb.DEL, request, call, timeout=_UNDO_S)
    except CNIError as exc:
        log.warning("IPAM plugin could not undo its ADD", extra={"plugin": kind, "why": str(exc)})


def remember(kind: str, request: Request, call: Call) -> Delegate:
    """What it takes to ask again for a DEL when nobody calls us any more."""
    stdin = request.stdin.decode(errors="replace")
    return Delegate(kind=kind, stdin=stdin, args=call.args, path=call.path)


def end(asked: Delegate, who: Attachment) -> None:
    """DEL without a caller: the sandbox is gone, and its runtime sends none.

    Raises CNIError.
    """
    environment = {
        "CNI_COMMAND": Verb.DEL.value,
        "CNI_CONTAINERID": who.container_id,
        "CNI_IFNAME": who.ifname,
        "CNI_NETNS": "",
        "CNI_ARGS": asked.args,
        "CNI_PATH": ":".join(asked.path),
        "PATH": os.environ.get("PATH", ""),
    }
    run(find(asked.kind, asked.path), environment, asked.stdin.encode(), timeout=_UNDO_S)


def tell_end(asked: Delegate, who: Attachment) -> None:
    """The same where nobody could do anything about a failure."""
    try:
        end(asked, who)
    except CNIError as exc:
        log.warning(
            "IPAM plugin not told of an end",
            extra={"attachment": str(who), "plugin": asked.kind, "why": str(exc)},
        )


def find(kind: str, path: Sequence[str]) -> Path:
    """The program of IPAM type *kind*; raises CNIError 7 naming where it was looked for."""
    if not path:
        raise CNIError(
            ErrorCode.INVALID_ENVIRONMENT,
            "required env variables [CNI_PATH] missing",
            f'ipam.type "{kind}" is a program of its own',
        )
    for directory in path:
        candidate = Path(directory) / kind
        if os.path.isfile(candidate):  # unlike Path's, no error for a name that is too long
            return candidate
    raise CNIError(
        ErrorCode.INVALID_CONFIG,
        f'failed to find plugin "{kind}" in path [{" ".join(path)}]',
        f'ipam.type must be "isthmus" or the name of a program in CNI_PATH, not "{kind}"',
    )


def run(
    program: Path,
    environment: Mapping[str, str],
    stdin: bytes,
    *,
    timeout: float,
    pass_fds: Sequence[int] = (),
) -> bytes:
    """Run one verb of a delegate; returns its stdout.

    Raises CNIError with the delegate's own code and message where it gave one, 11 where it
    did not end within *timeout* seconds (it is killed with all its children).
    """
    process = _start(program, environment, pass_fds)
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired as exc:
        _kill(process)
        raise CNIError(
            ErrorCode.TRY_AGAIN_LATER, f"{program.name} did not answer within {timeout:g} s"
        ) from exc
    if process.returncode:
        raise _failure(program, process.returncode, out, err)
    return out


def _start(
    program: Path, environment: Mapping[str, str], pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    pause = threading.Event()
    for attempt in range(_BUSY_TRIES):
        try:
            return subprocess.Popen(
                [str(program)],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except OSError as exc:
            # Somebody is writing the program in place; libcni waits just so.
            if exc.errno == errno.ETXTBSY and attempt < _BUSY_TRIES - 1:
                pause.wait(_BUSY_PAUSE_S)
                continue
            raise CNIError(
                ErrorCode.IO_FAILURE, f"cannot run {program}", exc.strerror or str(exc)
            ) from exc
    raise AssertionError("unreachable")


def _kill(process: subprocess.Popen[bytes]) -> None:
    # It leads a session of its own: what it started dies with it, but for what has left the
    # session, which may hold its pipes open for ever.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with suppress(OSError):
                pipe.close()


def _failure(program: Path, status: int, out: bytes, err: bytes) -> CNIError:
    try:
        document = json.loads(out)
        return CNIError(
            int(document["code"]), str(document.get("msg", "")), str(document.get("details", ""))
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        said = (out or err).decode(errors="replace").strip()[:500]
        return CNIError(
            ErrorCode.INTERNAL,
            f"{program.name} failed with exit status {status}",
            said or "it gave no message",
        )
