"""Where the API server is and how we prove who we are, from files that change while we run.

A pod has its service account's token and the authority's certificate in files that the kubelet
renews; anybody else has a kubeconfig file.  Where no kube-proxy runs, the server's Service
address leads nowhere: an address of its own then has precedence, or the one that the node's
kubelet uses.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kube.errors import BadAccess


@dataclass(frozen=True, slots=True)
class Material:
    """Bytes in a file that is read again when it changes, or given once and for all."""

    path: Path | None = None
    data: bytes = b""

    def __bool__(self) -> bool:
        return self.path is not None or bool(self.data)

    def stamp(self) -> tuple[int, int, int]:
        """Differs once the file was written or exchanged."""
        if self.path is None:
            return (0, 0, 0)
        try:
            status = self.path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_ino, status.st_size)

    def read(self) -> bytes:
        """Raises BadAccess."""
        if self.path is None:
            return self.data
        try:
            return self.path.read_bytes()
        except OSError as exc:
            raise BadAccess(f"{self.path}: {exc.strerror}") from exc


_NOTHING = Material()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """*server*: as https://HOST:PORT; *server_name*: the name in its certificate, "": HOST."""

    server: str
    server_name: str = ""
    ca: Material = _NOTHING
    token: Material = field(default=_NOTHING, repr=False)
    certificate: Material = _NOTHING
    key: Material = field(default=_NOTHING, repr=False)
    verify: bool = True

    def __post_init__(self) -> None:
        """Raises BadAccess."""
        check_server(self.server)

    @property
    def host(self) -> str:
        return urlsplit(self.server).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.server)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def authority(self) -> str:
        """What stands in the Host header."""
        return urlsplit(self.server).netloc

    @property
    def prefix(self) -> str:
        """The path before every other, without a slash at its end."""
        return urlsplit(self.server).path.rstrip("/")

    @property
    def is_tls(self) -> bool:
        return self.server.startswith("https://")

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Differs once a connection made now would be another."""
        return tuple(each.stamp() for each in (self.ca, self.certificate, self.key))

    def bearer(self) -> str:
        """The token as it is now, or "".  Raises BadAccess."""
        text = self.token.read().decode("ascii", errors="replace").strip()
        if self.token and (not text or not text.isprintable() or " " in text):
            raise BadAccess(f"{self.token.path or 'the kubeconfig'}: holds no token")
        return text

    def context(self) -> ssl.SSLContext:
        """How to speak TLS, by the files as they are now.  Raises BadAccess."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif self.ca:
            context = self._trusting()
        if self.certificate:
            self._load_identity(context)
        return context

    def _trusting(self) -> ssl.SSLContext:
        where = self.ca.path or "certificate-authority-data"
        try:
            context = ssl.create_default_context(cadata=self.ca.read().decode("ascii"))
        except (ssl.SSLError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise BadAccess(f"{where}: no certificates of authorities: {reason}") from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _load_identity(self, context: ssl.SSLContext) -> None:
        # The ssl module reads certificates from files alone.
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.certificate.read() + b"\n" + self.key.read())
            file.flush()
            try:
                context.load_cert_chain(file.name, password="")
            except (ssl.SSLError, ValueError) as exc:
                where = self.certificate.path or "client-certificate-data"
                reason = getattr(exc, "reason", None) or exc
                raise BadAccess(f"{where}: no certificate and its key: {reason}") from exc


def check_server(server: str) -> None:
    """Raises BadAccess where *server* is no URL of an API server."""
    try:
        parts = urlsplit(server)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        plain = not (parts.query or parts.fragment or parts.username or set(server) & set(" \r\n"))
    except ValueError:
        fine = plain = False
    if not (fine and plain):
        raise BadAccess(f"{server!r} is no address of an API server, such as https://10.0.0.1:6443")


def in_cluster(
    environment: Mapping[str, str],
    *,
    server: str = "",
    server_name: str = "",
    token: Path,
    ca: Path,
) -> Access:
    """As a pod's service account; *server* "" is the Service that the kubelet names.

    Raises BadAccess.
    """
    if not server:
        host, port = (
            environment.get(f"KUBERNETES_SERVICE_{what}", "") for what in ("HOST", "PORT")
        )
        if not host or not port:
            raise BadAccess(
                "no address of an API server: KUBERNETES_SERVICE_HOST and _PORT are not set, as "
                "they are in a pod; give an address, or a kubeconfig file"
            )
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server=server, server_name=server_name, ca=Material(ca), token=Material(token))


def server_of(path: Path) -> str:
    """The server's address in a kubeconfig file, and nothing else of it.  Raises BadAccess."""
    return str(_current(path, _load(path))[0].get("server", ""))


def from_kubeconfig(path: Path, *, server: str = "") -> Access:
    """What the file's current context says; *server*, if any, in place of its address.

    Raises BadAccess, also for identities that a program has to be run for.
    """
    cluster, user = _current(path, _load(path))
    for key in ("exec", "auth-provider", "username"):
        if key in user:
            raise BadAccess(f"{path}: users by {key} are not supported; use token or certificate")
    return Access(
        server=server or str(cluster.get("server", "")),
        server_name=str(cluster.get("tls-server-name", "")),
        ca=_material(path, cluster, "certificate-authority"),
        token=_token(path, user),
        certificate=_material(path, user, "client-certificate"),
        key=_material(path, user, "client-key"),
        verify=cluster.get("insecure-skip-tls-verify") is not True,
    )


def _load(path: Path) -> dict[str, Any]:
    import yaml  # 1 MB, for those who have such a file

    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as exc:
        raise BadAccess(f"{path}: {exc.strerror}") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise BadAccess(f"{path}: not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(document, dict):
        raise BadAccess(f"{path}: not a kubeconfig file")
    return document


def _current(path: Path, document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the user of the current context."""
    context = _named(path, document, "contexts", "context", document.get("current-context"))
    user = context.get("user")
    return (
        _named(path, document, "clusters", "cluster", context.get("cluster")),
        _named(path, document, "users", "user", user) if user else {},
    )


def _named(path: Path, document: Mapping[str, Any], many: str, one: str, name: Any) -> Any:
    entries = document.get(many)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name and name:
            found = entry.get(one)
            if isinstance(found, dict):
                return found
    raise BadAccess(f"{path}: no {one} {name!r} among its {many}")


def _material(path: Path, section: Mapping[str, Any], key: str) -> Material:
    if data := section.get(f"{key}-data"):
        try:
            return Material(data=base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError, TypeError) as exc:
            raise BadAccess(f"{path}: {key}-data is not base64") from exc
    file = section.get(key)
    # Relative to the file that names it, as kubectl has it.
    return Material(Path(os.path.join(path.parent, str(file)))) if file else _NOTHING


def _token(path: Path, user: Mapping[str, Any]) -> Material:
    if file := user.get("tokenFile"):
        return Material(Path(os.path.join(path.parent, str(file))))
    return Material(data=str(user.get("token", "")).encode())
