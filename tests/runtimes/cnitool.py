"""cnitool in a host of its own, and namespaces to attach."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from subprocess import CompletedProcess
from typing import Any

from tests.runtimes.host import PEERS, Host


@dataclass(frozen=True)
class Cnitool:
    """Runs one verb of one network of the host on one of its named namespaces."""

    host: Host

    def __call__(
        self, verb: str, network: str, netns: str, environment: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        variables = {
            "CNI_PATH": str(self.host.plugins),
            "NETCONFPATH": str(self.host.networks),
            **(environment or {}),
        }
        argv = (PEERS / "cnitool", verb, network, f"/run/netns/{netns}")
        return self.host.run(*argv, environment=variables, check=False)

    def add(
        self, network: str, netns: str, environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the result of a successful ADD; AssertionError with the complaint otherwise."""
        done = self("add", network, netns, environment)
        if done.returncode != 0:
            raise AssertionError(done.stderr + done.stdout)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def succeed(
        self,
        verb: str,
        network: str,
        netns: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        done = self(verb, network, netns, environment)
        if done.returncode != 0:
            raise AssertionError(done.stderr + done.stdout)
