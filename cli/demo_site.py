"""The little world of the demonstration: four network namespaces, an agent, and a launcher.

    outside ── host ── web, shell        the machine's own network is in none of them

Whatever is made registers its removal before it is made, so that every way out leaves nothing.
"""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.answers import Problem
from cli.demo_stage import Stage, tail
from cli.places import CONF
from dataplane.netns import entered, open_path
from dataplane.programs import Running

UPLINK = ("192.0.2.1/24", "2001:db8:7::1/64")
BEYOND = ("192.0.2.2/24", "2001:db8:7::2/64")


@dataclass(slots=True)
class Site(Stage):
    """A host with an agent, and what is beyond it."""

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

    def build(self) -> None:
        """Make the directory, and the namespaces `host` and `outside` with a wire between."""
        self.prepare()
        self.state.mkdir(mode=0o700)
        for part in ("outside", "host"):
            self.add_namespace(part)
        self.wire("host", "uplink", "outside", "uplink")
        self.address("host", "uplink", UPLINK)
        self.address("outside", "uplink", BEYOND)
        for address in BEYOND:
            via = address.partition("/")[0]
            host = self.name("host")
            self.must("ip", "-n", host, "route", "add", "default", "via", via, "dev", "uplink")

    def start_agent(self) -> None:
        """Start the agent in `host` and wait until it says that it is ready."""
        config = self.directory / "agent.toml"
        config.write_text(
            f'socket = "{self.socket_path}"\nstate_dir = "{self.state}"\nlog_format = "console"\n'
        )
        self.agent = self.start("host", ["agent", "--config", str(config)], self.log)

    def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.stop(kill=True)

    def call(self, verb: str, part: str, **runtime: Any) -> dict[str, Any]:
        """Execute the plugin as a runtime does.  Raises Problem with the plugin's own error."""
        document = json.loads((CONF / "10-isthmus.conflist").read_bytes())
        plugin = document["plugins"][0]
        network = plugin | {"cniVersion": "1.1.0", "name": document["name"]}
        if runtime:
            network["runtimeConfig"] = runtime
        agent = {
            "CNI_COMMAND": verb,
            "ISTHMUS_SOCKET": str(self.socket_path),
            "ISTHMUS_SPOOL": str(self.state / "spool"),
        }
        try:
            return self.execute("host", part, network, agent)
        except Problem as exc:
            raise Problem(f"{exc.message}\n{tail(self.log)}") from exc

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

    def _tcp(self, part: str) -> socket.socket:
        """A socket of *part*: it stays in the namespace in which it was made."""
        namespace = open_path(self.path(part))
        try:
            with entered(namespace):
                return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            os.close(namespace)
