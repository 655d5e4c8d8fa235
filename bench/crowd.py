"""Simulated nodes as the one who measures sees them: several processes, told things at once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cluster import Cluster
from hosts import ROOT, BenchError

PROCESSES = 2


class Part:
    """One process of them: *program* is nodes.py or agents.py."""

    def __init__(self, program: str, config: Path, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(program)), str(config)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log

    def tell(self, name: str, options: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps([name, options])}\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Raises BenchError where a node was refused."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"simulated nodes ended: {self._log.read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"a simulated node was refused: {answer['error']}")
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class Crowd:
    """The nodes of all parts, each with a certificate of *cluster*'s authority."""

    def __init__(self, cluster: Cluster, names: list[str], program: str, undo: ExitStack) -> None:
        self._parts = []
        for number in range(min(PROCESSES, len(names))):
            mine = list(enumerate(names))[number::PROCESSES]
            config = cluster.directory / f"{names[0]}-{number}.json"
            config.write_text(json.dumps(_config(cluster, mine)))
            part = Part(program, config, config.with_suffix(".log"))
            undo.callback(part.end)
            self._parts.append(part)

    def ask(self, name: str, **options: Any) -> list[Any]:
        """What each part answers."""
        self.tell(name, **options)
        return self.answers()

    def tell(self, name: str, **options: Any) -> None:
        for part in self._parts:
            part.tell(name, options)

    def answers(self) -> list[Any]:
        """What each part says to what it was told last."""
        return [part.answer() for part in self._parts]

    def time(self, name: str, **options: Any) -> tuple[float, list[Any]]:
        """The seconds from the first part's begin to the last one's end, and their answers."""
        answers = self.ask(name, **options)
        return max(a["ended"] for a in answers) - min(a["began"] for a in answers), answers


def _config(cluster: Cluster, nodes: list[tuple[int, str]]) -> dict[str, Any]:
    files = {name: (number, cluster.authority.node(name)) for number, name in nodes}
    return {
        "endpoints": cluster.endpoints,
        "ca": str(cluster.authority.file),
        "nodes": {
            name: [number, str(tls.certificate), str(tls.key)]
            for name, (number, tls) in files.items()
        },
    }


@contextmanager
def crowd(cluster: Cluster, names: list[str], program: str = "nodes.py") -> Iterator[Crowd]:
    with ExitStack() as undo:
        yield Crowd(cluster, names, program, undo)
