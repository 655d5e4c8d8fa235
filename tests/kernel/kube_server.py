"""A real kube-apiserver over a real etcd, alone on loopback: no kubelet, nothing that runs pods."""

import contextlib
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kube.access import Access, Material
from kube.client import Client
from tests.kernel import etcd
from tests.kernel.agents import ROOT, until

PROGRAM = ROOT / "build/peers/bin/kube-apiserver"
READY_S = 60.0
ADMIN, GUEST = "admin-token", "guest-token"


@dataclass(frozen=True, slots=True)
class Server:
    """*directory* has its log, and its certificate, which is its own authority's."""

    directory: Path
    port: int

    def access(self, token: str) -> Access:
        return Access(
            server=f"https://127.0.0.1:{self.port}",
            ca=Material(self.directory / "certs" / "apiserver.crt"),
            token=Material(data=token.encode()),
        )

    def client(self, token: str = ADMIN) -> Client:
        return Client(lambda: self.access(token))


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Server]:
    """One that serves; it and its etcd are gone afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    with etcd.running(directory / "etcd", programs=etcd.V36) as store:
        (port,) = etcd.free_ports(1)
        server = Server(directory, port)
        options = _options(directory, port, store.urls[0])
        # The first run fills the store; what happened then the second has not seen, and calls old.
        with _process(server, options):
            pass
        with _process(server, options):
            yield server


@contextlib.contextmanager
def _process(server: Server, options: list[str]) -> Iterator[None]:
    with (server.directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [PROGRAM, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"]},
            start_new_session=True,
        )
    try:
        until(lambda: _is_ready(server, process), "the API server serves", timeout=READY_S)
        yield
    finally:
        process.kill()
        process.wait()


def _options(directory: Path, port: int, etcd_url: str) -> list[str]:
    key, tokens = directory / "accounts.key", directory / "tokens.csv"
    key.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    tokens.write_text(f'{ADMIN},admin,1,"system:masters"\n{GUEST},guest,2\n')
    issuer = "https://kubernetes.default.svc"
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=192.0.2.1",
        f"--secure-port={port}",
        f"--cert-dir={directory / 'certs'}",
        "--service-cluster-ip-range=10.96.0.0/24",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--service-account-issuer={issuer}",
        f"--api-audiences={issuer}",
        # Nobody here makes the accounts that pods would have, or admits them to nodes.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    ]


def _is_ready(server: Server, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (server.directory / "log").read_text()[-2000:]
    request = urllib.request.Request(
        f"https://127.0.0.1:{server.port}/readyz", headers={"Authorization": f"Bearer {ADMIN}"}
    )
    try:
        context = ssl.create_default_context(cafile=server.directory / "certs" / "apiserver.crt")
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
