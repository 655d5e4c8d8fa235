"""Fuzz the agent's socket: frames whole and torn, descriptors, early ends, operators' JSON.

    python tests/fuzz/fuzz_socket.py -max_total_time=20

A real server answers in this process, with handlers that do nothing.  An input is a script of
one launcher: how it sends, with what descriptors, how it ends, and the frame.  A finding is an
answer not in the common form, none where one is due, a wait, an ADD undone that was taken or
taken that was not undone, and a descriptor or a thread left over.
"""

import array
import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from driver import instrumented, run

with instrumented("agent", "cni"):
    from agent.server import Handlers, Server, listen
    from cni import frames
    from cni.dispatch import failure
    from cni.errors import CNIError
    from cni.request import Request, Response

PATIENCE_S = 8.0  # below what the server grants a launcher that says nothing
KINDS = (frames.Kind.CNI, frames.Kind.ADMIN)
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "NOPE", "")
STDIN = (b"", b"{}", b'{"op":"status"}', b'{"op":["x"]}', b"[1]", b"\xff", b"[" * 5000)


@dataclass(frozen=True, slots=True)
class Script:
    """What one launcher does."""

    data: bytes
    cut: int
    descriptors: int
    reads: bool
    acknowledges: bool

    @classmethod
    def of(cls, script: bytes) -> "Script":
        """Six bytes of choices; then a frame as it is, or what a whole one is damaged by."""
        how, cut, count, verb, stdin, at = script[:6].ljust(6, b"\0")
        rest = script[6:]
        data = rest
        if how & 1:
            frame = bytearray(_frame(verb, stdin, rest[:16], kind=how >> 1 & 1))
            if how & 4:
                place = at % len(frame)
                frame[place : place + len(rest)] = rest
            data = bytes(frame[: len(frame) - (at if how & 8 else 0)])
        return cls(data, cut * 7, count % 8, not how & 16, not how & 32)


def _frame(verb: int, stdin: int, name: bytes, *, kind: int) -> bytes:
    asked = Request(
        program="isthmus",
        environment={
            "CNI_COMMAND": VERBS[verb % len(VERBS)],
            "CNI_CONTAINERID": name.replace(b"\0", b"").decode(errors="surrogateescape"),
        },
        stdin=STDIN[stdin % len(STDIN)],
        started_ns=stdin,
        boot_id="b" * 36,
        netns_fd=0 if verb & 8 else None,
    )
    return frames.encode_request(asked, KINDS[kind])


class Agent:
    """The server, and what its handlers were asked; one launcher at a time."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "agent.sock"
        self.served: Counter[str] = Counter()
        self.undone = 0
        self.server = Server(
            Handlers(self._serve, self._undo, self._admin), max_parallel=4, max_queued=8
        )
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait(PATIENCE_S)

    def _run(self, ready: threading.Event) -> None:
        listening = listen(self.path)
        self.loop.call_soon(ready.set)
        self.loop.run_until_complete(self.server.run(listening, asyncio.Event()))

    def _serve(self, request: Request) -> Response:
        self.served[request.environment.get("CNI_COMMAND", "")] += 1
        if request.netns_fd is not None:
            os.fstat(request.netns_fd)  # it is open
        if request.started_ns % 5 == 4:
            return failure(CNIError(7, "no"), request.stdin)
        return Response(0, b"x" * (request.started_ns % 3 * 300_000))

    def _undo(self, _: Request) -> None:
        self.undone += 1

    def _admin(self, question: dict[str, object]) -> dict[str, object]:
        json.dumps(question)
        return {"asked": sorted(map(str, question))}


def expected(data: bytes) -> str:
    """What the bytes call for: an answer to this verb, "refusal", "admin", or "" (torn)."""
    if len(data) < frames.HEADER_SIZE:
        return ""
    try:
        header = frames.parse_header(data[: frames.HEADER_SIZE])
        body = data[frames.HEADER_SIZE :][: header.body_length]
        if len(body) < header.body_length:
            return ""
        asked = frames.parse_body(header, body)
    except frames.FrameError:
        return "refusal"
    if header.kind is frames.Kind.ADMIN:
        return "admin"
    return "verb " + asked.environment.get("CNI_COMMAND", "")


def one_input(data: bytes) -> None:
    """Play one script, and see that all is as before."""
    script = Script.of(data)
    due = expected(script.data)
    agent.served.clear()
    agent.undone = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as launcher:
        launcher.settimeout(PATIENCE_S)
        launcher.connect(str(agent.path))
        _send(launcher, script)
        answer = _play(launcher, script, due)
    if not script.reads:
        _ask()
    _settled()
    # What follows a frame is read as its acknowledgement, or the lack of it.
    tail = script.data[_frame_length(script.data) :]
    _judge(script, due, answer, tail)


def _send(launcher: socket.socket, script: Script) -> None:
    rights = array.array(
        "i", [spares[number % len(spares)] for number in range(script.descriptors)]
    )
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    first, second = script.data[: script.cut], script.data[script.cut :]
    with suppress(ConnectionError):
        for part in filter(None, (first, second)):
            sent = launcher.sendmsg([part], ancillary)
            ancillary = []
            launcher.sendall(part[sent:])


def _play(launcher: socket.socket, script: Script, due: str) -> bytes | None:
    """The answer, or None for a launcher that did not read to the end of it."""
    if not script.reads:
        return None
    received = bytearray()
    with suppress(ConnectionError):
        if not due:
            launcher.shutdown(socket.SHUT_WR)
        while len(received) < frames.ANSWER_HEADER_SIZE or len(received) < _announced(received):
            part = launcher.recv(1 << 16)
            if not part:
                break
            received += part
        if due and script.acknowledges:
            launcher.sendall(frames.ACK)
        elif due:
            launcher.shutdown(socket.SHUT_WR)
        received += launcher.recv(1)  # until it is closed
    return bytes(received)


def _announced(received: bytearray) -> int:
    header = bytes(received[: frames.ANSWER_HEADER_SIZE])
    return frames.ANSWER_HEADER_SIZE + frames.parse_answer_header(header)[1]


def _frame_length(data: bytes) -> int:
    try:
        header = frames.parse_header(data[: frames.HEADER_SIZE])
    except frames.FrameError:
        return len(data)
    return frames.HEADER_SIZE + header.body_length


def _judge(script: Script, due: str, answer: bytes | None, tail: bytes) -> None:
    if answer:
        frames.decode_response(answer)
    if answer is not None and bool(answer) != bool(due):
        raise AssertionError(f"{due or 'nothing'} was due, {answer[:80]!r} came")
    verb = due.removeprefix("verb ") if due.startswith("verb ") else None
    if sum(agent.served.values()) > (verb is not None):
        raise AssertionError(f"{due} was due, {agent.served} served")
    added = verb == "ADD" and agent.served["ADD"] and answer and answer[4:8] == bytes(4)
    if added:
        taken = tail[:1] == frames.ACK or (not tail and script.acknowledges)
        if agent.undone != (not taken):
            raise AssertionError(f"undone {agent.undone} times, taken: {taken}")


def _ask() -> None:
    """Ask something: what came before has been accepted when that is answered."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as operator:
        operator.settimeout(PATIENCE_S)
        operator.connect(str(agent.path))
        operator.sendall(_frame(0, 1, b"", kind=1))
        while operator.recv(1 << 16):
            pass


def _settled() -> None:
    """Wait until the server has let go of all that the launcher brought."""
    until = time.monotonic() + PATIENCE_S
    while (left := _left()) != before:
        if time.monotonic() > until:
            raise AssertionError(f"{left} instead of {before} are left")
        time.sleep(0.0005)


def _left() -> tuple[int, int, int, int]:
    """Descriptors, threads, requests in work, requests that wait."""
    load = agent.server.load
    return len(os.listdir("/proc/self/fd")), threading.active_count(), load.in_work, load.queued


SEEDS = [
    bytes([how, cut, count, verb, 1, 0]) + rest
    for how, cut, count, verb, rest in (
        (1, 200, 0, 0, b"web"),
        (1, 3, 1, 8, b"web"),
        (33, 200, 7, 8, b"web"),
        (17, 200, 1, 0, b"web"),
        (3, 200, 0, 0, b""),
        (5, 13, 2, 1, b"\xff\xff"),
        (9, 200, 1, 4, b""),
        (0, 4, 0, 0, b"isth\1\0\1\0"),
        (0, 0, 3, 0, b""),
    )
]

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.setswitchinterval(0.0005)  # as the agent does
    spares = [os.open("/proc/self/ns/net", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)]
    spares += os.pipe()
    spares += [socket.socketpair()[0].detach()]
    # libFuzzer leaves by _exit: nothing is removed, so it is one folder for every run.
    directory = Path(tempfile.gettempdir()) / f"isthmus-fuzz-socket-{os.getuid()}"
    agent = Agent(directory)
    for warm in SEEDS[:3]:
        before = (-1, -1, -1, -1)
        with suppress(AssertionError):
            PATIENCE_S, kept = 0.3, PATIENCE_S
            one_input(warm)
        PATIENCE_S = kept
    before = _left()
    run(one_input, "socket", SEEDS)
