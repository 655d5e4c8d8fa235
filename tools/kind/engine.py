"""A container engine: the machine's docker, or one of our own in namespaces of its own.

Our own leaves the machine alone: its firewall rules, routes and sockets are in its namespaces, its
containers in control groups that are recorded before they are made.  A lock on its pid
file, held by the first process, says that it runs.  Whatever it was interrupted in, `stop` clears.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.kind import cgroups
from tools.kind.places import DOCKER_DATA, PROGRAMS, ROOT, RUN
from tools.kind.progress import SHOWN_OF_A_FAILURE, KindError, run, say, step

PID_FILE = RUN / "engine.pid"
SOCKET = RUN / "docker.sock"
LOG = RUN / "engine.log"
GROUPS = RUN / "control-groups.json"
FIRST_PROCESS = Path(__file__).with_name("first_process.py")
NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
START_SECONDS = 60

# Three nodes want more of them than Linux allows by default.
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_BEFORE = RUN / "max_user_instances"
INOTIFY_WANTED = 1024


@dataclass(frozen=True, slots=True)
class Engine:
    """Where docker, kind and kubectl run: what comes before a command, and its environment."""

    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *argv: str | Path, stdin: str | bytes | None = None, timeout: float = 600) -> str:
        """Run a program there and return its output; KindError where it fails."""
        environment = {**os.environ, **self.environment}
        return run(*self.prefix, *argv, stdin=stdin, environment=environment, timeout=timeout)


def machines() -> Engine:
    """Return the docker of this machine."""
    return Engine((), {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"})


def start() -> Engine:
    """Return our own engine, started unless it runs."""
    if (pid := running()) is not None:
        return _engine(pid)
    stop()
    RUN.mkdir(parents=True, exist_ok=True)
    _raise_inotify()
    with step("container engine, in namespaces of its own"):
        pid = _start()
        if not _answers(pid):
            say("docker does not start with what it kept from last time: it starts afresh")
            stop()
            shutil.rmtree(DOCKER_DATA)
            pid = _start()
            if not _answers(pid):
                raise KindError(f"docker does not start:\n{_end_of_log()}")
    return _engine(pid)


def running() -> int | None:
    """Return the process whose namespaces our engine runs in, or None."""
    if not PID_FILE.exists():
        return None
    with PID_FILE.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read())
    return None


def stop() -> None:
    """End our engine and undo what it made of the machine; it need not run, or have ended well."""
    if (pid := running()) is not None:
        os.kill(pid, signal.SIGKILL)
        _wait_until_ended()
    if GROUPS.exists():
        _change_groups("remove", json.loads(GROUPS.read_text()))
    if INOTIFY_BEFORE.exists():
        INOTIFY.write_text(INOTIFY_BEFORE.read_text())
    shutil.rmtree(RUN, ignore_errors=True)


def _start() -> int:
    parent, groups = cgroups.plan()
    DOCKER_DATA.mkdir(parents=True, exist_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    known = json.loads(GROUPS.read_text()) if GROUPS.exists() else []
    GROUPS.write_text(json.dumps([*known, *map(str, groups)]))
    _change_groups("make", groups)
    read_only = cgroups.hierarchies(Path("/proc/self/mountinfo").read_text(), "ro")
    command = ("unshare", *NAMESPACES, sys.executable, "-IS", FIRST_PROCESS)
    with PID_FILE.open("w") as file, LOG.open("ab") as log:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = subprocess.Popen(
            (*command, SOCKET, DOCKER_DATA, parent, *read_only),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(file.fileno(),),
        )
        file.write(str(process.pid))
    process.returncode = 0  # it outlives us: that nobody waits for it is not to be warned of
    return process.pid


def _change_groups(verb: str, groups: Iterable[str | Path]) -> None:
    change = (sys.executable, "-m", "tools.kind.cgroups", verb, *groups)
    run("env", "-C", ROOT, "unshare", "--mount", *change)


def _answers(pid: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while running() == pid and time.monotonic() < deadline:
        try:
            _engine(pid).run("docker", "version", timeout=10)
        except KindError:
            time.sleep(0.2)
        else:
            return True
    return False


def _wait_until_ended() -> None:
    deadline = time.monotonic() + 30
    while running() is not None:
        if time.monotonic() > deadline:
            raise KindError("the container engine was killed and does not end")
        time.sleep(0.05)


def _engine(pid: int) -> Engine:
    # Not the mount namespace: commands use files of this machine.
    return Engine(
        ("nsenter", f"--net=/proc/{pid}/ns/net"),
        {"DOCKER_HOST": f"unix://{SOCKET}", "PATH": f"{PROGRAMS}:/usr/bin:{os.environ['PATH']}"},
    )


def _raise_inotify() -> None:
    before = INOTIFY.read_text()
    if int(before) < INOTIFY_WANTED:
        INOTIFY_BEFORE.write_text(before)
        INOTIFY.write_text(str(INOTIFY_WANTED))


def _end_of_log() -> str:
    return LOG.read_text(errors="replace")[-SHOWN_OF_A_FAILURE:] if LOG.exists() else ""
