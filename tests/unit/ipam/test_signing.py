"""What is signed is what ipamd and its clients take, and nothing else is signed."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ipam.refusals import Invalid
from ipam.signing import AUTHORITY_DAYS, SKEW, Signer, make_authority, make_request
from ipam.tls import SERVER, BadCredentials, TLSFiles

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = make_authority(NOW)
    (tmp_path / "ca.pem").write_bytes(made.certificate)
    (tmp_path / "ca.key").write_bytes(made.key)
    return tmp_path


def signer(directory: Path) -> Signer:
    return Signer.load(directory / "ca.pem", directory / "ca.key")


def names(pem: bytes) -> x509.SubjectAlternativeName:
    extensions = x509.load_pem_x509_certificate(pem).extensions
    return extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_a_node_gets_a_certificate_of_the_key_in_its_request(directory: Path) -> None:
    made = make_request()
    certificate = signer(directory).node(made.certificate, "node-1", now=NOW, life=3 * DAY)
    # One file for both, as agents keep them.
    file = directory / "node.pem"
    file.write_bytes(certificate + made.key)
    files = TLSFiles(certificate=file, key=file, ca=directory / "ca.pem")

    files.read()

    assert files.fault() == ""
    assert names(certificate).get_values_for_type(x509.UniformResourceIdentifier) == [
        "isthmus:node:node-1"
    ]
    read = x509.load_pem_x509_certificate(certificate)
    assert (read.not_valid_before_utc, read.not_valid_after_utc) == (NOW - SKEW, NOW + 3 * DAY)


def test_what_a_request_says_of_names_is_not_taken(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("isthmus:admin")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(wanted, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM)

    made = signer(directory).node(pem, "a", now=NOW, life=DAY)

    read = x509.load_pem_x509_certificate(made)
    assert names(made).get_values_for_type(x509.UniformResourceIdentifier) == ["isthmus:node:a"]
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    uses = read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [use.dotted_string for use in uses] == [
        "1.3.6.1.5.5.7.3.2",
        "1.3.6.1.5.5.7.3.1",  # nodes are servers of each other
    ]


def _csr(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (b"", "no request for a certificate"),
        (b"x" * 9000, "8192 bytes at most"),
        (make_authority(NOW).certificate, "no request for a certificate"),
        (_csr(rsa.generate_private_key(65537, 2048)), "secp256r1"),
        (_csr(ec.generate_private_key(ec.SECP521R1())), "secp256r1"),
    ],
)
def test_what_is_no_good_request_is_refused(directory: Path, request_: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        signer(directory).node(request_, "a", now=NOW, life=DAY)


def test_a_request_for_somebody_elses_key_is_refused(directory: Path) -> None:
    genuine = x509.load_pem_x509_csr(make_request().certificate)
    der = bytearray(genuine.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    text = base64.encodebytes(der).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n".encode()

    with pytest.raises(Invalid, match=r"not signed by the key|no request"):
        signer(directory).node(pem, "a", now=NOW, life=DAY)


def test_ipamd_has_a_name_whatever_its_address_is(directory: Path) -> None:
    made = signer(directory).server(["10.0.0.1", "fd00::1", "here.example"], now=NOW, life=DAY)

    assert names(made.certificate).get_values_for_type(x509.DNSName) == [SERVER, "here.example"]
    assert [str(ip) for ip in names(made.certificate).get_values_for_type(x509.IPAddress)] == [
        "10.0.0.1",
        "fd00::1",
    ]


def test_nothing_outlives_the_authority(directory: Path) -> None:
    made = signer(directory).client("isthmus:admin", now=NOW, life=timedelta(days=99999))

    until = x509.load_pem_x509_certificate(made.certificate).not_valid_after_utc
    assert until == NOW + timedelta(days=AUTHORITY_DAYS)


def test_of_several_authorities_in_a_file_the_one_of_the_key_signs(directory: Path) -> None:
    own = (directory / "ca.pem").read_bytes()
    (directory / "ca.pem").write_bytes(make_authority(NOW).certificate + own)

    made = signer(directory).client("isthmus:admin", now=NOW, life=DAY)

    x509.load_pem_x509_certificate(made.certificate).verify_directly_issued_by(
        x509.load_pem_x509_certificate(own)
    )


def test_an_authority_may_have_any_usual_key(directory: Path) -> None:
    for key in (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
        digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        own = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
            .sign(key, digest)
        )
        (directory / "ca.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
        (directory / "ca.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

        made = signer(directory).client("isthmus:admin", now=NOW, life=DAY)

        x509.load_pem_x509_certificate(made.certificate).verify_directly_issued_by(own)


def test_files_of_no_authority_are_named(directory: Path) -> None:
    other = make_authority(NOW)
    certificates, key = directory / "ca.pem", directory / "ca.key"
    for file, content, why in (
        (key, other.key, "the key of none"),
        (key, b"nothing", "ca.key: no unencrypted private key"),
        (certificates, b"nothing", "ca.key"),
    ):
        file.write_bytes(content)
        with pytest.raises(BadCredentials, match=why):
            signer(directory)
    key.unlink()
    with pytest.raises(BadCredentials, match=r"ca\.key: No such file"):
        signer(directory)
