"""One machine for a test: a network namespace, an agent in it, and the launcher as a runtime.

The agent is a process of its own with its state in the machine's directory, so that it can be
ended, hung and started again; the launcher is the test build, whose deadlines are a tenth.

    machine.start()
    pod = machine.pod("web")
    done = machine.add(pod)           # Done: status, stdout, error
    machine.pause(); machine.kill(); machine.start()
    machine.delete(pod)
    assert machine.leftovers() == []
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from agent.boot import boot_id, now_ns
from agent.client import ask
from agent.config import AgentConfig, parse
from agent.search import NETWORK as FOUND
from cni.frames import encode_request
from cni.link_config import HOST_PREFIX
from cni.request import Request
from cni.tables import MAC_GUARD, NAT
from dataplane.links import Links
from dataplane.nft.elements import Elements
from dataplane.nft.objects import Element
from tests.kernel.conftest import Namespace
from tests.kernel.launcher.process import Done, Launcher, ended, filled
from tests.kernel.sockets import inside

ROOT = Path(__file__).parents[2]
READY_S = 60.0  # of a machine with much else to do; an agent that ends is not waited for

# What takes a minute on a node takes a second here; rounds come only where a test asks.
SETTINGS: Mapping[str, object] = {
    "log_format": "console",
    "cooldown_s": 1.0,
    "reconcile_interval_s": 0.5,
    "grace_s": 0.5,
}

NETWORK: Mapping[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "shop",
    "type": "isthmus",
    "ipMasq": True,
    "ipam": {"type": "isthmus", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
}


@dataclass(frozen=True, slots=True)
class Pod:
    """A container of a test: its id and its namespace."""

    container_id: str
    namespace: Namespace

    @property
    def path(self) -> str:
        return self.namespace.path

    def addresses(self, ifname: str = "eth0") -> list[str]:
        """The addresses that its interface really has, without prefix lengths."""
        shown = self.namespace.run(
            "ip", "-j", "address", "show", "dev", ifname, "scope", "global", check=False
        )
        found = json.loads(shown) if shown.strip() else []
        # ip prints an empty object for each interface that it filtered out.
        infos = [info for one in found for info in one.get("addr_info", ())]
        return [info["local"] for info in infos if "local" in info]


@dataclass(slots=True, kw_only=True)
class Machine:
    """A host of its own; *network* is the configuration of every call that names no other.

    *entry* is what runs the agent, after *prefix* and the interpreter, in *tree*; *settings* go
    into its file.
    """

    host: Namespace
    launcher: Launcher
    network: Mapping[str, Any] = field(default_factory=lambda: dict(NETWORK))
    settings: Mapping[str, object] = field(default_factory=dict)
    entry: Sequence[str] = ("-m", "cli", "agent")
    prefix: Sequence[str] = ()
    tree: Path = ROOT
    process: subprocess.Popen[bytes] | None = None
    pods: dict[str, Pod] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """The state directory, with the socket in it."""
        return self.launcher.directory

    @property
    def database(self) -> Path:
        return self.config.database

    @property
    def log(self) -> Path:
        return self.state.with_suffix(".log")  # where a full disk does not reach

    @property
    def config(self) -> AgentConfig:
        """What the agent is told, for a test that builds a node of its own."""
        paths = {"socket": str(self.launcher.socket), "state_dir": str(self.state)}
        return parse({**SETTINGS, **self.settings, **paths})

    def start(self, *, environment: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Start the agent and wait until it serves; AssertionError with its log if it does not."""
        self.wait_for_end()
        self._configure()
        path = self.state / "notify.sock"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(path))
            ready.settimeout(0.1)
            variables = {"PYTHONPATH": str(self.tree), "NOTIFY_SOCKET": str(path)}
            self._spawn({**os.environ, **variables, **(environment or {})})
            for _ in range(int(READY_S / 0.1) if wait else 0):
                with suppress(TimeoutError):
                    if b"READY=1" in ready.recv(4096):
                        return
                if self.has_ended:
                    break
        if wait:
            raise AssertionError(f"the agent does not serve:\n{self.tail()}")

    @property
    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """End the agent as a service manager does; returns its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait_for_end()

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        if self.process is not None:
            self.process.kill()
            self.wait_for_end()

    def pause(self) -> None:
        """Hang it, and wait until every thread of it stands still."""
        self.signal(signal.SIGSTOP)
        assert self.process is not None
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def wait_for_end(self) -> int:
        """Wait until the agent, if there is one, has ended; returns its exit status."""
        if self.process is None:
            return 0
        return self.process.wait(READY_S)

    def pod(self, container_id: str = "") -> Pod:
        """Make a container's namespace, with loopback up."""
        namespace = _made(Namespace(f"it-pod-{secrets.token_hex(5)}"))
        pod = Pod(container_id or f"c-{secrets.token_hex(6)}", namespace)
        self.pods[pod.container_id] = pod
        return pod

    def remove(self, pod: Pod) -> None:
        """Let its namespace go, as a container that ends."""
        self.pods.pop(pod.container_id, None)
        _gone(pod.namespace)

    def add(self, pod: Pod, **options: Any) -> Done:
        return self.call("ADD", pod, **options)

    def delete(self, pod: Pod, **options: Any) -> Done:
        return self.call("DEL", pod, **options)

    def call(
        self,
        verb: str,
        pod: Pod | None = None,
        *,
        network: Mapping[str, Any] | None = None,
        stdin: bytes | None = None,
        name: str = "isthmus",
        **variables: str,
    ) -> Done:
        """Execute the launcher as a runtime does, with *variables* beyond the usual ones."""
        environment = self.environment(verb, pod, **variables)
        with inside(self.host):
            return self.launcher.execute(environment, self.stdin(network, stdin), name=name)

    @contextmanager
    def calling(
        self,
        verb: str,
        pod: Pod,
        *,
        stdin: bytes | None = None,
        stdout: int = subprocess.PIPE,
        **variables: str,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A call that goes on beside the block; it has all its input, and has ended after it."""
        with filled(self.stdin(None, stdin)) as file, inside(self.host):
            process = subprocess.Popen(
                ["isthmus"],
                executable=self.launcher.binary,
                env=self.environment(verb, pod, **variables),
                stdin=file,
                stdout=stdout,
            )
        with ended(process):
            yield process

    def frame(self, verb: str, pod: Pod) -> bytes:
        """The request that a launcher started now would send, but for the descriptor."""
        return encode_request(
            Request(
                program="isthmus",
                environment=self.environment(verb, pod),
                stdin=self.stdin(None, None),
                started_ns=now_ns(),
                boot_id=boot_id(),
            )
        )

    def connect(self) -> socket.socket:
        """A connection to the agent, as a launcher makes it."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(READY_S)
        connection.connect(str(self.launcher.socket))
        return connection

    def environment(self, verb: str, pod: Pod | None = None, **variables: str) -> dict[str, str]:
        """The environment of a call; a variable given as "" is left out."""
        of_pod = {"CNI_CONTAINERID": pod.container_id, "CNI_NETNS": pod.path} if pod else {}
        found = self.launcher.environment(verb, **{"PATH": os.environ["PATH"]} | of_pod | variables)
        return {name: value for name, value in found.items() if value}

    def stdin(self, network: Mapping[str, Any] | None, stdin: bytes | None) -> bytes:
        return json.dumps(network or self.network).encode() if stdin is None else stdin

    def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        """The agent's answer to an operator's question."""
        return ask(self.launcher.socket, {"op": op, **arguments})

    def records(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """What the agent remembers: container id to state and addresses, without their prefix.

        But for what it found after a loss: other tests have namespaces on this machine too.
        """
        return {
            record["container_id"]: (record["state"], tuple(map(bare, record["addresses"])))
            for record in self.ask("attachments")["attachments"]
            if record["network"] != FOUND
        }

    def problems(self) -> list[str]:
        """What `isthmus ipam check` says, but of what was found after a loss."""
        answer = self.ask("ipam-check")
        problems = answer.get("problems", [str(answer.get("error"))])
        return [problem for problem in problems if not problem.startswith(f"{FOUND}/")]

    def links(self) -> list[str]:
        """The host sides of pairs that there are."""
        with inside(self.host):
            # Its sockets are of this thread and go with it.
            links = Links()
            with links.host():
                return sorted(one.name for one in links.all() if one.name.startswith(HOST_PREFIX))

    def elements(self) -> list[Element]:
        """The elements in all tables of ours."""
        with inside(self.host), Elements() as kernel:
            return [
                element
                for table in (NAT, MAC_GUARD)
                for each in table.sets
                if kernel.exists(each.family, each.table, each.name)
                for element in kernel.observe(each)
            ]

    def leftovers(self) -> list[str]:
        """Links, elements and waiting deletions, as text; nothing on a machine without pods."""
        waiting = [f"spool {name}" for name in self.launcher.spooled()]
        return [f"link {name}" for name in self.links()] + list(map(str, self.elements())) + waiting

    def tail(self, lines: int = 40) -> str:
        """The end of the agent's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """End what runs; let all namespaces of pods go."""
        if not self.has_ended:
            self.resume()  # a hung process does not end
        self.kill()
        for pod in list(self.pods.values()):
            self.remove(pod)

    def _configure(self) -> None:
        settings = {**SETTINGS, **self.settings}
        settings |= {"socket": str(self.launcher.socket), "state_dir": str(self.state)}
        tables = {key: value for key, value in settings.items() if isinstance(value, Mapping)}
        lines = [
            f"{key} = {json.dumps(value)}\n" for key, value in settings.items() if key not in tables
        ]
        for name, table in tables.items():
            lines.append(f"[{name}]\n")
            lines += [f"{key} = {json.dumps(value)}\n" for key, value in table.items()]
        (self.state / "agent.toml").write_text("".join(lines))

    def _spawn(self, environment: Mapping[str, str]) -> None:
        argv = [
            *self.prefix,
            sys.executable,
            *self.entry,
            "--config",
            str(self.state / "agent.toml"),
        ]
        with self.log.open("ab") as log, inside(self.host):
            self.process = subprocess.Popen(
                argv,
                cwd=self.tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@contextmanager
def made_machine(directory: Path, binary: str, **options: Any) -> Iterator[Machine]:
    """A machine over *directory*; all that it made has gone after the block."""
    directory.mkdir(exist_ok=True)
    host = _made(Namespace(f"it-machine-{secrets.token_hex(5)}"))
    machine = Machine(host=host, launcher=Launcher(binary, directory), **options)
    try:
        yield machine
    finally:
        machine.close()
        if tail := machine.tail():
            sys.stdout.write(f"---- {machine.log}\n{tail}\n")  # shown when a test failed
        _gone(host)


def until(claim: Callable[[], bool], what: str, *, timeout: float = 30.0) -> None:
    """Wait until *claim* holds; AssertionError, that not *what*, if it does not in time.

    For what the kernel, or a process of its own, does in its own time.
    """
    pause, deadline = threading.Event(), time.monotonic() + timeout
    while not claim():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        pause.wait(0.02)


def addresses(done: Done) -> tuple[str, ...]:
    """The addresses that a successful ADD told, without their prefix lengths."""
    assert done.status == 0, done
    return tuple(bare(one["address"]) for one in json.loads(done.stdout)["ips"])


def bare(address: str) -> str:
    return str(ip_interface(address).ip)


def _made(namespace: Namespace) -> Namespace:
    subprocess.run(["ip", "netns", "add", namespace.name], check=True, timeout=30)
    subprocess.run(["ip", "-n", namespace.name, "link", "set", "lo", "up"], check=True, timeout=30)
    return namespace


def _gone(namespace: Namespace) -> None:
    subprocess.run(
        ["ip", "netns", "del", namespace.name], check=False, capture_output=True, timeout=30
    )
