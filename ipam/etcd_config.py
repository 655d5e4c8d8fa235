"""Where etcd is, who we are there, and the files that say so, as they are now."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ipam.kv import KVUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """Where etcd is and who we are there.

    *endpoints* are http:// or https:// URLs of members, or unix:///PATH for the socket of one on
    this host, which file permissions alone protect.  https needs *ca* (PEM), and may have
    *cert* with *key*; all three are read again when they change.  *username* needs a
    *password_file*, whose first line counts.  *timeout_s* is for one call to one member.
    *prefix* is one that the user may read.  Raises ValueError.
    """

    endpoints: tuple[str, ...]
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str = ""
    password_file: Path | None = None
    timeout_s: float = 3.0
    prefix: str = "/isthmus/v1/"

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("etcd needs at least one endpoint, as https://10.0.0.1:2379")
        schemes = {_split(endpoint)[0] for endpoint in self.endpoints}
        if len(schemes) > 1:
            raise ValueError(
                f"etcd endpoints must be all http, all https or all unix: {self.endpoints}"
            )
        if "https" in schemes and self.ca is None:
            raise ValueError("https endpoints of etcd need the CA file of their certificates")
        if "https" not in schemes and (self.ca or self.cert or self.key):
            scheme = schemes.pop()
            raise ValueError(f"certificates are for https endpoints of etcd; these are {scheme}")
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate for etcd needs both the certificate and its key")
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("a user of etcd needs both a name and a password file")
        if not self.timeout_s > 0:
            raise ValueError(f"etcd's time limit must be above 0 s, not {self.timeout_s:g}")

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(_split(endpoint)[1] for endpoint in self.endpoints)

    @property
    def files(self) -> tuple[Path, ...]:
        """What TLS is made of."""
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)

    def stamp(self) -> tuple[object, ...]:
        """Differs once any of those files was written or exchanged."""
        return tuple(map(_stamp, self.files))

    def pem(self) -> tuple[bytes, bytes | None, bytes | None] | None:
        """Authorities, key and certificate; None without TLS.

        Raises KVUnavailable for files that are missing, are not PEM, or do not belong together.

        gRPC itself would say no more of such files than that no connection came about.
        """
        if self.ca is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password="")
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            files = ", ".join(map(str, self.files))
            raise KVUnavailable(f"TLS files for etcd ({files}) are of no use: {exc}") from exc
        key = _content(self.key) if self.key else None
        cert = _content(self.cert) if self.cert else None
        return _content(self.ca), key, cert

    def password(self) -> str:
        """Raises KVUnavailable."""
        assert self.password_file is not None
        return _content(self.password_file).decode(errors="replace").split("\n")[0].rstrip("\r")


def _split(endpoint: str) -> tuple[str, str]:
    """Scheme, and what gRPC connects to.  Raises ValueError."""
    if endpoint.startswith("unix:///"):
        return "unix", f"unix:{endpoint.removeprefix('unix://')}"
    try:
        url = urlsplit(endpoint)
        well = url.scheme in ("http", "https") and url.hostname and url.port
    except ValueError:
        well = False
    if not well or url.path.strip("/") or url.query or url.username is not None:
        raise ValueError(
            f"etcd endpoint {endpoint!r} is not http:// or https:// with a host and a port, "
            f"as https://10.0.0.1:2379, nor unix:///PATH"
        )
    return url.scheme, url.netloc


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise KVUnavailable(f"{path}, which etcd is reached with: {exc.strerror}") from exc
