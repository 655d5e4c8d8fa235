"""The little world of the demonstration: four network namespaces, an agent, and a launcher.

    outside ── host ── web, shell        the machine's own network is in none of them

Whatever is made registers its removal before it is made, so that every way out leaves nothing.
"""

import json
import os
import shutil
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.answers import Problem
from cli.places import CONF, own_command
from dataplane.netns import entered, open_path
from dataplane.programs import Running, run

UPLINK = ("192.0.2.1/24", "2001:db8:7::1/64")
BEYOND = ("192.0.2.2/24", "2001:db8:7::2/64")
_READY_S = 20.0


@dataclass(slots=True)
class Site:
    """All that the demonstration makes, under names that end in *suffix*, below *directory*."""

    suffix: str
    directory: Path
    launcher: Path
    undo: ExitStack = field(default_factory=ExitStack)
    agent: Running | None = None

    @property
    def socket_path(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def store(self) -> Path:
        return self.state / "isthmus.db"

    @property
    def log(self) -> Path:
        return self.directory / "agent.log"

    def name(self, part: str) -> str:
        """The network namespace of *part*."""
        return f"isthmus-demo-{self.suffix}-{part}"

    def path(self, part: str) -> str:
        return f"/run/netns/{self.name(part)}"

    def build(self) -> None:
        """Make the directory, and the namespaces `host` and `outside` with a wire between."""
        self.undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700)
        self.state.mkdir(mode=0o700)
        plugins = self.directory / "bin"
        plugins.mkdir()
        shutil.copy2(self.launcher, plugins / "isthmus")
        for part in ("outside", "host"):
            self.add_namespace(part)
        host, outside = self.name("host"), self.name("outside")
        self.must(
            "ip", "-n", host, "link", "add", "uplink", "type", "veth",
            "peer", "name", "uplink", "netns", outside,
        )  # fmt: skip
        for namespace, addresses in ((host, UPLINK), (outside, BEYOND)):
            for address in addresses:
                nodad = ["nodad"] if ":" in address else []
                self.must("ip", "-n", namespace, "addr", "add", address, "dev", "uplink", *nodad)
            self.must("ip", "-n", namespace, "link", "set", "uplink", "up")
        for address in BEYOND:
            via = address.partition("/")[0]
            self.must("ip", "-n", host, "route", "add", "default", "via", via, "dev", "uplink")

    def add_namespace(self, part: str) -> None:
        self.undo.callback(run, ["ip", "netns", "delete", self.name(part)])
        self.must("ip", "netns", "add", self.name(part))
        self.must("ip", "-n", self.name(part), "link", "set", "lo", "up")

    def start_agent(self) -> None:
        """Start the agent in `host` and wait until it says that it is ready (sd_notify(3))."""
        config = self.directory / "agent.toml"
        config.write_text(
            f'socket = "{self.socket_path}"\nstate_dir = "{self.state}"\nlog_format = "console"\n'
        )
        notify = self.directory / "notify.sock"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            ready.settimeout(0.2)
            argv = [*self.inside("host"), *own_command(), "agent", "--config", str(config)]
            agent = Running(
                argv, self.log, environment={**os.environ, "NOTIFY_SOCKET": str(notify)}
            )
            self.agent = agent
            self.undo.callback(agent.stop)
            for _ in range(int(_READY_S / 0.2)):
                with suppress(TimeoutError):
                    if b"READY=1" in ready.recv(4096):
                        return
                if agent.has_ended:
                    break
        raise Problem(f"the agent did not get ready:\n{self.tail()}")

    def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.stop(kill=True)

    def call(self, verb: str, part: str, **runtime: Any) -> dict[str, Any]:
        """Execute the plugin as a runtime does.  Raises Problem with the plugin's own error."""
        document = json.loads((CONF / "10-isthmus.conflist").read_bytes())
        plugin = document["plugins"][0]
        stdin = plugin | {"cniVersion": "1.1.0", "name": document["name"]}
        if runtime:
            stdin["runtimeConfig"] = runtime
        plugins = self.directory / "bin"
        done = run(
            [*self.inside("host"), str(plugins / "isthmus")],
            stdin=json.dumps(stdin),
            environment={
                **os.environ,
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": f"{part}-{self.suffix}",
                "CNI_NETNS": self.path(part),
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(plugins),
                "ISTHMUS_SOCKET": str(self.socket_path),
                "ISTHMUS_SPOOL": str(self.state / "spool"),
            },
        )
        if done.status:
            raise Problem(f"{verb} of {part} failed: {done.stdout.strip()}\n{self.tail()}")
        return dict(json.loads(done.stdout)) if done.stdout.strip() else {}

    def inside(self, part: str) -> list[str]:
        """What to put before a command so that it runs in *part*."""
        return ["ip", "netns", "exec", self.name(part)]

    def must(self, *argv: str) -> str:
        done = run(argv)
        if done.status:
            raise Problem(f"{' '.join(argv)}: {done.complaint}")
        return done.stdout

    def ping(self, source: str, address: str) -> str:
        """How long a ping from *source* to *address* took.  Raises Problem."""
        out = self.must(*self.inside(source), "ping", "-c", "1", "-W", "3", address)
        return next((f"{word[5:]} ms" for word in out.split() if word.startswith("time=")), "ok")

    def fetch(self, server: str, port: int, client: str, address: tuple[str, int]) -> str:
        """Connect from *client* to *address*; what a listener in *server* sees as the peer."""
        with self._tcp(server) as listener, self._tcp(client) as caller:
            listener.bind(("0.0.0.0", port))
            listener.listen()
            listener.settimeout(5)
            caller.settimeout(5)
            try:
                caller.connect(address)
                connection, peer = listener.accept()
            except OSError as exc:
                raise Problem(f"no connection from {client} to {address}: {exc}") from exc
            connection.close()
        return str(peer[0])

    def tail(self) -> str:
        """The end of the agent's log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-15:])

    def _tcp(self, part: str) -> socket.socket:
        """A socket of *part*: it stays in the namespace in which it was made."""
        namespace = open_path(self.path(part))
        try:
            with entered(namespace):
                return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            os.close(namespace)
