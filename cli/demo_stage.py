"""What demonstrations are made of: network namespaces, wires, programs that run in them.

Whatever is made registers its removal before it is made, so that every way out leaves nothing.
"""

import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.program import own_command
from cli.answers import Problem
from dataplane.programs import Running, run

_READY_S = 20.0


@dataclass(slots=True)
class Stage:
    """All that a demonstration makes, under names that end in *suffix*, below *directory*."""

    suffix: str
    directory: Path
    launcher: Path
    undo: ExitStack = field(default_factory=ExitStack)

    def name(self, part: str) -> str:
        """The network namespace of *part*."""
        return f"isthmus-demo-{self.suffix}-{part}"

    def path(self, part: str) -> str:
        return f"/run/netns/{self.name(part)}"

    def prepare(self) -> None:
        """Make the directory, with the plugin in it."""
        self.undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700)
        plugins = self.directory / "bin"
        plugins.mkdir()
        shutil.copy2(self.launcher, plugins / "isthmus")

    def add_namespace(self, part: str) -> None:
        self.undo.callback(run, ["ip", "netns", "delete", self.name(part)])
        self.must("ip", "netns", "add", self.name(part))
        self.must("ip", "-n", self.name(part), "link", "set", "lo", "up")

    def wire(self, one: str, link: str, other: str, peer: str) -> None:
        """Lay a wire from *link* of *one* to *peer* of *other*."""
        self.must(
            "ip", "-n", self.name(one), "link", "add", link, "type", "veth",
            "peer", "name", peer, "netns", self.name(other),
        )  # fmt: skip

    def address(self, part: str, link: str, addresses: Sequence[str]) -> None:
        """Give *link* its addresses and bring it up."""
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            self.must("ip", "-n", self.name(part), "addr", "add", address, "dev", link, *nodad)
        self.must("ip", "-n", self.name(part), "link", "set", link, "up")

    def start(self, part: str, words: Sequence[str], log: Path) -> Running:
        """Run our own program in *part* until it says that it is ready (sd_notify(3))."""
        notify = self.directory / "notify.sock"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            ready.settimeout(0.2)
            argv = [*self.inside(part), *own_command(), *words]
            program = Running(argv, log, environment={**os.environ, "NOTIFY_SOCKET": str(notify)})
            self.undo.callback(program.stop)
            for _ in range(int(_READY_S / 0.2)):
                with suppress(TimeoutError):
                    if b"READY=1" in ready.recv(4096):
                        return program
                if program.has_ended:
                    break
        raise Problem(f"the {words[0]} did not get ready:\n{tail(log)}")

    def execute(
        self, host: str, part: str, network: Mapping[str, Any], environment: Mapping[str, str]
    ) -> dict[str, Any]:
        """Execute the plugin in *host* for container *part*, as a runtime does.

        *environment* has CNI_COMMAND, and where the agent is.  Raises Problem with the
        plugin's own error.
        """
        plugins = self.directory / "bin"
        done = run(
            [*self.inside(host), str(plugins / "isthmus")],
            stdin=json.dumps(network),
            environment={
                **os.environ,
                "CNI_CONTAINERID": f"{part}-{self.suffix}",
                "CNI_NETNS": self.path(part),
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(plugins),
                **environment,
            },
        )
        if done.status:
            verb = environment["CNI_COMMAND"]
            raise Problem(f"{verb} of {part} failed: {done.stdout.strip()}")
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


def tail(log: Path) -> str:
    """The end of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-15:])
