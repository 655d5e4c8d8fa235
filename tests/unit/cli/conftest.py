"""A command line to run, and an agent that says what a test wants."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.group import isthmus
from cni.frames import HEADER_SIZE, encode_response, parse_body, parse_header
from cni.request import Response

Answer = Callable[[dict[str, Any]], dict[str, Any]]
Run = Callable[..., Result]
Agent = Callable[[Answer], Path]


@pytest.fixture
def run() -> Run:
    """Run the command line with these words; what it says and how it leaves."""
    return lambda *words: CliRunner().invoke(isthmus, [str(word) for word in words])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """Start an agent that answers each question by a function; its socket's path."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as server, ThreadPoolExecutor(1) as pool:
        server.bind(str(path))

        def serve(answer: Answer) -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as stream:
                    header = parse_header(stream.read(HEADER_SIZE))
                    request = parse_body(header, stream.read(header.body_length))
                    reply = json.dumps(answer(json.loads(request.stdin))).encode()
                    connection.sendall(encode_response(Response(0, reply)))

        def start(answer: Answer) -> Path:
            server.listen()
            pool.submit(serve, answer)
            return path

        yield start
        server.shutdown(socket.SHUT_RDWR)
