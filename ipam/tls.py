"""Who is who by certificate: files that are read again when they change, and the names in them.

A certificate says what its holder may touch, by a URI among its subject alternative names or by
its common name: `isthmus:node:<name>` a node's own records, `isthmus:admin` all of them;
`isthmus:admin:<name>` also tells the records who it was.
"""

import os
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ipam.errors import IPAMError

NODE = "isthmus:node:"
ADMIN = "isthmus:admin"
# The name in a certificate that ipamd issues to itself: its address may be any.
SERVER = "isthmus-ipamd"


class BadCredentials(IPAMError):
    """Files that make no credentials; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PEM:
    """What credentials are made of."""

    certificate: bytes
    key: bytes
    ca: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """A certificate with its chain, its key, and the authorities that the other side must have."""

    certificate: Path
    key: Path
    ca: Path

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Differs once any of the files was written or exchanged."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.ca))

    def read(self) -> PEM:
        """The files as they are now.  Raises BadCredentials, also for a key of another's."""
        pem = PEM(
            certificate=_content(self.certificate), key=_content(self.key), ca=_content(self.ca)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            raise BadCredentials(
                f"{self.certificate} and {self.key}: not a certificate and its unencrypted key: "
                f"{_reason(exc)}"
            ) from exc
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ValueError) as exc:
            raise BadCredentials(
                f"{self.ca}: no certificates of authorities: {_reason(exc)}"
            ) from exc
        return pem

    def fault(self) -> str:
        """What a server that trusts the same authorities has against this certificate, or "".

        gRPC's servers hang up without a word, so we ask ourselves, over a handshake in memory.
        """
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        server.verify_mode = ssl.CERT_REQUIRED
        for context in (server, client):
            context.load_cert_chain(self.certificate, self.key)
            context.load_verify_locations(self.ca)
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        near = server.wrap_bio(up, down, server_side=True)
        far = client.wrap_bio(down, up)
        try:
            for _ in range(4):  # one and a half round trips
                for side in (far, near):
                    with suppress(ssl.SSLWantReadError):
                        side.do_handshake()
        except ssl.SSLError as exc:
            return getattr(exc, "verify_message", "") or _reason(exc)
        return ""


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a certificate names: a node, or an administrator where *node* is ""."""

    name: str
    node: str = ""

    @property
    def is_admin(self) -> bool:
        return not self.node


def identify(names: Iterable[str]) -> Who | None:
    """Whom these names of one certificate mean; None where none, or several, are ours.

    One that is both node and administrator would be an accident of whoever signs.
    """
    found = {who for name in names if (who := _who(name)) is not None}
    return found.pop() if len(found) == 1 else None


def _who(name: str) -> Who | None:
    if name.startswith(NODE):
        node = name.removeprefix(NODE)
        return Who(name, node) if node else None
    if name == ADMIN or (name.startswith(f"{ADMIN}:") and name != f"{ADMIN}:"):
        return Who(name)
    return None


def write_private(path: Path, content: bytes) -> None:
    """Put a file that only we may read, whole or not at all.  Raises BadCredentials."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as exc:
        raise BadCredentials(f"{path}: {exc.strerror}") from exc


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise BadCredentials(f"{path}: {exc.strerror}") from exc


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def _reason(exc: Exception) -> str:
    return str(getattr(exc, "reason", None) or exc)
