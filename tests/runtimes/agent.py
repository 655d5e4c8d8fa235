"""isthmus in a host of its own: the launcher under both its names, and the agent."""

import json
import signal
from dataclasses import dataclass, field
from typing import Any

from tests.runtimes.host import ROOT, Host, Service

LAUNCHER = ROOT / "build" / "launcher" / "isthmus-launcher"
PYTHON = ROOT / ".venv" / "bin" / "python"
SOCKET = "/run/isthmus/agent.sock"

# Everything that takes a minute on a node takes a second here.
SETTINGS = {
    "log_level": "debug",
    "log_format": "json",
    "cooldown_s": 1.0,
    "reconcile_interval_s": 0.2,
    "grace_s": 0.5,
}


@dataclass
class Agent:
    """The node agent with its default paths, which the host has to itself."""

    host: Host
    service: Service = field(init=False)

    def start(self) -> None:
        """Start the agent and wait until it serves."""
        configuration = self.host.directory / "agent.toml"
        argv = (*self._command(), "agent", "--config", configuration)
        self.service = self.host.start("agent", *map(str, argv))
        self.service.wait_until(self._serves)

    def kill(self) -> None:
        self.service.signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it as a service manager does."""
        self.service.signal(signal.SIGTERM)
        self.service.process.wait(30)

    def ask(self, *arguments: str) -> Any:
        """Return the answer of a command line that has --json."""
        done = self.host.run(*self._command(), *arguments, "--json", check=False)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{arguments}: {done.stdout}{done.stderr}") from None

    def attachments(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("attachments")["attachments"]
        return found

    def problems(self) -> list[str]:
        found: list[str] = self.ask("ipam", "check")["problems"]
        return found

    def wait_until_served(self, verb: str) -> None:
        """Wait until the log says that one call of *verb* is over."""
        said = f'"msg": "request", "verb": "{verb}"'
        self.service.wait_until(lambda: said in self.service.log.read_text())

    def wait_until_empty(self) -> None:
        """Wait until nothing is attached and no address is held or reserved."""
        self.service.wait_until(lambda: self.attachments() == [])

    def _command(self) -> tuple[str, ...]:
        return ("env", f"PYTHONPATH={ROOT}", str(PYTHON), "-m", "cli")

    def _serves(self) -> bool:
        status = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(self.host.plugins)}
        config = json.dumps({"cniVersion": "1.1.0", "name": "probe", "type": "isthmus"})
        done = self.host.run(
            self.host.plugins / "isthmus", stdin=config, environment=status, check=False
        )
        return done.returncode == 0


def start_agent(host: Host) -> Agent:
    """Install the launcher as both plugins, write the configuration, start the agent."""
    for name in ("isthmus", "isthmus-ipam"):
        host.install(LAUNCHER, name)
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in SETTINGS.items()]
    (host.directory / "agent.toml").write_text("".join(lines))
    agent = Agent(host)
    agent.start()
    return agent
