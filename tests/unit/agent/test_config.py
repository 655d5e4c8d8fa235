"""The configuration file, and a message for each key that is wrong."""

import socket
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from agent.config import (
    DEFAULT_PATH,
    AgentConfig,
    IpamdConfig,
    KubernetesConfig,
    load,
    parse,
)
from masquerade.settings import Settings as MasqueradeConfig
from net.settings import ConfigError, LogFormat, LogLevel
from routing.settings import Mode
from routing.settings import Settings as RoutingConfig

ALLOWED = (
    "announce, cooldown_s, grace_s, host_local, install, ipamd, kubernetes, log_format, log_level, "
    "masquerade, max_parallel, max_queued, metrics_address, reconcile_interval_s, routing, "
    "services, socket, state_dir, status_counts_addresses"
)


def refusal(**document: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(document)

    return str(caught.value)


def test_nothing_said_is_all_defaults() -> None:
    assert parse({}) == AgentConfig()


def test_every_key_can_be_set() -> None:
    found = parse(
        {
            "socket": "/run/x/agent.sock",
            "state_dir": "/var/lib/x",
            "log_format": "json",
            "log_level": "debug",
            "metrics_address": "[::1]:9477",
            "cooldown_s": 5,
            "reconcile_interval_s": 0.5,
            "grace_s": 0,
            "max_parallel": 8,
            "max_queued": 9,
            "status_counts_addresses": True,
            "host_local": "/var/lib/cni/networks",
        }
    )

    assert found == AgentConfig(
        socket=Path("/run/x/agent.sock"),
        state_dir=Path("/var/lib/x"),
        log_format=LogFormat.JSON,
        log_level=LogLevel.DEBUG,
        metrics_address="[::1]:9477",
        cooldown_s=5.0,
        reconcile_interval_s=0.5,
        grace_s=0.0,
        max_parallel=8,
        max_queued=9,
        status_counts_addresses=True,
        host_local=Path("/var/lib/cni/networks"),
    )
    assert type(found.cooldown_s) is float


def test_files_of_the_state_have_fixed_names() -> None:
    found = parse({"state_dir": "/s"})

    assert [str(path) for path in (found.database, found.spool_dir, found.lock)] == [
        "/s/isthmus.db",
        "/s/spool",
        "/s/lock",
    ]
    assert str(found.sysctl_ledger) == "/s/sysctl.json"


WRONG: list[tuple[str, Any, str]] = [
    ("colour", "blue", f"unknown key 'colour'; allowed are {ALLOWED}"),
    ("socket", "run/x", "socket = 'run/x': must be an absolute path"),
    ("socket", 7, "socket = 7: must be an absolute path"),
    ("state_dir", "/a\0b", "state_dir = '/a\\x00b': must be an absolute path"),
    ("log_format", "xml", "log_format = 'xml': must be one of auto, console, json"),
    ("log_level", "loud", "log_level = 'loud': must be one of debug, info, warning, error"),
    ("log_level", 7, "log_level = 7: must be one of debug, info, warning, error"),
    ("cooldown_s", -1, "cooldown_s = -1: must be a number from 0 to 3600"),
    ("cooldown_s", "30", "cooldown_s = '30': must be a number from 0 to 3600"),
    ("cooldown_s", True, "cooldown_s = True: must be a number from 0 to 3600"),
    ("cooldown_s", float("nan"), "cooldown_s = nan: must be a number from 0 to 3600"),
    ("grace_s", float("inf"), "grace_s = inf: must be a number from 0 to 86400"),
    ("grace_s", 86401, "grace_s = 86401: must be a number from 0 to 86400"),
    (
        "reconcile_interval_s",
        0,
        "reconcile_interval_s = 0: must be a number from 0.1 to 3600",
    ),
    ("max_parallel", 0, "max_parallel = 0: must be a whole number from 1 to 256"),
    ("max_parallel", 2.5, "max_parallel = 2.5: must be a whole number from 1 to 256"),
    ("max_queued", 65537, "max_queued = 65537: must be a whole number from 1 to 65536"),
    (
        "status_counts_addresses",
        1,
        "status_counts_addresses = 1: must be true or false",
    ),
    (
        "metrics_address",
        "9477",
        "metrics_address = '9477': must be host:port, as 127.0.0.1:9477, or empty for no metrics "
        "page",
    ),
    ("metrics_address", ":9477", "metrics_address = ':9477': must be host:port"),
    ("metrics_address", "h:99999", "metrics_address = 'h:99999': must be host:port"),
    ("metrics_address", 9477, "metrics_address = 9477: must be host:port or empty"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_a_wrong_key_is_named_with_what_is_allowed(key: str, value: Any, message: str) -> None:
    assert refusal(**{key: value}).startswith(message)


def test_several_wrong_keys_have_a_line_each() -> None:
    lines = refusal(log_level="loud", colour="blue", max_parallel=0).splitlines()

    assert [line.split()[0] for line in lines] == ["log_level", "unknown", "max_parallel"]


def test_a_file_is_read_and_named_in_every_line(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('log_level = "debug"\n')
    good = load(path)
    path.write_text('log_level = "loud"\ncolour = "blue"\n')

    with pytest.raises(ConfigError) as caught:
        load(path)

    assert good.log_level is LogLevel.DEBUG
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [str(path)] * 2


@pytest.mark.parametrize("content", [b"log_level = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_what_is_no_toml_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match="not TOML"):
        load(path)


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.toml: No such file or directory"):
        load(tmp_path / "agent.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_the_default_place_is_under_etc() -> None:
    assert Path("/etc/isthmus/agent.toml") == DEFAULT_PATH


IPAMD: dict[str, Any] = {
    "endpoints": ["192.0.2.1:9476", "[fd00::1]:9476"],
    "ca": "/e/ca.pem",
    "certificate": "/e/node.pem",
    "key": "/e/node.key",
}


def test_ipamd_is_a_table_of_its_own_and_the_node_is_named_as_the_host_is() -> None:
    found = parse({"ipamd": IPAMD}).ipamd
    whole = parse(
        {"ipamd": {**IPAMD, "node": "n1", "labels": {"zone": "a"}, "addresses": ["192.0.2.7"]}}
    ).ipamd

    assert found == IpamdConfig(
        endpoints=("192.0.2.1:9476", "[fd00::1]:9476"),
        ca=Path("/e/ca.pem"),
        certificate=Path("/e/node.pem"),
        key=Path("/e/node.key"),
        node=socket.gethostname(),
    )
    assert whole is not None
    assert (whole.node, whole.labels) == ("n1", {"zone": "a"})
    assert whole.addresses == (ip_address("192.0.2.7"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endpoints": []}, "[ipamd] endpoints = []: must be a list of host:port"),
        ({"endpoints": ["x"]}, "[ipamd] endpoints = ['x']: must be a list of host:port"),
        ({"ca": "ca.pem"}, "[ipamd] ca = 'ca.pem': must be an absolute path"),
        ({"node": "a b"}, "[ipamd] node = 'a b': must be 1 to 253 letters"),
        ({"labels": {"zone": 1}}, "[ipamd] labels = {'zone': 1}: must be a table of texts"),
        ({"addresses": ["x"]}, "[ipamd] addresses = ['x']: must be a list of addresses"),
        ({"cert": "/c"}, "[ipamd] unknown key 'cert'; allowed are addresses, ca, certificate, "),
    ],
)
def test_a_wrong_key_of_ipamd_is_named(change: dict[str, Any], message: str) -> None:
    assert refusal(ipamd={**IPAMD, **change}).startswith(message)


def test_what_ipamd_needs_is_named_where_it_is_missing() -> None:
    assert refusal(ipamd={}) == "[ipamd] ca is missing"
    assert refusal(ipamd={"ca": "/e/ca.pem"}).splitlines() == [
        "[ipamd] endpoints is missing; or else [kubernetes] service, which leads to them",
        "[ipamd] needs certificate and key, or a token to get them by",
    ]
    assert refusal(ipamd=7) == "ipamd = 7: must be a table"


def test_in_kubernetes_a_token_and_a_service_are_enough() -> None:
    found = parse(
        {
            "ipamd": {"ca": "/e/ca.pem", "token": "/t", "node": "n1"},
            "kubernetes": {"service": "isthmus/ipamd", "node": "n1"},
        }
    )

    assert found.kubernetes == KubernetesConfig(service="isthmus/ipamd", node="n1")
    assert found.ipamd is not None
    assert (found.ipamd.endpoints, found.ipamd.certificate, found.ipamd.token) == (
        (),
        None,
        Path("/t"),
    )


def test_the_environment_may_name_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_NODE", "n7")

    found = parse({"ipamd": IPAMD, "kubernetes": {}})

    assert found.ipamd is not None
    assert found.kubernetes is not None
    assert (found.ipamd.node, found.kubernetes.node) == ("n7", "n7")


@pytest.mark.parametrize(
    ("ipamd", "kubernetes", "message"),
    [
        ({"token": "/t"}, {}, "[ipamd] has both token and certificate and key"),
        ({"key": "/k", "certificate": "/c", "node": "x"}, {"node": "y"}, "they are one"),
        ({}, {"service": "ipamd"}, "must be namespace/name of a Service, or empty"),
        ({}, {"address": "10.0.0.1"}, "must be as https://10.0.0.1:6443, or empty"),
        ({}, {"kubeconfig": "x"}, "must be an absolute path"),
    ],
)
def test_what_of_kubernetes_is_wrong_is_named(
    ipamd: dict[str, Any], kubernetes: dict[str, Any], message: str
) -> None:
    assert message in refusal(ipamd={**IPAMD, **ipamd}, kubernetes=kubernetes)


def test_routing_and_masquerade_are_off_unless_there_is_a_table_for_them() -> None:
    without = parse({"ipamd": IPAMD})
    plain = parse({"ipamd": IPAMD, "routing": {}, "masquerade": {}})
    told = parse(
        {
            "ipamd": IPAMD,
            "routing": {"mode": "vxlan", "vni": 7, "port": 8472, "device": "vx", "mtu": 1400},
            "masquerade": {"non_masquerade_cidrs": ["10.0.0.0/8", "fd00::/8"]},
        }
    )

    assert (without.routing, without.masquerade) == (None, None)
    assert (plain.routing, plain.masquerade) == (RoutingConfig(), MasqueradeConfig())
    assert told.routing == RoutingConfig(mode=Mode.VXLAN, vni=7, port=8472, device="vx", mtu=1400)
    assert told.masquerade == MasqueradeConfig(
        non_masquerade_cidrs=(ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"routing": {"mode": "ipip"}},
            "[routing] mode = 'ipip': must be one of direct, vxlan, auto",
        ),
        (
            {"routing": {"vni": 0}},
            "[routing] vni = 0: must be a whole number from 1 to 16777215",
        ),
        ({"routing": {"port": 70000}}, "[routing] port = 70000: must be a whole number"),
        (
            {"routing": {"device": "x" * 15}},
            "[routing] device = 'xxxxxxxxxxxxxxx': must be 1 to 14",
        ),
        ({"routing": {"device": 7}}, "[routing] device = 7: must be 1 to 14 letters"),
        ({"routing": {"mtu": -1}}, "[routing] mtu = -1: must be a whole number"),
        (
            {"masquerade": {"non_masquerade_cidrs": ["10.0.0.1/8"]}},
            "[masquerade] non_masquerade_cidrs = ['10.0.0.1/8']: must be a list of address ranges",
        ),
        ({"masquerade": {"masquerade_link_local": 1}}, "[masquerade] masquerade_link_local = 1: "),
    ],
)
def test_a_wrong_key_of_routing_or_masquerade_is_named(
    document: dict[str, Any], message: str
) -> None:
    assert refusal(ipamd=IPAMD, **document).startswith(message)


def test_both_need_an_ipamd() -> None:
    assert refusal(routing={}, masquerade={}).splitlines() == [
        "[routing] needs [ipamd], who says which node has which",
        "[masquerade] needs [ipamd], who says which node has which",
    ]


SERVED = {"kubernetes": {}, "services": {"pod_cidrs": ["10.244.0.0/16"]}}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("primary", []),
        ("all", ["0.0.0.0/0", "::/0"]),
        (["192.0.2.0/24", "fd00::/8"], ["192.0.2.0/24", "fd00::/8"]),
    ],
)
def test_node_ports_are_answered_where_the_file_says(said: Any, meant: list[str]) -> None:
    services = {**SERVED["services"], "nodeport_addresses": said}
    found = parse({**SERVED, "services": services}).services

    assert found is not None
    assert list(map(str, found.nodeport_addresses)) == meant


@pytest.mark.parametrize("said", ["some", [], ["192.0.2.1/8"], 7])
def test_node_ports_nowhere_are_refused_with_what_is_allowed(said: Any) -> None:
    line = refusal(kubernetes={}, services={"pod_cidrs": [], "nodeport_addresses": said})

    assert line.startswith(f"[services] nodeport_addresses = {said!r}: must be ")


def test_services_need_somebody_who_says_which_there_are_and_where_pods_are() -> None:
    assert refusal(services={}).splitlines() == [
        "[services] needs [kubernetes], who says which there are",
        "[services] needs pod_cidrs, or [ipamd] with its pools",
    ]
    assert parse(SERVED).services is not None


def test_addresses_are_announced_by_a_node_that_translates_and_knows_the_others() -> None:
    found = parse({"announce": {"interfaces": ["eth0"], "port": 1}, "ipamd": IPAMD, **SERVED})

    assert found.announce is not None
    assert (found.announce.interfaces, found.announce.port) == (("eth0",), 1)
    assert refusal(announce={}, **SERVED) == (
        "[announce] needs [services], and [ipamd], who says which nodes there are"
    )


@pytest.mark.parametrize("said", ["eth0", [1], ["a name"], ["sixteen-letters-"], ["a/b"], [".."]])
def test_interfaces_that_cannot_be_are_refused(said: Any) -> None:
    line = refusal(announce={"interfaces": said}, ipamd=IPAMD, **SERVED)

    assert line.startswith(f"[announce] interfaces = {said!r}: must be a list of interfaces")
