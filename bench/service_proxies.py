"""Who translates Services: the agent of isthmus, and kube-proxy in two modes; a node for each."""

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from hosts import ROOT, BenchError
from service_site import CLIENTS, PODS, PORT, Site, cluster_ip

from tests.kernel.sockets import inside

KUBE_PROXY = ROOT / "build/peers/bin/kube-proxy"
ISTHMUS, NFTABLES, IPTABLES = "isthmus", "nftables", "iptables"
_SYNCED = re.compile(
    r"^kubeproxy_sync_proxy_rules_last_timestamp_seconds(?:{.*})? (\S+)$", re.MULTILINE
)
_DURATION = re.compile(
    r"^kubeproxy_sync_proxy_rules_duration_seconds_(sum|count)(?:{.*})? (\S+)$", re.MULTILINE
)
_LOOK_S = 0.02


class Proxy:
    """One of them; its rules stay when it is stopped, until `clean`."""

    def __init__(self, site: Site, name: str) -> None:
        self.name, self._site = name, site
        self.node = site.nodes[name]
        self._directory = site.directory / name
        self._directory.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def title(self) -> str:
        return "isthmus" if self.name == ISTHMUS else f"kube-proxy, {self.name}"

    def start(self) -> None:
        argv = self._isthmus() if self.name == ISTHMUS else self._kube_proxy()
        with (self._directory / "log").open("ab") as log, inside(self.node.node):
            self._process = subprocess.Popen(
                list(map(str, argv)),
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            )

    def cold(self, within_s: float) -> tuple[float, float]:
        """Start it where nothing is: seconds until all is programmed, and of processor time.

        Raises BenchError where it is not by then.
        """
        self.clean()
        begun = time.monotonic()
        self.start()
        self.wait(within_s)
        return time.monotonic() - begun, self.processor()

    def wait(self, within_s: float) -> None:
        """Until it says that it wrote all, and Services of all ages answer."""
        assert self._process
        until = time.monotonic() + within_s
        some = {0, self._site.count // 2, max(self._site.count - 1, 0)}
        while not (self._says_so() and all(self._answers(number) for number in some)):
            if self._process.poll() is not None:
                raise BenchError(f"{self.title} ended: {self._log()}")
            if time.monotonic() > until:
                raise BenchError(
                    f"{self.title} is not ready within {within_s:.0f} s: {self._log()}"
                )
            time.sleep(_LOOK_S)

    def syncs(self) -> tuple[float, int]:
        """How long all its rounds took, in milliseconds, and how many there were."""
        found = _DURATION.findall(self.node.page("/metrics"))
        return (
            sum(float(value) for kind, value in found if kind == "sum") * 1000,
            int(sum(float(value) for kind, value in found if kind == "count")),
        )

    def processor(self) -> float:
        """Seconds, those of programs that it ran included."""
        assert self._process
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        assert self._process
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def clean(self) -> None:
        """Stop it, and take its rules away."""
        self.stop()
        with inside(self.node.node):
            subprocess.run(["nft", "flush", "ruleset"], check=True)

    def _says_so(self) -> bool:
        try:
            found = _SYNCED.findall(self.node.page("/metrics"))
        except OSError:
            return False
        return any(float(each) > 0 for each in found)

    def _answers(self, number: int) -> bool:
        try:
            self.node.rate(cluster_ip(number), PORT, 1)
        except BenchError:
            return False
        return True

    def _isthmus(self) -> Sequence[object]:
        config, server = self._directory / "agent.toml", self._site.server
        config.write_text(
            f'socket = "{self._directory}/agent.sock"\nstate_dir = "{self._directory}/state"\n'
            f'[kubernetes]\nnode = "{self.name}"\naddress = "{server.url}"\n'
            f'token = "{self._site.token}"\nca = "{server.ca}"\n'
            f'[services]\npod_cidrs = ["{PODS}", "{CLIENTS}"]\nset_conntrack = false\n'
        )
        return (ROOT / ".venv/bin/python", "-m", "cli", "agent", "--config", config)

    def _kube_proxy(self) -> Sequence[object]:
        config, server = self._directory / "kubeconfig", self._site.server
        config.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
            "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
            f"clusters: [{{name: c, cluster: {{server: '{server.url}',"
            f" certificate-authority: '{server.ca}'}}}}]\n"
            f"users: [{{name: u, user: {{tokenFile: '{self._site.token}'}}}}]\n"
        )
        settings = self._directory / "config.yaml"
        settings.write_text(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
            f"mode: {self.name}\nclientConnection: {{kubeconfig: '{config}'}}\n"
            f"hostnameOverride: {self.name}\nclusterCIDR: {PODS}\n"
            "conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s,"
            " tcpCloseWaitTimeout: 0s}\n"
            "iptables: {localhostNodePorts: false}\n"
        )
        return (KUBE_PROXY, "--config", settings)

    def _log(self) -> str:
        return (self._directory / "log").read_text()[-1000:]
