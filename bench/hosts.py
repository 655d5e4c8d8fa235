"""What is compared: a host of its own for each plugin, and pods that they take turns at.

Everything is in network namespaces named isthmus-bench-*, and in one temporary directory, which
should lie on a real disk: ours syncs to it, the reference's host-local does not.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRIVER = ROOT / "build/bench/driver"
LAUNCHER = ROOT / "build/launcher/isthmus-launcher"
PREFIX = "isthmus-bench-"
PODS_PREFIX = f"{PREFIX}pod-"
PODS = 64
_SUBNETS = ("10.88.0.0/16", "fd88::/64")
_UPLINK = (
    "link add uplink0 type veth peer name uplink1",
    "address add 192.0.2.2/24 dev uplink0",
    "link set uplink0 up",
    "link set uplink1 up",
    "route add default via 192.0.2.1",
)


class BenchError(Exception):
    """Something could not be measured; says why."""


@dataclass(frozen=True, slots=True)
class Runs:
    """What one run of the driver measured, in milliseconds, by verb."""

    each: Mapping[str, list[float]]
    wall: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One way to attach a container: a program on a host with a configuration."""

    name: str
    program: Path
    host: str
    conf: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def run(self, *verbs: str, count: int, parallel: int = 1) -> Runs:
        """Run each of *verbs* *count* times; raises BenchError where one of them failed."""
        argv = [DRIVER, self.program, self.conf, PODS, count, parallel, *verbs]
        done = subprocess.run(
            ["ip", "netns", "exec", self.host, *map(str, argv)],
            env={**os.environ, "PODS_PREFIX": PODS_PREFIX, "CNI_PATH": str(self.program.parent)}
            | dict(self.env),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"{self.name}: {done.stderr.strip()}")
        return _parse(done.stdout)


def _parse(output: str) -> Runs:
    each: dict[str, list[float]] = {}
    wall: dict[str, float] = {}
    for line in output.splitlines():
        first, second, third = line.split()
        if first == "wall":
            wall[second] = int(third) / 1e6
        else:
            each.setdefault(first, []).append(int(second) / 1e6)
    return Runs(each, wall)


@contextmanager
def host(name: str) -> Iterator[str]:
    """A network namespace with an uplink and a default route."""
    full = PREFIX + name
    with namespace(full):
        for command in _UPLINK:
            ip("-netns", full, *command.split())
        yield full


@contextmanager
def pods() -> Iterator[None]:
    with ExitStack() as undo:
        for number in range(PODS):
            undo.enter_context(namespace(f"{PODS_PREFIX}{number}"))
        yield


@contextmanager
def namespace(name: str) -> Iterator[None]:
    if Path("/run/netns", name).exists():
        ip("netns", "delete", name)
    ip("netns", "add", name)
    try:
        ip("-netns", name, "link", "set", "lo", "up")
        yield
    finally:
        ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Agent:
    """Our agent on a host; `start` returns before it serves, as launchers wait for it."""

    def __init__(self, host_name: str, directory: Path, settings: str = "") -> None:
        directory.mkdir()
        self.host = host_name
        self.directory = directory
        self._config = directory / "agent.toml"
        self._config.write_text(
            f'socket = "{directory}/agent.sock"\nstate_dir = "{directory}/state"\n' + settings
        )
        self._log = (directory / "log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        return {
            "ISTHMUS_SOCKET": f"{self.directory}/agent.sock",
            "ISTHMUS_SPOOL": f"{self.directory}/state/spool",
        }

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        argv = [ROOT / ".venv/bin/python", "-m", "cli", "agent", "--config", self._config]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self.host, *map(str, argv)],
            cwd=ROOT,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # as the systemd unit has it
            stdout=self._log,
            stderr=self._log,
        )

    def wait(self) -> None:
        """Until it serves; raises BenchError with its log when it ended instead."""
        until = time.monotonic() + 20
        while not (self.directory / "agent.sock").exists():
            assert self._process
            if self._process.poll() is not None or time.monotonic() > until:
                raise BenchError(f"the agent does not serve: {self.log()}")
            time.sleep(0.01)  # nobody tells when a path appears

    def kill(self) -> None:
        """End it as a crash does, at once."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-2000:]


@contextmanager
def agent(host_name: str, directory: Path, settings: str = "") -> Iterator[Agent]:
    """An agent that serves; *settings* are further lines of its configuration."""
    found = Agent(host_name, directory, settings)
    try:
        found.start()
        found.wait()
        yield found
    finally:
        found.stop()


def isthmus(running: Agent, name: str = "isthmus", **options: object) -> Plugin:
    """Our launcher, with the agent behind it."""
    programs = running.directory / "bin"
    programs.mkdir(exist_ok=True)
    shutil.copy(LAUNCHER, programs / "isthmus")
    return Plugin(
        name=name,
        program=programs / "isthmus",
        host=running.host,
        conf=_write(running.directory, "isthmus", {"type": "isthmus"}, options),
        env=running.env,
    )


def standalone(program: Path, host_name: str, directory: Path) -> Plugin:
    """The program without an agent."""
    directory.mkdir()
    config = directory / "agent.toml"
    config.write_text(f'socket = "{directory}/none"\nstate_dir = "{directory}/state"\n')
    return Plugin(
        name="isthmus standalone",
        program=program,
        host=host_name,
        conf=_write(directory, "isthmus", {"type": "isthmus"}, {}),
        env={"ISTHMUS_CONFIG": str(config)},
    )


def reference(
    programs: Path, host_name: str, directory: Path, name: str, **options: object
) -> Plugin:
    """The reference bridge, or its ptp by the option *kind*, of the folder *programs*.

    Below either is host-local.
    """
    directory.mkdir(exist_ok=True)
    data, kind = directory / "host-local", str(options.pop("kind", "bridge"))
    ipam = {"type": "host-local", "dataDir": str(data)}
    document: dict[str, object] = {"type": kind, "ipam": ipam}
    if kind == "bridge":
        document |= {"isGateway": True, "isDefaultGateway": True}
    return Plugin(
        name=name,
        program=programs / kind,
        host=host_name,
        conf=_write(directory, name.replace(" ", "-"), document, options),
    )


def _write(
    directory: Path, name: str, document: dict[str, object], options: dict[str, object]
) -> Path:
    """A configuration; the option *families* says how many addresses a pod gets.

    0: as many as there are blocks for, which are the node's own.
    """
    families = options.pop("families", 1)
    assert isinstance(families, int)
    given = document.get("ipam", {"type": "isthmus"})
    assert isinstance(given, dict)
    ranges = [[{"subnet": subnet}] for subnet in _SUBNETS[:families]]
    ipam = {**given, "ranges": ranges} if ranges else given
    text = json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "bench",
            **document,
            **options,
            "ipam": ipam,
        }
    )
    path = directory / f"{name}-{abs(hash(text)):x}.json"
    path.write_text(text)
    return path


def build_driver() -> None:
    source = Path(__file__).with_name("driver.c")
    if DRIVER.exists() and DRIVER.stat().st_mtime > source.stat().st_mtime:
        return
    DRIVER.parent.mkdir(parents=True, exist_ok=True)
    argv: Sequence[str] = ["cc", "-O2", "-Wall", "-Wextra", "-pthread", "-o", str(DRIVER)]
    subprocess.run([*argv, str(source)], check=True)
