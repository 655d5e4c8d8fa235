"""Certificates for tests: of any name, age and authority, in files as the products read them."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ipam.tls import TLSFiles

_DAY = datetime.timedelta(days=1)
_USES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate and its key, as objects."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Authority:
    """Signs what is asked, into files below *directory*."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._own = _issue(name, None, ca=True)
        self.file = directory / "ca.pem"
        self.file.write_bytes(_pem(self._own.certificate))

    def issue(
        self,
        file: str,
        *,
        common_name: str = "",
        uris: Sequence[str] = (),
        hosts: Sequence[str] = (),
        days: float = 1,
    ) -> TLSFiles:
        """Files named *file*; *hosts* are addresses and names at which a server is asked.

        Below 0 the certificate ran out so many *days* ago.
        """
        made = _issue(common_name, self._own, uris=uris, hosts=hosts, days=days)
        found = TLSFiles(
            certificate=self._directory / f"{file}.pem",
            key=self._directory / f"{file}.key",
            ca=self.file,
        )
        found.key.write_bytes(
            made.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        found.certificate.write_bytes(_pem(made.certificate))
        return found

    def node(self, name: str) -> TLSFiles:
        return self.issue(f"node-{name}", uris=[f"isthmus:node:{name}"])

    def admin(self) -> TLSFiles:
        return self.issue("admin", common_name="isthmus:admin")

    def server(self) -> TLSFiles:
        """For a server on loopback."""
        return self.issue("server", common_name="ipamd", hosts=["127.0.0.1", "localhost"])


def _issue(
    name: str,
    by: Made | None,
    *,
    uris: Sequence[str] = (),
    hosts: Sequence[str] = (),
    days: float = 1,
    ca: bool = False,
) -> Made:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    now = datetime.datetime.now(datetime.UTC)
    names = [*map(x509.UniformResourceIdentifier, uris), *map(_host, hosts)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not name)
    if not ca:
        builder = builder.add_extension(_USES, critical=False)
    return Made(builder.sign(by.key if by else key, hashes.SHA256()), key)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
