"""Keys and certificates, made: the one module that knows `cryptography`.

A certificate names its holder as ipam.tls reads it.  What ipamd serves with also names SERVER, so
that an agent finds the right ipamd at whatever address.  A node's certificate has no such name, and
is served with to other nodes alone; an administrator's cannot be served with, nor ipamd's be shown
as a client's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ipam.refusals import Invalid
from ipam.tls import NODE, SERVER, BadCredentials

SKEW = timedelta(minutes=5)  # clocks of two hosts
LONGEST_REQUEST = 8 << 10
AUTHORITY_DAYS = 3650

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_CURVES = ("secp256r1", "secp384r1")


@dataclass(frozen=True, slots=True)
class Issued:
    """PEM of a certificate with its chain, and of its key."""

    certificate: bytes
    key: bytes


def make_authority(now: datetime) -> Issued:
    """An authority of one's own, for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "isthmus authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(_pem(certificate), _key_pem(key))


def make_request() -> Issued:
    """A new key, and the request for a certificate of it; who it is for, the signer decides."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
    )
    return Issued(request.public_bytes(serialization.Encoding.PEM), _key_pem(key))


class Signer:
    """What an authority signs, by its certificate (one of several in a file, perhaps) and key."""

    def __init__(self, certificate: x509.Certificate, key: SigningKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def load(cls, certificates: Path, key: Path) -> "Signer":
        """Raises BadCredentials, also where no certificate in the file is of this key."""
        own = _load_key(key)
        try:
            known = x509.load_pem_x509_certificates(certificates.read_bytes())
        except OSError as exc:
            raise BadCredentials(f"{certificates}: {exc.strerror}") from exc
        except ValueError as exc:
            raise BadCredentials(f"{certificates}: no certificates of authorities") from exc
        mine = next((one for one in known if one.public_key() == own.public_key()), None)
        if mine is None:
            raise BadCredentials(f"{key}: the key of none of the certificates in {certificates}")
        return cls(mine, own)

    def server(self, hosts: Sequence[str], *, now: datetime, life: timedelta) -> Issued:
        """For ipamd, at these addresses and names."""
        names = [x509.DNSName(SERVER), *map(_host, hosts)]
        return self._own(names, [ExtendedKeyUsageOID.SERVER_AUTH], now, life)

    def member(self, hosts: Sequence[str], *, now: datetime, life: timedelta) -> Issued:
        """For members of etcd, who are servers and clients of each other."""
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._own([*map(_host, hosts)], uses, now, life)

    def client(self, name: str, *, now: datetime, life: timedelta) -> Issued:
        """For an agent or an administrator of this *name*, with a key made here."""
        names = [x509.UniformResourceIdentifier(name)]
        return self._own(names, _uses(name), now, life)

    def node(self, request: bytes, node: str, *, now: datetime, life: timedelta) -> bytes:
        """For *node*, whatever *request* says of names.  Raises Invalid."""
        key = _requested_key(request)
        name = f"{NODE}{node}"
        return self._sign(key, [x509.UniformResourceIdentifier(name)], _uses(name), now, life)

    def _own(
        self,
        names: Sequence[x509.GeneralName],
        uses: Sequence[x509.ObjectIdentifier],
        now: datetime,
        life: timedelta,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        return Issued(self._sign(key.public_key(), names, uses, now, life), _key_pem(key))

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        uses: Sequence[x509.ObjectIdentifier],
        now: datetime,
        life: timedelta,
    ) -> bytes:
        # No longer than the authority itself: what it signed would end with it.
        until = min(now + life, self._certificate.not_valid_after_utc)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(issuer, critical=False)
            .sign(self._key, _digest(self._key))
        )
        return _pem(certificate)


def now() -> datetime:
    return datetime.now(UTC)


def _uses(name: str) -> list[x509.ObjectIdentifier]:
    """Nodes are also servers of each other: of ipamd's addresses and names none is theirs."""
    serves = [ExtendedKeyUsageOID.SERVER_AUTH] if name.startswith(NODE) else []
    return [ExtendedKeyUsageOID.CLIENT_AUTH, *serves]


def _load_key(path: Path) -> SigningKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as exc:
        raise BadCredentials(f"{path}: {exc.strerror}") from exc
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise BadCredentials(f"{path}: no unencrypted private key") from exc
    if not isinstance(key, SigningKey):
        raise BadCredentials(f"{path}: no key that signs certificates (ECDSA, RSA or Ed25519)")
    return key


def _digest(key: SigningKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """Raises Invalid for what is no request, or not signed by the key that it brings."""
    if len(request) > LONGEST_REQUEST:
        raise Invalid(f"a request for a certificate has {LONGEST_REQUEST} bytes at most")
    try:
        asked = x509.load_pem_x509_csr(request)
        key, is_genuine = asked.public_key(), asked.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as exc:
        raise Invalid("this is no request for a certificate (PEM, PKCS #10)") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise Invalid(f"a request for a certificate has a key on one of {', '.join(_CURVES)}")
    if not is_genuine:
        raise Invalid("the request is not signed by the key that it brings")
    return key


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    """An authority signs certificates and lists of them; anybody else signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
