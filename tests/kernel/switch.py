"""Hosts as namespaces on one switch, any two of which can be cut off from each other.

The test sees all of them from the switch itself, which no cut concerns.
"""

import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.kernel.conftest import Namespace
from tests.kernel.etcd import Host

_PREFIX = "10.99.0"
_CUTS = """
table inet cut {
  set peers { type ipv4_addr; }
  chain in { type filter hook input priority 0; ip saddr @peers drop; }
  chain out { type filter hook output priority 0; ip daddr @peers drop; }
}
"""


@dataclass(slots=True)
class Switch:
    """Made by `switched`."""

    namespace: Namespace
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def host(self) -> Host:
        return Host(f"{_PREFIX}.254", self.namespace)

    def plug(self, namespace: Namespace) -> Host:
        """Give *namespace* a port, and an address on the switch."""
        number = next(self._numbers)
        ip = ("ip", "-n", self.namespace.name, "link")
        far = ("peer", "name", "uplink", "netns", namespace.name)
        _do(*ip, "add", f"port{number}", "type", "veth", *far)
        _do(*ip, "set", f"port{number}", "master", "switch", "up")
        address = f"{_PREFIX}.{number}"
        namespace.run("ip", "address", "add", f"{address}/24", "dev", "uplink")
        namespace.run("ip", "link", "set", "uplink", "up")
        namespace.run("nft", _CUTS)
        return Host(address, namespace)

    def cut(self, one: Host, other: Host) -> None:
        self._each("add", one, other)

    def heal(self, one: Host, other: Host) -> None:
        self._each("delete", one, other)

    def _each(self, verb: str, one: Host, other: Host) -> None:
        for here, there in ((one, other), (other, one)):
            assert here.namespace
            element = f"{{ {there.address} }}"
            here.namespace.run("nft", verb, "element", "inet", "cut", "peers", element)


def switched(namespace: Namespace) -> Switch:
    """Make *namespace* a switch; all of it goes with its namespace."""
    namespace.run("ip", "link", "add", "switch", "type", "bridge")
    namespace.run("ip", "address", "add", f"{_PREFIX}.254/24", "dev", "switch")
    namespace.run("ip", "link", "set", "switch", "up")
    return Switch(namespace)


def _do(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=30)
