"""No agent, or one that is of no use."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni.frames import REFUSED, encode_response
from cni.request import Response
from cni.spool import Spool
from tests.kernel.launcher.fake_agent import FakeAgent, answering, hanging, saying
from tests.kernel.launcher.process import CONFIG, OTHERS, TIMEOUT_S, Launcher, close_stdin, ended

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(("command", "code"), OTHERS)
def test_without_an_agent_the_error_names_the_socket_and_a_remedy(
    launcher: Launcher, command: str, code: int
) -> None:
    error = launcher.run(command).error

    assert error["code"] == code
    assert error["msg"] == f"no agent accepts calls on {launcher.socket}"
    assert error["details"] == (
        "No such file or directory; is the agent running? systemctl status isthmus-agent"
    )
    assert error["cniVersion"] == "0.4.0"
    assert launcher.spooled() == []


USELESS = {
    "hangs": hanging,
    "closes at once": saying(b"", read=1),
    "closes after the request": saying(b""),
    "dies in the header": saying(b"isth\0\0"),
    "dies in the document": saying(b"isth\0\0\0\0\x05\0\0\0{"),
    "talks nonsense": saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "claims too much": saying(b"isth\0\0\0\0\xff\xff\xff\xff"),
    "claims a status that exit cannot have": saying(b"isth\0\1\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("behaviour", USELESS.values(), ids=USELESS.keys())
@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("STATUS", 50)])
def test_an_agent_that_gives_no_answer_is_an_error(
    launcher: Launcher, command: str, code: int, behaviour: Any
) -> None:
    with FakeAgent(launcher.socket, behaviour):
        error = launcher.run(command).error

    assert error["code"] == code
    assert str(launcher.socket) in error["msg"]
    assert "systemctl status isthmus-agent" in error["details"]


@pytest.mark.parametrize("behaviour", USELESS.values(), ids=USELESS.keys())
def test_a_deletion_outlives_an_agent_that_gives_no_answer(
    launcher: Launcher, behaviour: Any
) -> None:
    with FakeAgent(launcher.socket, behaviour):
        done = launcher.run("DEL")

    assert (done.status, done.stdout, done.stderr) == (0, b"", b"")
    assert len(Spool(launcher.spool).pending()) == 1


def test_an_agent_that_refuses_is_quoted(launcher: Launcher) -> None:
    refusal = b'{"code":11,"msg":"protocol version 2 is not supported, only 1 is"}'
    with FakeAgent(launcher.socket, answering(Response(REFUSED, refusal))):
        done = launcher.run("ADD")

    assert (done.status, done.stdout) == (1, refusal)


def test_a_refusal_is_read_even_when_the_agent_took_only_the_header(launcher: Launcher) -> None:
    refusal = saying(b"isth\x4b\0\0\0\x02\0\0\0{}", read=92)
    with FakeAgent(launcher.socket, refusal):
        done = launcher.run("ADD", CONFIG + b" " * 1_000_000)

    assert (done.status, done.stdout) == (1, b"{}")


def test_a_deletion_outlives_an_agent_that_refuses(launcher: Launcher) -> None:
    with FakeAgent(launcher.socket, answering(Response(REFUSED, b"{}"))):
        done = launcher.run("DEL")

    assert (done.status, done.stdout) == (0, b"")
    assert len(launcher.spooled()) == 1


def test_an_agent_that_starts_late_is_waited_for(launcher: Launcher) -> None:
    def sleeps() -> int:
        fields = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").split()
        return int(fields[fields.index("voluntary_ctxt_switches:") + 1])

    with ended(launcher.start("ADD")) as process:
        before = sleeps()
        close_stdin(process)
        while sleeps() < before + 3:
            assert process.poll() is None
        with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
            assert agent.call().acknowledged

    assert process.returncode == 0


@contextmanager
def full_backlog(path: Path) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A listener that accepts nothing and has no room for another connection."""
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        except BlockingIOError:
            yield listener, waiting
        finally:
            for each in waiting:
                each.close()


def test_a_full_queue_of_the_socket_is_an_agent_away(launcher: Launcher) -> None:
    with full_backlog(launcher.socket):
        error = launcher.run("ADD").error
        deleted = launcher.run("DEL")

    assert error["code"] == 11
    assert error["details"].startswith("Resource temporarily unavailable")
    assert (deleted.status, len(launcher.spooled())) == (0, 1)


def test_a_deletion_waits_for_room_in_the_queue_of_the_socket(launcher: Launcher) -> None:
    with (
        full_backlog(launcher.socket) as (listener, waiting),
        ended(launcher.start("DEL")) as process,
    ):
        close_stdin(process)
        for _ in waiting[:-1]:
            listener.accept()[0].close()
        listener.settimeout(TIMEOUT_S)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(TIMEOUT_S)
            connection.sendall(encode_response(Response(0)))
            while connection.recv(4096):
                pass

    assert process.returncode == 0
    assert launcher.spooled() == []


def test_a_socket_path_too_long_is_an_error(launcher: Launcher) -> None:
    error = launcher.run("ADD", ISTHMUS_SOCKET="/" + "x" * 200).error

    assert error["code"] == 11
    assert "name too long" in error["details"]
