"""An authority of one's own: what it signs is what ipamd and its clients want."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ipam.tls import TLSFiles
from tests.unit.cli.conftest import Run


def files(directory: Path, name: str) -> TLSFiles:
    return TLSFiles(
        certificate=directory / f"{name}.pem",
        key=directory / f"{name}.key",
        ca=directory / "ca.pem",
    )


def uris(directory: Path, name: str) -> list[str]:
    certificate = x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_all_that_a_small_site_needs_is_made(run: Run, tmp_path: Path) -> None:
    made = run(
        *("ipam", "certificates", "make", tmp_path, "--node", "a", "--node", "b.example"),
        *("--host", "127.0.0.1", "--host", "ipamd.example", "--admin", "eva"),
    )

    assert made.exit_code == 0, made.output
    for name in ("ipamd", "node-a", "node-b.example", "admin"):
        files(tmp_path, name).read()
        assert (tmp_path / f"{name}.key").stat().st_mode & 0o077 == 0
    for name in ("node-a", "node-b.example", "admin"):
        assert files(tmp_path, name).fault() == ""
    assert uris(tmp_path, "node-b.example") == ["isthmus:node:b.example"]
    assert uris(tmp_path, "admin") == ["isthmus:admin:eva"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".pem", ".key"}


def test_the_authority_is_kept_and_others_are_made_anew(run: Run, tmp_path: Path) -> None:
    run("ipam", "certificates", "make", tmp_path, "--node", "a")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run("ipam", "certificates", "make", tmp_path, "--node", "a")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert {name for name in before if before[name] != after[name]} == {
        "node-a.key",
        "node-a.pem",
    }


@pytest.mark.parametrize(
    "words", [("--node", "a/b"), ("--node", ""), ("--host", "a b"), ("--days", "0")]
)
def test_what_no_certificate_can_say_is_refused(
    run: Run, tmp_path: Path, words: tuple[str, str]
) -> None:
    refused = run("ipam", "certificates", "make", tmp_path, *words)

    assert refused.exit_code == 2
    assert words[0] in refused.output


def test_an_authority_whose_key_is_of_another_is_named(run: Run, tmp_path: Path) -> None:
    run("ipam", "certificates", "make", tmp_path / "a")
    run("ipam", "certificates", "make", tmp_path / "b")
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())

    refused = run("ipam", "certificates", "make", tmp_path / "a", "--node", "a")

    assert refused.exit_code == 1
    assert "the key of none of the certificates" in refused.output


def test_a_request_is_printed_with_its_key(run: Run) -> None:
    made = run("ipam", "certificates", "request")

    request = x509.load_pem_x509_csr(made.output.encode())
    assert request.is_signature_valid
    assert "BEGIN PRIVATE KEY" in made.output


def test_members_of_an_etcd_are_servers_and_clients_of_each_other(run: Run, tmp_path: Path) -> None:
    made = run("ipam", "certificates", "etcd", tmp_path, "--member", "10.0.0.1", "--member", "cp-2")

    certificate = x509.load_pem_x509_certificate((tmp_path / "member.pem").read_bytes())
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert made.exit_code == 0, made.output
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    for name in ("member", "client"):
        assert files(tmp_path, name).fault() == ""
