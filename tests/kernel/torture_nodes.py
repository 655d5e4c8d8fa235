"""The nodes of a torture: whole agents, and nodes without their data plane, asked alike.

`add` raises Away where there was no answer, so that nobody was told of an address, and Refused
with the node's reason where it said no.
"""

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.client import AgentAway
from ipam.reading import read_records
from tests.kernel.agents import ROOT, Machine, Pod, addresses, until
from tests.kernel.etcd import Host

ANSWER_S = 60.0
PATIENCE_S = 120.0
NETWORK: Mapping[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "isthmus",
    "mode": "routed",
    "ipam": {"type": "isthmus"},
}
# How the agent begins to say that it has no address; all else of code 11 is of other causes.
_NO_ADDRESS = ("this node ", "no usable ")


class Away(Exception):
    """It ended, or hung, on the way."""


class Refused(Exception):
    """It said no."""


class Node(Protocol):
    """One node; all but `start` and `kill` from any thread."""

    @property
    def name(self) -> str: ...
    @property
    def database(self) -> Path: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def add(self, container: str) -> list[str]: ...
    def delete(self, container: str) -> None: ...
    def status(self) -> dict[str, Any]: ...
    def check(self) -> list[str]: ...
    def leftovers(self) -> list[str]: ...
    def tail(self) -> str: ...


def until_each(nodes: Iterable[Node], holds: Callable[[Node], bool], what: str) -> None:
    """Wait until it *holds* of all at once; else AssertionError, which tells of those it does not.

    It does not of a node that is away.
    """
    late: list[Node] = []

    def is_so(node: Node) -> bool:
        try:
            return holds(node)
        except Away:
            return False

    def are_all() -> bool:
        late[:] = [node for node in nodes if not is_so(node)]
        return not late

    try:
        until(are_all, what, timeout=PATIENCE_S)
    except AssertionError as exc:
        raise AssertionError("\n".join([str(exc), *map(described, late)])) from None


def described(node: Node) -> str:
    try:
        told = f"{node.status()} {node.check()}"
    except Away:
        told = "away"
    return f"---- {node.name}: {told} {left(node)}\n{node.tail()}"


def left(node: Node) -> list[str]:
    """What it still has, in its store and in the kernel."""
    return [*map(str, read_records(node.database)), *node.leftovers()]


@dataclass(slots=True)
class _Life:
    """One process, and what it was asked."""

    process: "subprocess.Popen[str]"
    asked: dict[int, "Future[Any]"] = field(default_factory=dict)
    is_over: bool = False


@dataclass(slots=True)
class LightNode:
    """A process of cluster_node; *boot* is a number, and each new one a boot of the machine."""

    name: str
    host: Host
    directory: Path
    ipamd: Mapping[str, object]
    boot: int = 1
    _life: _Life | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def database(self) -> Path:
        return self.directory / "state" / "isthmus.db"

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "agent.toml"
        lines = [f'state_dir = "{self.directory}/state"', "cooldown_s = 1.0", "[ipamd]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in self.ipamd.items()]
        config.write_text("\n".join(lines) + "\n")
        argv = ["-m", "tests.kernel.cluster_node", str(config), f"{self.name}-{self.boot}"]
        with (self.directory / "log").open("ab") as log, self.host.inside():
            process = subprocess.Popen(
                [sys.executable, *argv],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._life = _Life(process)
        threading.Thread(target=self._read, args=(self._life,)).start()

    def kill(self) -> None:
        if self._life is not None:
            self._life.process.kill()
            self._life.process.wait(30)

    def add(self, container: str) -> list[str]:
        answer = self._ask("add", container)
        if isinstance(answer, dict):
            raise Refused(answer["refused"])
        return list(answer)

    def delete(self, container: str) -> None:
        self._ask("delete", container)

    def demand(self, pool: str) -> None:
        self._ask("demand", pool)

    def status(self) -> dict[str, Any]:
        return dict(self._ask("status"))

    def check(self) -> list[str]:
        return list(self._ask("check"))

    def leftovers(self) -> list[str]:
        return []

    def tail(self) -> str:
        ended = self._life.process.poll() if self._life else None
        lines = (self.directory / "log").read_text(errors="replace").splitlines()
        return "\n".join([*lines[-40:], *([f"ended: {ended}"] if ended is not None else ())])

    def _ask(self, verb: str, container: str = "") -> Any:
        future: Future[Any] = Future()
        with self._lock:
            life = self._life
            if life is None or life.is_over:
                raise Away
            number = next(self._numbers)
            life.asked[number] = future
            assert life.process.stdin is not None
            with suppress(OSError):  # its reader finds that it is over
                life.process.stdin.write(json.dumps([number, verb, container]) + "\n")
                life.process.stdin.flush()
        try:
            return future.result(ANSWER_S)
        except TimeoutError:
            raise AssertionError(
                f"{self.name} is silent for {ANSWER_S:g} s after {verb} {container}:\n{self.tail()}"
            ) from None

    def _read(self, life: _Life) -> None:
        assert life.process.stdout is not None
        assert life.process.stdin is not None
        with life.process.stdout as answers:
            for line in answers:
                if line.endswith("\n"):
                    number, answer = json.loads(line)
                    life.asked.pop(number).set_result(answer)
        with self._lock:
            life.is_over = True
            with suppress(OSError):
                life.process.stdin.close()
        for future in life.asked.values():
            future.set_exception(Away())


@dataclass(slots=True)
class WholeNode:
    """A machine with an agent, asked by the launcher for real attachments."""

    name: str
    machine: Machine
    pods: dict[str, Pod] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        return self.machine.database

    def start(self) -> None:
        self.machine.start()

    def kill(self) -> None:
        self.machine.kill()

    def add(self, container: str) -> list[str]:
        pod = self.pods.get(container) or self.pods.setdefault(container, self.machine.pod())
        done = self.machine.add(pod, network=NETWORK)
        if done.status == 0:
            return list(addresses(done))
        error = json.loads(done.stdout)
        if error["code"] == 100 or (error["code"] == 11 and error["msg"].startswith(_NO_ADDRESS)):
            raise Refused(error["msg"])
        # 5 is the launcher's: this machine was too busy to give it its input within a second.
        if error["code"] not in (5, 11):
            raise AssertionError(f"{self.name}: ADD: {error}")
        raise Away

    def delete(self, container: str) -> None:
        if (pod := self.pods.get(container)) is None:
            return
        done = self.machine.delete(pod, network=NETWORK)
        if done.status:
            raise Away

    def status(self) -> dict[str, Any]:
        return dict(self._ask("status")["status"]["cluster"])

    def check(self) -> list[str]:
        return self.machine.problems()

    def leftovers(self) -> list[str]:
        return self.machine.leftovers()

    def tail(self) -> str:
        return self.machine.tail()

    def _ask(self, op: str) -> dict[str, Any]:
        try:
            return self.machine.ask(op)
        except (AgentAway, OSError, ValueError):
            raise Away from None
