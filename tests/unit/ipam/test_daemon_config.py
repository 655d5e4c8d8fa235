"""ipamd's configuration file, and a message for each key that is wrong."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cli.places import CONF
from ipam.daemon_config import DaemonConfig, load, parse
from kube.config import ServerConfig
from net.settings import ConfigError

EXAMPLE = CONF / "ipamd.toml"


def test_nothing_said_is_all_defaults() -> None:
    assert parse({}) == DaemonConfig()


def test_the_example_has_every_key_with_its_default(tmp_path: Path) -> None:
    said = [
        line[1:]
        for line in EXAMPLE.read_text().splitlines()
        if line[:1] == "#" and (" = " in line or line == "#[kubernetes]")
    ]
    path = tmp_path / "ipamd.toml"
    path.write_text("\n".join(line for line in said if not line.startswith(" ")))
    document = tomllib.loads(path.read_text())

    assert load(path) == DaemonConfig(kubernetes=ServerConfig())
    assert set(document) == {field.name for field in fields(DaemonConfig)}
    assert set(document["kubernetes"]) == {field.name for field in fields(ServerConfig)}


def test_what_is_said_of_etcd_reaches_its_client() -> None:
    config = parse(
        {
            "cluster": "east",
            "etcd_endpoints": ["https://10.0.0.1:2379", "https://[fd00::2]:2379"],
            "etcd_ca": "/ca",
            "etcd_certificate": "/c",
            "etcd_key": "/k",
            "etcd_username": "ipamd",
            "etcd_password_file": "/p",
            "etcd_timeout_s": 1,
        }
    )
    etcd = config.etcd()

    assert etcd.targets == ("10.0.0.1:2379", "[fd00::2]:2379")
    assert (etcd.ca, etcd.cert, etcd.key, etcd.password_file) == tuple(
        map(Path, ("/ca", "/c", "/k", "/p"))
    )
    assert (etcd.prefix, etcd.timeout_s, etcd.username) == ("/isthmus/v1/east/", 1.0, "ipamd")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("listen", "9476", 'must be host:port, as "[::]:9476"'),
        ("listen", 9476, 'must be host:port, as "[::]:9476"'),
        ("cluster", "a/b", "must be 1 to 253 letters, digits"),
        ("certificate", "", "must be an absolute path"),
        ("etcd_endpoints", [], "must be a list of URLs"),
        ("etcd_endpoints", "http://a:1", "must be a list of URLs"),
        ("etcd_endpoints", ["a:1"], "'a:1' is none"),
        ("etcd_endpoints", ["ftp://a:1"], "'ftp://a:1' is none"),
        ("etcd_endpoints", ["unix://a"], "'unix://a' is none"),
        ("etcd_endpoints", ["http://a:1/x"], "'http://a:1/x' is none"),
        ("etcd_endpoints", ["http://a:1", "https://a:1"], "all http, all https"),
        ("etcd_endpoints", ["https://a:1"], "need the CA file"),
        ("etcd_ca", "/ca", "certificates are for https"),
        ("etcd_username", "x", "needs both a name and a password file"),
        ("etcd_timeout_s", 0, "must be a number from 0.1 to 60"),
        ("drain_s", -1, "must be a number from 0 to 300"),
        ("max_calls", 1, "must be a whole number from 16"),
        ("hosts", "10.0.0.1", "must be a list of addresses and names"),
        ("hosts", ["a b"], "must be 1 to 253 letters"),
        ("enroll_account", "agent", "must be namespace/name of a service account"),
        ("enroll_account", "a/b/c", "must be namespace/name of a service account"),
        ("certificate_days", 0.5, "must be a number from 1 to 365"),
        ("kubernetes", {"address": "10.0.0.1"}, "must be as https://10.0.0.1:6443"),
        ("kubernetes", {"adress": ""}, "unknown key 'adress'"),
        ("colour", "blue", "unknown key 'colour'; allowed are ca, ca_key, certificate"),
    ],
)
def test_a_wrong_key_is_named_with_what_is_allowed(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({key: value})

    assert message in str(caught.value)


def test_a_file_is_named_in_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "ipamd.toml"
    path.write_text('listen = "x"\netcd_timeout_s = "y"\n')

    with pytest.raises(ConfigError) as caught:
        load(path)

    assert [line.split()[1] for line in str(caught.value).splitlines()] == [
        "listen",
        "etcd_timeout_s",
    ]
