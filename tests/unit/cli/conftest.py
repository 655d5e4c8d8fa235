"""A command line to run, and an agent that says what a test wants."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.group import isthmus
from cni.frames import HEADER_SIZE, encode_response, parse_body, parse_header
from cni.request import Response
from ipam.channel import Channels
from tests.certificates import Authority

Answer = Callable[[dict[str, Any]], dict[str, Any]]
Run = Callable[..., Result]
Agent = Callable[[Answer], Path]
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Served:
    """An ipamd with an empty store; *options* name it to a command."""

    endpoint: str
    signer: Authority
    identity: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--ipamd", self.endpoint, "--identity", str(self.identity))

    def as_node(self, node: str, *calls: tuple[str, Any]) -> list[Any]:
        """The answers to *calls*, (method, request), of *node*'s agent."""

        async def ask() -> list[Any]:
            channels = Channels([self.endpoint], self.signer.node(node))
            try:
                return [await channels.call(*call, within_s=10) for call in calls]
            finally:
                await channels.close()

        return asyncio.run(ask())


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


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Served]:
    """An ipamd of its own process, over a store in memory."""
    directory = tmp_path / "ipamd"
    signer = Authority(directory)
    files, _ = signer.server(), signer.admin()
    config = directory / "ipamd.toml"
    config.write_text(
        f'listen = "127.0.0.1:0"\nstate_dir = "{directory}"\ndrain_s = 1\n'
        f'certificate = "{files.certificate}"\nkey = "{files.key}"\nca = "{files.ca}"\n'
    )
    with subprocess.Popen(
        [sys.executable, "-m", "tests.replica", str(config)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as replica:
        assert replica.stdout
        yield Served(f"127.0.0.1:{replica.stdout.readline().strip()}", signer, directory)
        replica.terminate()
