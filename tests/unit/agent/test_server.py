"""The agent's socket, with handlers that do what the test says and launchers that misbehave."""

import array
import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from agent.server import Handlers, Server, listen
from cni.frames import (
    ACK,
    ANSWER_HEADER_SIZE,
    MAX_BODY,
    REFUSED,
    Kind,
    encode_request,
    parse_answer_header,
)
from cni.request import Request, Response

PATIENCE_S = 20.0
RESULT = Response(0, b'{"cniVersion":"1.1.0"}')


def request(verb: str = "ADD", container_id: str = "c1", stdin: bytes = b"{}") -> Request:
    return Request(
        program="isthmus",
        environment={"CNI_COMMAND": verb, "CNI_CONTAINERID": container_id},
        stdin=stdin,
        started_ns=7,
        boot_id="b" * 36,
    )


class Work:
    """The handlers: remembers what was asked, and lets requests of *held* wait."""

    def __init__(self) -> None:
        self.served: list[Request] = []
        self.undone: list[Request] = []
        self.response = RESULT
        self.failure: Exception | None = None
        self.held: set[str] = set()
        self.go = threading.Event()
        self.begun = threading.Event()
        self.was_undone = threading.Event()
        self.netns: list[tuple[int, int]] = []

    def serve(self, asked: Request) -> Response:
        if asked.netns_fd is not None:
            found = os.fstat(asked.netns_fd)
            self.netns.append((found.st_dev, found.st_ino))
        self.served.append(asked)
        self.begun.set()
        if asked.environment["CNI_CONTAINERID"] in self.held:
            assert self.go.wait(PATIENCE_S)
        if self.failure:
            raise self.failure
        return self.response

    def undo(self, asked: Request) -> None:
        self.undone.append(asked)
        self.was_undone.set()

    def admin(self, question: dict[str, object]) -> dict[str, object]:
        return {"asked": question}


class Agent:
    """A server in a thread of its own."""

    def __init__(self, path: Path, *, max_parallel: int = 4, max_queued: int = 8) -> None:
        self.work = Work()
        self.path = path
        self._limits = (max_parallel, max_queued)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.work.go.set()
        self.stop()

    def begin_stopping(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.begin_stopping()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        parallel, queued = self._limits
        self.server = Server(
            Handlers(self.work.serve, self.work.undo, self.work.admin),
            max_parallel=parallel,
            max_queued=queued,
        )
        with listen(self.path) as listening:
            self._ready.set()
            await self.server.run(listening, self._stopping)


class Launcher:
    """One connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, asked: Request, kind: Kind = Kind.CNI) -> Self:
        self.socket.sendall(encode_request(asked, kind))
        return self

    def answer(self) -> Response:
        status, length = parse_answer_header(self._read(ANSWER_HEADER_SIZE))
        return Response(status, self._read(length))

    def acknowledge(self) -> None:
        self.socket.sendall(ACK)
        self.wait_for_end()

    def wait_for_end(self) -> bytes:
        """What is left until the agent closes."""
        left = b""
        while data := self.socket.recv(4096):
            left += data
        return left

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            got = self.socket.recv(length - len(data))
            assert got, f"closed after {data!r}"
            data += got
        return data


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not come to that")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with Agent(tmp_path / "agent.sock") as running:
        yield running


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Agent]:
    """One at a time, and one that may wait."""
    with Agent(tmp_path / "agent.sock", max_parallel=1, max_queued=1) as running:
        yield running


def ask(agent: Agent, asked: Request) -> Response:
    with Launcher(agent.path) as launcher:
        found = launcher.send(asked).answer()
        launcher.acknowledge()
        return found


def test_a_request_reaches_its_handler_whole_and_its_answer_the_launcher(agent: Agent) -> None:
    asked = request(stdin=b'{"name": "shop"}')

    assert ask(agent, asked) == RESULT
    assert agent.work.served == [asked]
    assert agent.work.undone == []


def test_an_answer_of_nothing_is_an_answer(agent: Agent) -> None:
    agent.work.response = Response(0)

    assert ask(agent, request("DEL")) == Response(0, b"")


def test_large_requests_and_answers_go_through(agent: Agent) -> None:
    asked = request(stdin=b"x" * (1 << 20))
    agent.work.response = Response(1, b"y" * (1 << 20))

    assert ask(agent, asked) == agent.work.response
    assert agent.work.served == [asked]


def test_a_request_may_come_in_pieces(agent: Agent) -> None:
    data = encode_request(request())

    with Launcher(agent.path) as launcher:
        for at in range(0, len(data), 7):
            launcher.socket.sendall(data[at : at + 7])
        found = launcher.answer()

    assert found == RESULT


def test_the_sandbox_comes_along_as_a_descriptor_and_is_closed_after(agent: Agent) -> None:
    before = len(os.listdir("/proc/self/fd"))
    own = os.open("/proc/self/ns/net", os.O_PATH)
    frame = encode_request(replace(request(), netns_fd=own))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [own]))]
    with Launcher(agent.path) as launcher:
        launcher.socket.sendmsg([frame], rights)
        launcher.answer()
        launcher.acknowledge()
    found = os.fstat(own)
    os.close(own)

    assert agent.work.netns == [(found.st_dev, found.st_ino)]
    until(lambda: len(os.listdir("/proc/self/fd")) == before)


@pytest.mark.parametrize("last", [b"", b"x"])
def test_an_add_whose_answer_nobody_took_is_undone(agent: Agent, last: bytes) -> None:
    with Launcher(agent.path) as launcher:
        launcher.send(request()).answer()
        launcher.socket.sendall(last)

    assert agent.work.was_undone.wait(PATIENCE_S)
    assert agent.work.undone == agent.work.served


def test_an_add_whose_launcher_dies_at_work_is_undone(agent: Agent) -> None:
    agent.work.held = {"c1"}
    with Launcher(agent.path) as launcher:
        launcher.send(request())
        assert agent.work.begun.wait(PATIENCE_S)
    agent.work.go.set()

    assert agent.work.was_undone.wait(PATIENCE_S)


@pytest.mark.parametrize(
    ("verb", "response"), [("ADD", Response(1, b"{}")), ("DEL", Response(0)), ("CHECK", RESULT)]
)
def test_there_is_nothing_to_undo_of_failures_and_other_verbs(
    agent: Agent, verb: str, response: Response
) -> None:
    agent.work.response = response
    with Launcher(agent.path) as launcher:
        launcher.send(request(verb)).answer()
    agent.stop()

    assert agent.work.undone == []


def test_a_launcher_that_goes_before_its_turn_is_not_served(narrow: Agent) -> None:
    narrow.work.held = {"first"}
    with Launcher(narrow.path) as first:
        first.send(request(container_id="first"))
        assert narrow.work.begun.wait(PATIENCE_S)
        with Launcher(narrow.path) as second:
            second.send(request(container_id="second"))
            until(lambda: narrow.server.load.queued == 1)
        narrow.work.go.set()
        first.answer()
        first.acknowledge()
    until(lambda: narrow.server.load.queued == narrow.server.load.in_work == 0)

    assert [each.environment["CNI_CONTAINERID"] for each in narrow.work.served] == ["first"]
    assert narrow.work.undone == []


def test_one_that_waits_gets_its_turn(narrow: Agent) -> None:
    narrow.work.held = {"first"}
    with Launcher(narrow.path) as first, Launcher(narrow.path) as second:
        first.send(request(container_id="first"))
        assert narrow.work.begun.wait(PATIENCE_S)
        second.send(request("DEL", container_id="second"))
        until(lambda: narrow.server.load.queued == 1)
        narrow.work.go.set()

        assert second.answer() == first.answer() == RESULT


def test_a_launcher_that_takes_its_time_keeps_no_turn(narrow: Agent) -> None:
    with Launcher(narrow.path) as slow:
        slow.send(request(container_id="slow")).answer()

        others = [ask(narrow, request(container_id=name)) for name in ("second", "third")]
        undone_meanwhile = list(narrow.work.undone)
        slow.acknowledge()
    narrow.stop()

    assert others == [RESULT, RESULT]
    assert (undone_meanwhile, narrow.work.undone) == ([], [])


def test_an_add_whose_slow_launcher_went_in_the_end_is_undone(narrow: Agent) -> None:
    with Launcher(narrow.path) as slow:
        slow.send(request(container_id="slow")).answer()
        ask(narrow, request(container_id="second"))

    assert narrow.work.was_undone.wait(PATIENCE_S)
    assert [each.environment["CNI_CONTAINERID"] for each in narrow.work.undone] == ["slow"]


def test_when_too_many_wait_the_next_is_refused(narrow: Agent) -> None:
    narrow.work.held = {"first"}
    with Launcher(narrow.path) as first, Launcher(narrow.path) as second:
        first.send(request(container_id="first"))
        assert narrow.work.begun.wait(PATIENCE_S)
        second.send(request(container_id="second"))
        until(lambda: narrow.server.load.queued == 1)
        with Launcher(narrow.path) as third:
            found = third.send(request(container_id="third")).answer()
        narrow.work.go.set()

    assert found.status == REFUSED
    document = json.loads(found.stdout)
    assert (document["code"], document["msg"]) == (11, "too many requests")
    assert document["details"] == "1 are waiting already"


def test_status_is_answered_whatever_else_is_going_on(narrow: Agent) -> None:
    narrow.work.held = {"first"}
    with Launcher(narrow.path) as first:
        first.send(request(container_id="first"))
        assert narrow.work.begun.wait(PATIENCE_S)

        assert ask(narrow, request("STATUS")) == RESULT
        narrow.work.go.set()


def spoiled(at: int, value: int) -> bytes:
    data = bytearray(encode_request(request()))
    data[at] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (spoiled(0, 0x58), "starts with b'Xsth'"),
        (spoiled(4, 9), "protocol version 9 is not supported"),
        (spoiled(6, 9), "kind 9 is neither 1 nor 2"),
        (spoiled(11, 0xFF), f"more than {MAX_BODY}"),
        (spoiled(80, 0xFF), "do not make a body"),
        (b"GET / HTTP/1.1\r\n".ljust(92), "starts with b'GET '"),
    ],
)
def test_what_is_no_frame_is_refused_in_a_form_that_any_launcher_reads(
    agent: Agent, frame: bytes, why: str
) -> None:
    with Launcher(agent.path) as launcher:
        launcher.socket.sendall(frame)
        found = launcher.answer()

    document = json.loads(found.stdout)
    assert (found.status, document["code"]) == (REFUSED, 11)
    assert document["msg"] == "launcher and agent do not match"
    assert why in document["details"]
    assert agent.work.served == []


@pytest.mark.parametrize("length", [0, 1, 91, 92, 100])
def test_a_request_that_breaks_off_is_nothing(agent: Agent, length: int) -> None:
    with Launcher(agent.path) as launcher:
        launcher.socket.sendall(encode_request(request())[:length])
        launcher.socket.shutdown(socket.SHUT_WR)
        left = launcher.wait_for_end()

    assert left == b""
    assert agent.work.served == []
    assert ask(agent, request()) == RESULT


def test_a_bug_in_a_handler_ends_one_connection_and_not_the_agent(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.work.failure = ZeroDivisionError()
    with Launcher(agent.path) as launcher:
        launcher.send(request())
        left = launcher.wait_for_end()
    agent.work.failure = None

    until(lambda: caplog.messages == ["connection failed"])
    assert left == b""
    assert ask(agent, request()) == RESULT


def test_an_operators_question_is_answered(agent: Agent) -> None:
    with Launcher(agent.path) as launcher:
        found = launcher.send(request(stdin=b'{"op": "status"}'), Kind.ADMIN).answer()

    assert json.loads(found.stdout) == {"asked": {"op": "status"}}
    assert agent.work.served == []


@pytest.mark.parametrize("stdin", [b"", b"[]", b"{", b"[" * 100000, b"\xff"])
def test_what_is_no_question_is_answered_so(agent: Agent, stdin: bytes) -> None:
    with Launcher(agent.path) as launcher:
        found = launcher.send(request(stdin=stdin), Kind.ADMIN).answer()

    assert json.loads(found.stdout)["error"].startswith("not understood")


def test_what_was_begun_is_finished_before_the_end(agent: Agent) -> None:
    agent.work.held = {"c1"}
    with Launcher(agent.path) as launcher:
        launcher.send(request())
        assert agent.work.begun.wait(PATIENCE_S)
        agent.begin_stopping()
        agent.work.go.set()
        found = launcher.answer()
        launcher.acknowledge()
    agent.stop()

    assert found == RESULT
    assert agent.work.undone == []


STRANGER = """
import os, socket, sys
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as stranger:
    stranger.settimeout(20)
    stranger.connect(sys.argv[1])
    print("connected", flush=True)
    try:
        stranger.sendall(sys.stdin.buffer.read())
        sys.exit(len(stranger.recv(100)))
    except OSError:
        pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_nobody_but_root_is_served(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        with Agent(Path(folder) / "agent.sock") as running:
            running.path.chmod(0o666)
            done = subprocess.run(
                [sys.executable, "-c", STRANGER, str(running.path)],
                input=encode_request(request()),
                capture_output=True,
                check=False,
                timeout=PATIENCE_S,
            )

    assert (done.returncode, done.stdout) == (0, b"connected\n"), done.stderr
    assert running.work.served == []
    assert [each.__dict__["uid"] for each in caplog.records] == [65534]


def test_the_socket_is_for_root_alone_and_so_is_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"

    with listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert os.listdir(path.parent) == ["agent.sock"]


def test_a_dead_socket_and_a_half_made_one_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.touch()
    (tmp_path / ".agent.sock.new").touch()

    with Agent(path) as running:
        assert ask(running, request()) == RESULT
    assert os.listdir(tmp_path) == ["agent.sock"]
