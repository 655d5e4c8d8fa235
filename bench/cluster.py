"""A cluster's addresses to measure: etcd, replicas of ipamd, certificates, pools.

One member of etcd, without TLS, with its data on the disk of the directory given; ipamd over
mutual TLS.  All of it on loopback, of this machine or of a namespace.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent_needs import processor
from hosts import ROOT, BenchError

from tests.certificates import Authority

ISTHMUS = (str(ROOT / ".venv/bin/python"), "-m", "cli")
_READY_S = 60.0
_SYNCED = "isthmus_ipamd_synced"


class Program:
    """One process, in a namespace or in none, that can be stopped, killed and started again."""

    def __init__(self, argv: Sequence[str], log: Path, namespace: str = "") -> None:
        inside = ("ip", "netns", "exec", namespace) if namespace else ()
        self._argv = [*inside, *argv]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # as the systemd units have it
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def require(self, what: str) -> None:
        """Raises BenchError, with the log, if it has ended."""
        assert self._process
        if self._process.poll() is not None:
            raise BenchError(f"{what} ended: {self._log.read_text(errors='replace')[-2000:]}")


class Cluster:
    """One etcd and *replicas* of ipamd, all started anew with each object."""

    def __init__(self, directory: Path, *, replicas: int = 1, namespace: str = "") -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self._namespace = namespace
        self.authority = Authority(directory / "certificates")
        self._admin, server = self.authority.admin(), self.authority.server()
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.etcd_url = client
        self.etcd = self._program(
            "etcd",
            *("etcd", "--name", "bench", "--data-dir", str(directory / "etcd"), "--logger", "zap"),
            *("--log-level", "error", "--initial-cluster", f"bench={peer}"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        )
        self.endpoints = [f"127.0.0.1:{free_port()}" for _ in range(replicas)]
        self._pages = [f"127.0.0.1:{free_port()}" for _ in range(replicas)]
        self.ipamds: list[Program] = []
        for number, (endpoint, page) in enumerate(zip(self.endpoints, self._pages, strict=True)):
            config = directory / f"ipamd-{number}.toml"
            config.write_text(
                f'listen = "{endpoint}"\nstate_dir = "{directory}/ipamd-{number}"\n'
                f'certificate = "{server.certificate}"\nkey = "{server.key}"\n'
                f'ca = "{server.ca}"\netcd_endpoints = ["{client}"]\nlog_level = "warning"\n'
                f'metrics_address = "{page}"\n'
            )
            argv = [*ISTHMUS, "ipamd", "--config", str(config)]
            self.ipamds.append(self._program(f"ipamd-{number}", *argv))

    def _program(self, name: str, *argv: str) -> Program:
        return Program(argv, self.directory / f"{name}.log", self._namespace)

    def start(self) -> None:
        """Start all, and make the cluster; returns once each replica answers."""
        self.etcd.start()
        for ipamd in self.ipamds:
            ipamd.start()
        self._until_answered("ipam", "init")
        for ipamd, page in zip(self.ipamds, self._pages, strict=True):
            while not self._namespace and not _is_synced(page):
                ipamd.require(f"ipamd with metrics at {page}")
                time.sleep(0.1)  # it starts, or lists the store

    def stop(self) -> None:
        for program in (*self.ipamds, self.etcd):
            program.kill()

    def admin(self, *words: str) -> str:
        """What our own command line says to an administrator.  Raises BenchError."""
        done = self._ask(*words)
        if done.returncode:
            raise BenchError(f"isthmus {' '.join(words)}: {done.stdout}{done.stderr.strip()}")
        return done.stdout

    def _until_answered(self, *words: str) -> None:
        until = time.monotonic() + _READY_S
        while (done := self._ask(*words)).returncode:
            for number, ipamd in enumerate(self.ipamds):
                ipamd.require(f"ipamd {number}")
            self.etcd.require("etcd")
            if time.monotonic() > until:
                raise BenchError(f"isthmus {' '.join(words)}: {done.stderr.strip()}")
            time.sleep(0.2)  # it is starting

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        where = ["--ipamd", ",".join(self.endpoints)]
        identity = ["--identity", str(self._admin.certificate.parent)]
        inside = ["ip", "netns", "exec", self._namespace] if self._namespace else []
        return subprocess.run(
            [*inside, *ISTHMUS, *words, *where, *identity],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def processor(self) -> float:
        """Seconds of it that all ipamd have used."""
        return sum(processor(ipamd.pid) for ipamd in self.ipamds)

    def transactions(self) -> int:
        """How many etcd has carried out since it was started, by its own count."""
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in _read(self.etcd_url.removeprefix("http://")).splitlines()
            if line.startswith("grpc_server_handled_total{") and 'grpc_method="Txn"' in line
        )


@contextmanager
def cluster(directory: Path, *, replicas: int = 1, namespace: str = "") -> Iterator[Cluster]:
    made = Cluster(directory, replicas=replicas, namespace=namespace)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _is_synced(page: str) -> bool:
    try:
        return f"{_SYNCED} 1.0" in _read(page)
    except urllib.error.URLError:
        return False


def _read(address: str) -> str:
    """The metrics page at *address*."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        text: str = page.read().decode()
        return text


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
