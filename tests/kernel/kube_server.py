"""A real kube-apiserver over a real etcd, alone on loopback: no kubelet, nothing that runs pods."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kube.access import Access, Material
from kube.client import Client
from kube.errors import Conflict
from kube.objects import Object, Pod
from tests.kernel import etcd
from tests.kernel.agents import ROOT, until
from tests.kube_contract import NAMESPACES, NODES

PROGRAM = ROOT / "build/peers/bin/kube-apiserver"
READY_S = 60.0
Answer = TypeVar("Answer")
AUDIENCE, ISSUER = "isthmus-ipamd", "https://kubernetes.default.svc"
ADMIN, GUEST = "admin-token", "guest-token"


@dataclass(slots=True)
class Server:
    """*directory* has its log, and its certificate, which is its own authority's."""

    directory: Path
    port: int
    host: etcd.Host
    address: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def ca(self) -> Path:
        return self.directory / "certs" / "apiserver.crt"

    def access(self, token: str) -> Access:
        return Access(server=self.url, ca=Material(self.ca), token=Material(data=token.encode()))

    def client(self, token: str = ADMIN) -> Client:
        return Client(lambda: self.access(token))

    def ask(self, scene: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """Let *scene* talk to it, as one who may do everything, from where it runs."""

        async def play() -> Answer:
            client = self.client()
            try:
                return await scene(client)
            finally:
                client.close()

        with self.host.inside():
            return asyncio.run(play())

    def delete(self, path: str) -> None:
        """kubectl delete."""
        with self.host.inside():
            self._call(path, "DELETE")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        try:
            with self.host.inside():
                return self._call("/readyz", "GET") == 200
        except (OSError, urllib.error.URLError):
            return False

    def _call(self, path: str, method: str) -> int:
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Bearer {ADMIN}"}, method=method
        )
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return int(answer.status)


@contextlib.contextmanager
def running(
    directory: Path,
    host: etcd.Host | None = None,
    *,
    address: str = "127.0.0.1",
    services: str = "10.96.0.0/24",
) -> Iterator[Server]:
    """One that serves at *address* of *host*; it and its etcd are gone afterwards.

    *services* is the range of cluster IPs.
    """
    directory.mkdir(parents=True, exist_ok=True)
    host = host or etcd.Host()
    with etcd.running(directory / "etcd", hosts=[host], observer=host, programs=etcd.V36) as store:
        (port,) = etcd.free_ports(1)
        server = Server(directory, port, host, address)
        options = _options(server, store.urls[0], services)
        # The first run fills the store; what happened then the second has not seen, and calls old.
        with _process(server, options):
            pass
        with _process(server, options):
            yield server


@contextlib.contextmanager
def _process(server: Server, options: list[str]) -> Iterator[None]:
    with (server.directory / "log").open("ab") as log, server.host.inside():
        server.process = subprocess.Popen(
            [PROGRAM, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"]},
            start_new_session=True,
        )
    try:
        until(server.is_ready, "the API server serves", timeout=READY_S)
        yield
    finally:
        server.process.kill()
        server.process.wait()


def _options(server: Server, etcd_url: str, services: str) -> list[str]:
    directory = server.directory
    key, tokens = directory / "accounts.key", directory / "tokens.csv"
    key.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    tokens.write_text(f'{ADMIN},admin,1,"system:masters"\n{GUEST},guest,2\n')
    return [
        f"--etcd-servers={etcd_url}",
        f"--bind-address={server.address}",
        "--advertise-address=192.0.2.1",
        f"--secure-port={server.port}",
        f"--cert-dir={directory / 'certs'}",
        f"--service-cluster-ip-range={services}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--service-account-issuer={ISSUER}",
        f"--api-audiences={ISSUER}",
        # Nobody here makes the accounts that pods would have, or admits them to nodes.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    ]


async def make(client: Client, path: str, **body: Any) -> None:
    """Create it, if it is not there."""
    with contextlib.suppress(Conflict):
        await client.create(path, body, Object)


async def pod_token(
    client: Client, node: str, *, audience: str = AUDIENCE, account: str = "agent"
) -> str:
    """The token of a pod on *node*, as the kubelet asks for one to be projected."""
    accounts, pods = (f"{NAMESPACES}/isthmus/{kind}" for kind in ("serviceaccounts", "pods"))
    name = f"{account}-{node}"
    await make(client, NAMESPACES, metadata={"name": "isthmus"})
    await make(client, accounts, metadata={"name": account})
    await make(client, NODES, metadata={"name": node})
    spec = {
        "nodeName": node,
        "serviceAccountName": account,
        "containers": [{"name": "c", "image": "i"}],
    }
    await make(client, pods, metadata={"name": name}, spec=spec)
    uid = (await client.get(f"{pods}/{name}", Pod)).metadata.uid
    bound = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}
    asked = {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound}
    made = await client.create(f"{accounts}/{account}/token", {"spec": asked}, dict)
    return str(made["status"]["token"])


def expired(server: Server, token: str) -> str:
    """The same token as it is a day after its time: signed by the server's own key."""
    key = serialization.load_pem_private_key((server.directory / "accounts.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    head, body, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    claims |= {name: claims[name] - 86400 for name in ("iat", "nbf", "exp")}
    signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
