"""What the runtime gets, and when the launcher says that it did."""

import os
import signal

import pytest

from cni.request import Response
from tests.kernel.launcher.fake_agent import FakeAgent, answering, hanging
from tests.kernel.launcher.process import TIMEOUT_S, Launcher, close_stdin, ended

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("response", [Response(0, b'{"ips":[]}'), Response(1, b"{}"), Response(0)])
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_status_and_document_come_back_and_are_acknowledged(
    launcher: Launcher, response: Response, piece: int
) -> None:
    with FakeAgent(launcher.socket, answering(response, piece=piece)) as agent:
        done = launcher.run("ADD")

        assert (done.status, done.stdout, done.stderr) == (response.status, response.stdout, b"")
        assert agent.call().acknowledged


def test_an_answer_of_two_mebibytes_comes_back_whole(launcher: Launcher) -> None:
    document = b'"' + b"x" * (2 * 1024 * 1024 - 2) + b'"'
    with FakeAgent(launcher.socket, answering(Response(0, document))) as agent:
        assert launcher.run("ADD").stdout == document
        assert agent.call().acknowledged


def test_an_answer_without_a_reader_is_not_acknowledged(launcher: Launcher) -> None:
    read, write = os.pipe()
    with (
        FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent,
        ended(launcher.start("ADD", stdout=write)) as process,
    ):
        os.close(write)
        os.close(read)
        close_stdin(process)
        call = agent.call()

    assert process.returncode == 1
    assert not call.acknowledged


def test_an_answer_whose_reader_is_stuck_is_not_acknowledged(launcher: Launcher) -> None:
    with (
        FakeAgent(launcher.socket, answering(Response(0, b" " * 1_000_000))) as agent,
        ended(launcher.start("ADD")) as process,
    ):
        close_stdin(process)
        call = agent.call()

    assert process.returncode == 1
    assert not call.acknowledged


def test_a_launcher_killed_while_it_waits_leaves_without_acknowledging(launcher: Launcher) -> None:
    with FakeAgent(launcher.socket, hanging) as agent, ended(launcher.start("ADD")) as process:
        close_stdin(process)
        assert agent.taken.wait(TIMEOUT_S)
        process.kill()
        call = agent.call()

    assert process.returncode == -signal.SIGKILL
    assert not call.acknowledged
