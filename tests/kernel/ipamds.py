"""Replicas of ipamd as processes of their own, over a real etcd."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ipam.channel import Channels
from ipam.tls import TLSFiles
from tests.certificates import Authority
from tests.kernel.agents import until
from tests.kernel.conftest import ROOT
from tests.kernel.etcd import Etcd, Host, free_ports

READY_S = 60.0  # of a machine with much else to do; one that ends is not waited for


@dataclass(slots=True, kw_only=True)
class Ipamd:
    """One replica; *extra* are lines of its configuration, *tree* has the program."""

    directory: Path
    port: int
    metrics_port: int
    tls: TLSFiles
    etcd: tuple[str, ...]
    extra: tuple[str, ...] = ()
    host: Host = field(default_factory=Host)
    tree: Path = ROOT
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def endpoint(self) -> str:
        return f"{self.host.address}:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / "ipamd.log"

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def start(self) -> None:
        """Start it, until it says that it is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        notify = self.directory / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
            ready.bind(str(notify))
            ready.settimeout(0.1)
            with self.host.inside():
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "cli", "ipamd", "--config", str(self._configuration())],
                    cwd=self.tree,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "NOTIFY_SOCKET": str(notify)},
                    start_new_session=True,
                )
            for _ in range(int(READY_S / 0.1)):
                with suppress(TimeoutError):
                    if b"READY=1" in ready.recv(4096):
                        return
                if self.process.poll() is not None:
                    break
        raise AssertionError(f"ipamd does not serve:\n{self.log.read_text()}")

    def run(self) -> "subprocess.CompletedProcess[str]":
        """Start one that is to fail; how it ended."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", "cli", "ipamd", "--config", str(self._configuration())],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )

    def tell(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        status = self.process.wait(READY_S)
        self.process = None
        return status

    def stop(self, number: int = signal.SIGKILL) -> int | None:
        if self.process is None:
            return None
        self.tell(number)
        return self.wait()

    def page(self) -> dict[str, float]:
        """The metrics page: values by name and labels."""
        with self.host.inside():
            at = (self.host.address, self.metrics_port)
            asking = socket.create_connection(at, timeout=5)
        with asking:
            asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with asking.makefile() as answer:
                lines = answer.read().partition("\n\n")[2].splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def is_synced(self) -> bool:
        return self.page()["isthmus_ipamd_synced"] == 1

    def _configuration(self) -> Path:
        path = self.directory / "ipamd.toml"
        lines = [
            f'listen = "{self.endpoint}"',
            f'metrics_address = "{self.host.address}:{self.metrics_port}"',
            f'state_dir = "{self.directory}/state"',
            f'certificate = "{self.tls.certificate}"',
            f'key = "{self.tls.key}"',
            f'ca = "{self.tls.ca}"',
            f"etcd_endpoints = {json.dumps(self.etcd)}",
            *self.extra,
        ]
        path.write_text("\n".join(lines) + "\n")
        return path


@dataclass(slots=True)
class Site:
    """Replicas over one etcd, and who signs for them."""

    directory: Path
    etcd: Etcd
    signer: Authority
    replicas: list[Ipamd] = field(default_factory=list)
    observer: Host = field(default_factory=Host)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(replica.endpoint for replica in self.replicas)

    def add(self, *extra: str, host: Host | None = None) -> Ipamd:
        """Another replica, not yet started, with a certificate of its own."""
        host = host or Host()
        name = f"ipamd{len(self.replicas)}"
        port, metrics_port = free_ports(2)
        own_ca = self.directory / f"{name}-ca.pem"
        own_ca.write_bytes(self.signer.file.read_bytes())
        replica = Ipamd(
            directory=self.directory / name,
            port=port,
            metrics_port=metrics_port,
            tls=replace(self.signer.issue(name, hosts=[host.address]), ca=own_ca),
            etcd=self.etcd.urls,
            extra=extra,
            host=host,
        )
        self.replicas.append(replica)
        return replica

    async def ask(self, files: TLSFiles, method: str, request: Any, *endpoints: str) -> Any:
        channels = Channels(endpoints or self.endpoints, files)
        try:
            return await channels.call(method, request, within_s=20)
        finally:
            await channels.close()

    def isthmus(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """The command line, as an administrator of this site."""
        self.signer.admin()
        with self.observer.inside():
            return subprocess.run(
                [sys.executable, "-m", "cli", *words],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                env={
                    **os.environ,
                    "ISTHMUS_IPAMD": ",".join(self.endpoints),
                    "ISTHMUS_IDENTITY": str(self.directory / "signer"),
                },
                check=False,
            )

    def must(self, *words: str) -> str:
        done = self.isthmus(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, *pools: Sequence[str]) -> None:
        """Make the generation and the *pools*, each (name, cidr, options...)."""
        until(lambda: all(r.is_synced() for r in self.replicas if r.process), "all are synced")
        self.must("ipam", "init")
        for pool in pools:
            self.must("ipam", "pools", "create", *pool)


@contextmanager
def site(directory: Path, etcd: Etcd, replicas: int = 1, *extra: str) -> Iterator[Site]:
    """*replicas* that serve; killed afterwards."""
    made = Site(directory, etcd, Authority(directory / "signer"))
    try:
        for _ in range(replicas):
            made.add(*extra).start()
        yield made
    finally:
        for replica in made.replicas:
            replica.stop()
