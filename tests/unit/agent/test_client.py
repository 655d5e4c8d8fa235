"""The operator's end of the socket, against a server of three lines."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.client import AgentAway, ask
from cni.frames import HEADER_SIZE, Kind, encode_response, parse_body, parse_header
from cni.request import Response

Serve = Callable[[bytes], "Future[object]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    """Answer one connection with given bytes; the future has the question."""
    with socket.socket(socket.AF_UNIX) as server, ThreadPoolExecutor(1) as pool:
        server.bind(str(path))
        server.listen()

        def once(answer: bytes) -> object:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as stream:
                header = parse_header(stream.read(HEADER_SIZE))
                request = parse_body(header, stream.read(header.body_length))
                assert header.kind is Kind.ADMIN
                connection.sendall(answer)
                return json.loads(request.stdin)

        yield lambda answer: pool.submit(once, answer)


def test_the_question_arrives_and_the_answer_comes_back(path: Path, serve: Serve) -> None:
    seen = serve(encode_response(Response(0, b'{"status": {"serving": true}}')))

    answer = ask(path, {"op": "status"})

    assert answer == {"status": {"serving": True}}
    assert seen.result() == {"op": "status"}


def test_an_answer_of_many_packets_is_read_whole(path: Path, serve: Serve) -> None:
    long = {"problems": ["x" * 50] * 20_000}
    serve(encode_response(Response(0, json.dumps(long).encode())))

    assert ask(path, {"op": "ipam-check"}) == long


def test_a_refusal_in_the_form_of_a_cni_error_is_an_answer(path: Path, serve: Serve) -> None:
    serve(encode_response(Response(75, b'{"code": 11, "msg": "agent is full", "details": "9"}')))

    assert ask(path, {"op": "status"}) == {"error": "agent is full: 9"}


def test_without_a_socket_the_message_says_that_no_agent_runs(path: Path) -> None:
    with pytest.raises(AgentAway, match="no agent runs"):
        ask(path, {"op": "status"})


def test_a_socket_nobody_listens_at_is_no_agent(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    with pytest.raises(AgentAway, match="nobody listens"):
        ask(path, {"op": "status"})


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", encode_response(Response(0, b"[1]"))]
)
def test_what_is_no_answer_is_told(path: Path, serve: Serve, answer: bytes) -> None:
    serve(answer)

    with pytest.raises(AgentAway, match="does not answer as it should"):
        ask(path, {"op": "status"})
