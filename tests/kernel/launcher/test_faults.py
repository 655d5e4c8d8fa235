"""System calls that fail, are interrupted, or are the last that the launcher makes."""

import os
import select
import subprocess

import pytest

from cni.request import Response
from cni.spool import Spool
from tests.kernel.launcher.fake_agent import FakeAgent, answering
from tests.kernel.launcher.process import CONFIG, TIMEOUT_S, Done, Launcher

pytestmark = pytest.mark.kernel


def run_with_fault(launcher: Launcher, command: str, fault: str) -> Done:
    """Run one call with strace(1) tampering: *fault* is its `inject` expression."""
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={fault}", launcher.binary],
        # The leak detector is a tracer too: there can be one.
        env={**launcher.environment(command), "ASAN_OPTIONS": "detect_leaks=0"},
        input=CONFIG,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("fault", "step", "reason"),
    [
        ("mkdir:error=EROFS", "create the directory", "Read-only file system"),
        ("fsync:error=EIO:when=1", "create the directory", "I/O error"),
        ("write:error=ENOSPC:when=1", "write", "No space left on device"),
        ("write:error=EDQUOT:when=1", "write", "uota exceeded"),
        ("fsync:error=EIO:when=2", "fsync", "I/O error"),
        ("renameat:error=EIO", "rename", "I/O error"),
    ],
)
def test_a_step_of_keeping_a_deletion_that_fails_leaves_nothing(
    launcher: Launcher, fault: str, step: str, reason: str
) -> None:
    error = run_with_fault(launcher, "DEL", fault).error

    assert error["code"] == 11
    assert error["details"].startswith(f"{launcher.spool}: {step}: ")
    assert reason.lower() in error["details"].replace("Input/output", "I/O").lower()
    assert launcher.spooled() == []


def test_a_deletion_that_may_not_be_durable_is_an_error(launcher: Launcher) -> None:
    error = run_with_fault(launcher, "DEL", "fsync:error=EIO:when=3").error

    assert error["code"] == 11
    assert "fsync of the directory" in error["details"]


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        ("mkdir:signal=KILL", False),
        ("fsync:signal=KILL:when=1", False),
        ("fsync:signal=KILL:when=2", False),
        ("close:signal=KILL:when=4", False),
        ("fsync:signal=KILL:when=3", True),
    ],
)
def test_a_launcher_killed_while_it_keeps_a_deletion_leaves_a_whole_entry_or_none(
    launcher: Launcher, fault: str, kept: bool
) -> None:
    done = run_with_fault(launcher, "DEL", fault)
    spool = Spool(launcher.spool)
    entries = spool.pending()
    spool.tidy(now=2.0**40)

    assert (done.status, done.stdout) == (-9, b"")
    assert len(entries) == kept
    assert launcher.spooled() == [entry.path.name for entry in entries]


@pytest.mark.parametrize(
    "call",
    ["poll", "sendmsg", "recvfrom", "write", "sendto"],
    ids=lambda call: f"{call} interrupted",
)
def test_an_interrupted_system_call_is_made_again(launcher: Launcher, call: str) -> None:
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        done = run_with_fault(launcher, "ADD", f"{call}:error=EINTR:when=1")

        assert (done.status, done.stdout) == (0, b"{}")
        assert agent.call().acknowledged


def test_a_reader_that_dies_before_it_reads_has_not_got_the_answer(launcher: Launcher) -> None:
    read, write = os.pipe()
    held = "inject=write:delay_exit=500000:when=1"
    with (
        FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent,
        subprocess.Popen(
            ["strace", "-qq", "-o", "/dev/null", "-e", held, launcher.binary],
            env={**launcher.environment("ADD"), "ASAN_OPTIONS": "detect_leaks=0"},
            stdin=subprocess.PIPE,
            stdout=write,
        ) as process,
    ):
        os.close(write)
        assert process.stdin is not None
        process.stdin.write(CONFIG)
        process.stdin.close()
        select.select([read], [], [], TIMEOUT_S)  # all is written, nothing is read
        os.close(read)
        call = agent.call()

    assert process.returncode == 1
    assert not call.acknowledged


def test_an_interrupted_write_of_a_deletion_is_made_again(launcher: Launcher) -> None:
    done = run_with_fault(launcher, "DEL", "write:error=EINTR:when=1")

    assert (done.status, done.stdout) == (0, b"")
    assert len(Spool(launcher.spool).pending()) == 1


def test_a_deletion_is_synced_before_it_has_its_name_and_once_more_after(
    launcher: Launcher,
) -> None:
    trace = launcher.directory / "trace"
    subprocess.run(
        ["strace", "-y", "-e", "trace=write,fsync,renameat", "-o", trace, launcher.binary],
        env={**launcher.environment("DEL"), "ASAN_OPTIONS": "detect_leaks=0"},
        input=CONFIG,
        timeout=TIMEOUT_S,
        check=True,
    )
    spool = os.fspath(launcher.spool)
    steps = [
        (line.partition("(")[0], line.partition("<")[2].partition(">")[0])
        for line in trace.read_text(encoding="utf-8").splitlines()
        if "(" in line
    ]
    temporary = steps[1][1]

    assert temporary.startswith(f"{spool}/.tmp-")
    assert steps == [
        ("fsync", os.fspath(launcher.directory)),
        ("write", temporary),
        ("fsync", temporary),
        ("renameat", spool),
        ("fsync", spool),
    ]
