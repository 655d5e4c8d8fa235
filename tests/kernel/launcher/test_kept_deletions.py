"""A deletion outlives the absence of the agent."""

import os
import socket
import stat
import subprocess
import threading

import pytest

from cni.spool import MAX_ENTRIES, Spool
from tests.kernel.launcher.process import (
    CONFIG,
    TIMEOUT_S,
    Done,
    Launcher,
)

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("socket_left", [False, True])
def test_a_deletion_without_an_agent_is_kept_for_it(launcher: Launcher, socket_left: bool) -> None:
    if socket_left:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(launcher.socket))
    done = launcher.run("DEL", name="isthmus-ipam", CNI_NETNS="/nowhere")
    (entry,) = Spool(launcher.spool).pending()

    assert (done.status, done.stdout, done.stderr) == (0, b"", b"")
    assert entry.request.environment == launcher.environment("DEL", CNI_NETNS="/nowhere")
    assert (entry.request.program, entry.request.stdin) == ("isthmus-ipam", CONFIG)
    assert entry.request.netns_errno == 2
    started, rest = entry.path.name.split("-")
    assert (len(started), int(started)) == (20, entry.request.started_ns)
    assert rest.endswith(".del")
    assert stat.S_IMODE(launcher.spool.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600


def test_the_kept_frame_claims_no_descriptor(launcher: Launcher) -> None:
    launcher.run("DEL")
    (name,) = launcher.spooled()

    assert (launcher.spool / name).read_bytes()[12:16] == bytes(4)


def test_many_deletions_at_once_are_all_kept(launcher: Launcher) -> None:
    threads = [threading.Thread(target=launcher.run, args=("DEL",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(Spool(launcher.spool).pending()) == 20


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"null", b'{"name": "shop"', b"{]", b"{} {}", b'{"a": "}']
)
def test_a_deletion_that_could_never_be_done_is_not_kept(launcher: Launcher, config: bytes) -> None:
    assert launcher.run("DEL", config).error["code"] == 6
    assert launcher.spooled() == []


def test_a_spool_that_cannot_be_made_is_an_error_that_names_it(launcher: Launcher) -> None:
    path = launcher.directory / "absent" / "spool"
    error = launcher.run("DEL", ISTHMUS_SPOOL=str(path)).error

    assert (error["code"], error["msg"]) == (
        11,
        "the agent is away and the deletion cannot be kept",
    )
    assert error["details"] == f"{path}: create the directory: No such file or directory"


def test_a_spool_that_is_a_file_is_an_error_that_names_it(launcher: Launcher) -> None:
    launcher.spool.touch()
    error = launcher.run("DEL").error

    assert error["code"] == 11
    assert error["details"] == f"{launcher.spool}: open: Not a directory"


def test_a_spool_with_too_many_entries_is_an_error(launcher: Launcher) -> None:
    launcher.spool.mkdir()
    for number in range(MAX_ENTRIES):
        os.mknod(launcher.spool / f"{number}.del")
    error = launcher.run("DEL").error

    assert error["code"] == 11
    assert error["details"] == f"{launcher.spool}: count: 10000 deletions wait already"
    assert len(launcher.spooled()) == MAX_ENTRIES


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(launcher: Launcher) -> None:
    launcher.spool.mkdir()
    script = (
        "mount -t tmpfs -o size=16k none $ISTHMUS_SPOOL && "
        "{ head -c 65536 /dev/zero > $ISTHMUS_SPOOL/filler; "
        '"$0"; status=$?; ls -A $ISTHMUS_SPOOL >&2; exit $status; }'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, launcher.binary],
        env={"PATH": os.environ["PATH"], **launcher.environment("DEL")},
        input=CONFIG,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    error = Done(done.returncode, done.stdout, done.stderr).error

    assert error["code"] == 11
    assert error["details"] == f"{launcher.spool}: write: No space left on device"
    assert done.stderr.split()[-1] == b"filler"
