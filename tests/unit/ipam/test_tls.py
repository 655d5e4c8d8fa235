"""Names in certificates, and files that are or are not credentials."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ipam.tls import BadCredentials, Who, identify
from tests.certificates import Authority


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["isthmus:node:a"], Who("isthmus:node:a", "a")),
        (["node-a", "isthmus:node:a", "isthmus:node:a"], Who("isthmus:node:a", "a")),
        (["isthmus:admin"], Who("isthmus:admin")),
        (["isthmus:admin:eva"], Who("isthmus:admin:eva")),
        (["isthmus:node:"], None),
        (["isthmus:admin:"], None),
        (["isthmus:administrator"], None),
        (["isthmus:node:a", "isthmus:node:b"], None),
        (["isthmus:node:a", "isthmus:admin"], None),
        ([], None),
    ],
)
def test_a_certificate_names_one_node_or_an_administrator(
    names: list[str], expected: Who | None
) -> None:
    assert identify(names) == expected


def test_files_are_read_together(tmp_path: Path) -> None:
    files = Authority(tmp_path).node("a")
    pem = files.read()

    assert pem.certificate == files.certificate.read_bytes()
    assert pem.key == files.key.read_bytes()
    assert pem.ca == files.ca.read_bytes()


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = replace(authority.node("a"), key=authority.node("b").key)

    with pytest.raises(BadCredentials, match=r"node-a.pem and .*node-b.key: not a certificate"):
        files.read()


def test_a_missing_file_and_an_authority_that_is_none_are_told(tmp_path: Path) -> None:
    files = Authority(tmp_path).node("a")
    nothing = replace(files, ca=tmp_path / "none.pem")
    garbage = replace(files, ca=tmp_path / "bad.pem")
    garbage.ca.write_text("garbage")

    with pytest.raises(BadCredentials, match=r"none.pem: No such file"):
        nothing.read()
    with pytest.raises(BadCredentials, match=r"bad.pem: no certificates of authorities"):
        garbage.read()


def test_the_stamp_tells_an_exchanged_file(tmp_path: Path) -> None:
    files = Authority(tmp_path).node("a")
    before = files.stamp()
    fresh = tmp_path / "fresh"
    fresh.write_bytes(files.key.read_bytes())
    os.replace(fresh, files.key)

    assert files.stamp() != before
    assert files.stamp() == files.stamp()


def test_what_a_server_would_have_against_a_certificate_is_known(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good = authority.node("a")
    expired = authority.issue("old", uris=["isthmus:node:a"], days=-1)
    foreign = replace(good, ca=Authority(tmp_path / "other", "another").file)

    assert good.fault() == ""
    assert expired.fault() == "certificate has expired"
    assert foreign.fault() == "unable to get local issuer certificate"
