"""Which configurations of etcd are refused, and why; files that are of no use."""

from pathlib import Path
from typing import Any

import pytest

from ipam.etcd_config import EtcdConfig
from ipam.kv import KVUnavailable

HTTPS = "https://10.0.0.1:2379"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"endpoints": ()}, "at least one endpoint"),
        ({"endpoints": ("10.0.0.1:2379",)}, "is not http:// or https://"),
        ({"endpoints": ("http://10.0.0.1",)}, "with a host and a port"),
        ({"endpoints": ("http://10.0.0.1:x",)}, "with a host and a port"),
        ({"endpoints": ("http://[fd00::1:2379",)}, "with a host and a port"),
        ({"endpoints": ("http://10.0.0.1:2379/v3",)}, "with a host and a port"),
        ({"endpoints": ("http://me:secret@10.0.0.1:2379",)}, "with a host and a port"),
        ({"endpoints": ("unix://run/etcd",)}, "nor unix:///PATH"),
        ({"endpoints": ("unix:///run/etcd",), "ca": Path("ca")}, "these are unix"),
        ({"endpoints": (HTTPS, "unix:///run/etcd"), "ca": Path("ca")}, "all https or all unix"),
        ({"endpoints": (HTTPS, "http://10.0.0.2:2379"), "ca": Path("ca")}, "all http, all https"),
        ({"endpoints": (HTTPS,)}, "need the CA file"),
        ({"endpoints": ("http://10.0.0.1:2379",), "ca": Path("ca")}, "are for https endpoints"),
        ({"endpoints": (HTTPS,), "ca": Path("ca"), "cert": Path("c")}, "both the certificate and"),
        ({"endpoints": (HTTPS,), "ca": Path("ca"), "username": "me"}, "both a name and a password"),
        ({"endpoints": (HTTPS,), "ca": Path("ca"), "timeout_s": 0.0}, "above 0 s, not 0"),
    ],
)
def test_contradiction_is_refused_with_what_is_expected(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EtcdConfig(**fields)


def test_names_and_both_families_of_addresses_are_endpoints() -> None:
    config = EtcdConfig(
        endpoints=("http://etcd.example:2379", "http://10.0.0.1:2379/", "http://[fd00::1]:2379")
    )

    assert config.targets == ("etcd.example:2379", "10.0.0.1:2379", "[fd00::1]:2379")


def test_first_line_of_the_password_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("pass word\r\nmore\n")
    config = EtcdConfig(endpoints=("http://10.0.0.1:2379",), username="me", password_file=file)

    assert config.password() == "pass word"


def test_missing_password_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "password"
    config = EtcdConfig(endpoints=("http://10.0.0.1:2379",), username="me", password_file=file)

    with pytest.raises(KVUnavailable, match=str(file)):
        config.password()


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_unusable_ca_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    config = EtcdConfig(endpoints=(HTTPS,), ca=ca)

    with pytest.raises(KVUnavailable, match=str(ca)):
        config.pem()


def test_stamp_changes_with_each_file(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    config = EtcdConfig(endpoints=(HTTPS,), ca=ca)
    stamps = [config.stamp()]
    for content in (b"1", b"22"):
        ca.write_bytes(content)
        stamps.append(config.stamp())

    assert len(set(stamps)) == 3


def test_a_socket_of_this_host_is_an_endpoint() -> None:
    config = EtcdConfig(endpoints=("unix:///run/isthmus-etcd/localhost:2479",))

    assert config.targets == ("unix:/run/isthmus-etcd/localhost:2479",)
    assert config.pem() is None


def test_plain_endpoints_have_no_pem() -> None:
    assert EtcdConfig(endpoints=("http://10.0.0.1:2379",)).pem() is None
