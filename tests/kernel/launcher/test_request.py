"""What reaches the agent: stdin, environment, namespace."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from cni.request import Response
from tests.kernel.launcher.fake_agent import FakeAgent, answering
from tests.kernel.launcher.process import (
    CONFIG,
    TIMEOUT_S,
    Done,
    Launcher,
    ended,
)

pytestmark = pytest.mark.kernel


def test_a_configuration_of_one_mebibyte_goes_through(launcher: Launcher) -> None:
    config = CONFIG + b" " * (1024 * 1024 - len(CONFIG))
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        assert launcher.run("ADD", config).status == 0
        assert agent.call().request.stdin == config


def test_a_larger_configuration_is_refused(launcher: Launcher) -> None:
    error = launcher.run("ADD", CONFIG + b" " * (1024 * 1024)).error

    assert (error["code"], error["msg"]) == (6, "configuration on stdin too large")
    assert error["cniVersion"] == "0.4.0"


def test_stdin_that_cannot_be_read_is_an_error(launcher: Launcher) -> None:
    directory = os.open("/", os.O_RDONLY)
    try:
        with ended(launcher.start("ADD", stdin=directory)) as process:
            stdout, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        os.close(directory)

    assert process.returncode == 1
    assert json.loads(stdout)["code"] == 5


def closing(launcher: Launcher, redirection: str) -> list[str]:
    return ["/bin/sh", "-c", f'exec "$0" {redirection}', launcher.binary]


def test_a_closed_stdin_is_an_error(launcher: Launcher) -> None:
    done = subprocess.run(
        closing(launcher, "<&-"),
        env=launcher.environment("ADD"),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert Done(done.returncode, done.stdout, done.stderr).error["code"] == 5


@pytest.mark.parametrize("command", ["ADD", "GC"])
def test_a_closed_stdout_is_not_taken_for_the_socket(launcher: Launcher, command: str) -> None:
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        done = subprocess.run(
            closing(launcher, ">&- 2>&-"),
            env=launcher.environment(command),
            input=CONFIG,
            timeout=TIMEOUT_S,
            check=False,
        )
        call = agent.call()

    assert done.returncode == 1
    assert call.request.stdin == CONFIG
    assert not call.acknowledged


def test_stdin_that_is_never_closed_is_an_error_after_a_while(launcher: Launcher) -> None:
    with ended(launcher.start("ADD")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(CONFIG)
        process.stdin.flush()
        error = json.loads(process.stdout.read())

    assert process.returncode == 1
    assert error["code"] == 5
    assert error["cniVersion"] == "0.4.0"


def test_the_agent_gets_the_call_as_the_runtime_made_it(launcher: Launcher) -> None:
    environment = launcher.environment("ADD", CNI_ARGS="K8S_POD_NAME=web;IgnoreUnknown=1", HOME="")
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        launcher.execute(environment, CONFIG, name="/opt/cni/bin/isthmus-ipam")
        request = agent.call().request
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    own = os.stat("/proc/self/ns/net")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    assert request.environment == environment
    assert (request.program, request.stdin) == ("isthmus-ipam", CONFIG)
    assert before <= request.started_ns <= after
    assert request.boot_id == boot_id
    assert request.caller_netns == (own.st_dev, own.st_ino)


@pytest.mark.parametrize("size", [200_000, 300_000])
def test_a_huge_environment_is_cut_down_to_what_matters(launcher: Launcher, size: int) -> None:
    needed = launcher.environment("ADD", PATH="/bin", TRACEPARENT="t", TRACESTATE="s", BAGGAGE="b")
    bulk = {f"BULK_{part}": "x" * (size // 4) for part in range(4)}
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        assert launcher.execute({**bulk, **needed}, CONFIG, name="isthmus").status == 0
        arrived = agent.call().request.environment

    kept = {name: value for name, value in needed.items() if not name.startswith("ISTHMUS_")}
    assert arrived == ({**bulk, **needed} if size < 256 * 1024 else kept)


def test_more_than_256_kib_of_what_matters_is_refused(launcher: Launcher) -> None:
    bulk = {f"CNI_BULK_{part}": "x" * 100_000 for part in range(3)}
    error = launcher.run("ADD", CONFIG, **bulk).error

    assert (error["code"], error["msg"]) == (4, "environment too large")


@pytest.mark.parametrize("kind", ["namespace", "link to it", "file", "fifo", "directory"])
def test_whatever_can_be_opened_as_the_namespace_goes_along(launcher: Launcher, kind: str) -> None:
    path = launcher.directory / "netns"
    match kind:
        case "namespace":
            path = Path("/proc/self/ns/net")
        case "link to it":
            path.symlink_to("/proc/self/ns/net")
        case "file":
            path.touch()
        case "fifo":
            os.mkfifo(path)
        case _:
            path.mkdir()
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        assert launcher.run("ADD", CNI_NETNS=str(path)).status == 0
        call = agent.call()

    found = path.stat()
    assert call.netns == (found.st_dev, found.st_ino)
    assert call.request.netns_errno == 0


@pytest.mark.parametrize(("kind", "number"), [("absent", 2), ("dangling", 2), ("below a file", 20)])
def test_why_the_namespace_cannot_be_opened_goes_along(
    launcher: Launcher, kind: str, number: int
) -> None:
    path = launcher.directory / "netns"
    if kind == "dangling":
        path.symlink_to(launcher.directory / "nowhere")
    elif kind == "below a file":
        path.touch()
        path /= "net"
    with FakeAgent(launcher.socket, answering(Response(0))) as agent:
        assert launcher.run("DEL", CNI_NETNS=str(path)).status == 0
        call = agent.call()

    assert call.netns is None
    assert call.request.netns_errno == number


def test_a_namespace_that_is_not_set_is_no_error(launcher: Launcher) -> None:
    with FakeAgent(launcher.socket, answering(Response(0))) as agent:
        assert launcher.run("DEL", CNI_NETNS="").status == 0
        call = agent.call()

    assert (call.netns, call.request.netns_errno) == (None, 0)
