"""The little world of the cluster's demonstration: hosts on a switch, etcd, ipamd, agents.

host-a ─┐
        ├─ one ─┐
host-b ─┘       switch: a router, etcd, two ipamd       each host: an agent, and its containers
host-c ─── two ─┘
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.program import own_command
from cli.answers import Problem
from cli.demo_stage import Stage, tail
from cli.places import CONF
from dataplane.programs import Running, run

HOSTS = ("a", "b", "c")
ETCD = "http://127.0.0.1:2379"
_LINKS = {
    "one": ("192.0.2.254/24", "2001:db8:7::fe/64"),
    "two": ("198.51.100.254/24", "2001:db8:8::fe/64"),
}
_PORTS = (9476, 9477)
_READY_S = 20


@dataclass(slots=True)
class ClusterSite(Stage):
    """Three hosts, what joins them, and what they are served by."""

    etcd: Running | None = None
    programs: dict[str, Running] = field(default_factory=dict)

    @property
    def identity(self) -> Path:
        """Where the administrator's certificate is, and all others."""
        return self.directory / "certificates"

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(f"{_bare(_LINKS['one'][0])}:{port}" for port in _PORTS)

    def socket(self, host: str) -> Path:
        return self.directory / f"agent-{host}.sock"

    def state(self, host: str) -> Path:
        return self.directory / f"state-{host}"

    def log(self, program: str) -> Path:
        return self.directory / f"{program}.log"

    def addresses(self, host: str) -> tuple[str, str]:
        """Of *host* on its link."""
        number = HOSTS.index(host) + 1
        if _link(host) == "one":
            return f"192.0.2.{number}/24", f"2001:db8:7::{number}/64"
        return f"198.51.100.{number}/24", f"2001:db8:8::{number}/64"

    def build(self) -> None:
        """Make the directory and the namespaces, on two bridges in `switch`, which routes."""
        self.prepare()
        self.add_namespace("switch")
        switch = self.name("switch")
        self.must(
            *self.inside("switch"), "sysctl", "-qw",
            "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
        )  # fmt: skip
        for link, addresses in _LINKS.items():
            self.must("ip", "-n", switch, "link", "add", link, "type", "bridge")
            self.address("switch", link, addresses)
        for host in HOSTS:
            self.add_namespace(f"host-{host}")
            self.wire(f"host-{host}", "uplink", "switch", f"port-{host}")
            link = _link(host)
            self.must("ip", "-n", switch, "link", "set", f"port-{host}", "master", link, "up")
            self.address(f"host-{host}", "uplink", self.addresses(host))
            for gateway in _LINKS[link]:
                self.must(
                    "ip", "-n", self.name(f"host-{host}"), "route", "add", "default",
                    "via", _bare(gateway),
                )  # fmt: skip

    def start_etcd(self) -> None:
        """Start etcd on the switch's own loopback: nodes cannot reach it, and need not."""
        peer = "http://127.0.0.1:2380"
        self.etcd = Running(
            [
                *self.inside("switch"),
                *("etcd", "--name", "demo", "--data-dir", str(self.directory / "etcd")),
                *("--listen-client-urls", ETCD, "--advertise-client-urls", ETCD),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"demo={peer}", "--logger", "zap"),
            ],
            self.log("etcd"),
        )
        self.undo.callback(self.etcd.stop, kill=True)

    def start_ipamd(self, number: int) -> None:
        name = f"ipamd-{number}"
        config = self.directory / f"{name}.toml"
        files = self.identity
        config.write_text(
            f'listen = "{self.endpoints[number - 1]}"\n'
            f'state_dir = "{self.directory}/{name}"\n'
            f'certificate = "{files}/ipamd.pem"\nkey = "{files}/ipamd.key"\nca = "{files}/ca.pem"\n'
            f'etcd_endpoints = ["{ETCD}"]\netcd_timeout_s = 1\nlog_format = "console"\n'
        )
        words = ["ipamd", "--config", str(config)]
        self.programs[name] = self.start("switch", words, self.log(name))

    def start_agent(self, host: str) -> None:
        config = self.directory / f"agent-{host}.toml"
        self.state(host).mkdir(mode=0o700, exist_ok=True)
        files, addresses = self.identity, [_bare(one) for one in self.addresses(host)]
        config.write_text(
            f'socket = "{self.socket(host)}"\nstate_dir = "{self.state(host)}"\n'
            f'log_format = "console"\n\n[ipamd]\nendpoints = {json.dumps(self.endpoints)}\n'
            f'node = "{host}"\naddresses = {json.dumps(addresses)}\nca = "{files}/ca.pem"\n'
            f'certificate = "{files}/node-{host}.pem"\nkey = "{files}/node-{host}.key"\n\n'
            '[routing]\nmode = "auto"\n\n[masquerade]\n'
        )
        words = ["agent", "--config", str(config)]
        name = f"agent-{host}"
        self.programs[name] = self.start(f"host-{host}", words, self.log(name))

    def isthmus(self, *words: str, fails: bool = False) -> str:
        """Our own command line, on the switch, as its administrator; what it says.

        Raises Problem where it *fails* though it should not.
        """
        where = ["--ipamd", ",".join(self.endpoints), "--identity", str(self.identity)]
        asks = [] if words[:2] == ("ipam", "certificates") else where
        done = run([*self.inside("switch"), *own_command(), *words, *asks], timeout=60)
        if done.status and not fails:
            raise Problem(f"isthmus {' '.join(words)}: {done.complaint}")
        return done.stderr if done.status else done.stdout

    def call(self, verb: str, host: str, part: str, pod: str = "") -> dict[str, Any]:
        """Execute the plugin in *host* for container *part*.  Raises Problem."""
        agent = {
            "CNI_COMMAND": verb,
            "ISTHMUS_SOCKET": str(self.socket(host)),
            "ISTHMUS_SPOOL": str(self.state(host) / "spool"),
        }
        if pod:
            agent["CNI_ARGS"] = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME={pod}"
        try:
            return self.execute(f"host-{host}", part, network(), agent)
        except Problem as exc:
            raise Problem(f"{exc.message}\n{tail(self.log(f'agent-{host}'))}") from exc

    def status(self, host: str) -> dict[str, Any]:
        """How the agent of *host* is."""
        words = [*self.inside(f"host-{host}"), *own_command(), "status", "--json"]
        done = run([*words, "--socket", str(self.socket(host))], timeout=60)
        if done.status:
            raise Problem(f"isthmus status of {host}: {done.complaint}")
        return dict(json.loads(done.stdout))

    def way(self, host: str, address: str) -> str:
        """How *host* reaches *address*, in a word."""
        found = self.must("ip", "-n", self.name(f"host-{host}"), "route", "get", address)
        return "direct" if " dev uplink " in found else "VXLAN"


def network() -> Mapping[str, Any]:
    """The routed network, whose addresses come from the node's blocks: no ranges in it."""
    document = json.loads((CONF / "10-isthmus-routed.conflist").read_bytes())
    plugin = document["plugins"][0] | {"cniVersion": "1.1.0", "name": document["name"]}
    del plugin["ipam"]["ranges"]
    plugin["ipMasq"] = False
    return dict(plugin)


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _link(host: str) -> str:
    """On which link *host* is: the last is behind a router."""
    return "two" if host == HOSTS[-1] else "one"
