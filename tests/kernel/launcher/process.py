"""One run of the launcher, as a runtime sees it."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

ATTACHMENT = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/proc/self/ns/net"}
CONFIG = b'{"cniVersion": "0.4.0", "name": "shop", "type": "isthmus"}'
STANDALONE_CONFIG = b'{"cniVersion": "1.0.0", "name": "shop", "standalone": true}'
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
OTHERS = [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)]
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON document of a failure."""
        assert self.status == 1, self
        document: dict[str, Any] = json.loads(self.stdout.decode("utf-8"))
        assert set(document) == {"cniVersion", "code", "msg", "details"}
        return document


@dataclass(frozen=True, slots=True)
class Launcher:
    """The binary with a socket, a spool and a standalone program of the test's own."""

    binary: str
    directory: Path

    @property
    def socket(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @property
    def standalone(self) -> Path:
        return self.directory / "standalone"

    def environment(self, command: str, **variables: str) -> dict[str, str]:
        return {
            "CNI_COMMAND": command,
            "CNI_PATH": "/opt/cni/bin",
            "ISTHMUS_SOCKET": str(self.socket),
            "ISTHMUS_SPOOL": str(self.spool),
            "ISTHMUS_STANDALONE": str(self.standalone),
            **(ATTACHMENT if command not in ("GC", "STATUS") else {}),
            **variables,
        }

    def run(
        self, command: str, stdin: bytes = CONFIG, *, name: str = "isthmus", **variables: str
    ) -> Done:
        return self.execute(self.environment(command, **variables), stdin, name=name)

    def execute(
        self, environment: dict[str, str] | dict[bytes, bytes], stdin: bytes, *, name: str
    ) -> Done:
        with filled(stdin) as file:
            done = subprocess.run(
                [name],
                executable=self.binary,
                env=environment,
                stdin=file,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Begin a call whose descriptors the test handles; end it by *ended*."""
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
        return subprocess.Popen(
            ["isthmus"], executable=self.binary, env=self.environment(command), **options
        )

    def spooled(self) -> list[str]:
        return sorted(os.listdir(self.spool)) if self.spool.exists() else []


@contextmanager
def filled(content: bytes) -> Iterator[IO[bytes]]:
    """A file to read *content* from: a launcher has all of it, though no thread of ours runs."""
    with TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Whatever happens in the block, the process has gone after it."""
    with process:
        try:
            yield process
            process.wait(timeout=TIMEOUT_S)
        finally:
            process.kill()


def close_stdin(process: subprocess.Popen[bytes], content: bytes = CONFIG) -> None:
    assert process.stdin is not None
    process.stdin.write(content)
    process.stdin.close()
