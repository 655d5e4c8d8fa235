"""The doctor's eyes, in namespaces that have what ails a host."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from cli.places import CONF, TREE
from cni.tables import skeleton
from dataplane import inspect
from dataplane.features import find_shortcomings
from dataplane.firewall import observe_firewall
from dataplane.netns import entered, open_path
from tests.kernel.conftest import Namespace

pytestmark = pytest.mark.kernel

T = TypeVar("T")

DOCKER = """
table ip filter {
    chain DOCKER-USER { iifname "br-ok" accept; }
    chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
}
"""
FIREWALLD = """
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        reject with icmpx type admin-prohibited
    }
}
"""


@pytest.fixture
def host(namespaces: Callable[[str], Namespace]) -> Namespace:
    return namespaces("host")


def look(namespace: Namespace, read: Callable[[], T]) -> T:
    """What *read* sees in *namespace*, from a thread of its own."""

    def work() -> T:
        with (
            open(open_path(namespace.path), "rb", buffering=0) as handle,
            entered(handle.fileno()),
        ):
            return read()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_addresses_and_routes_are_seen_with_their_links(host: Namespace) -> None:
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    host.run("ip", "address", "add", "192.0.2.1/24", "dev", "up0")
    host.run("ip", "link", "set", "up0", "up")
    host.run("ip", "route", "add", "10.9.0.0/16", "dev", "up0")
    host.run("ip", "route", "add", "10.8.0.1/32", "dev", "up0", "proto", "176")

    found = look(host, inspect.observe_network)

    assert "up0" in {link.name for link in found.links}
    assert ("up0", "192.0.2.1/24") in {(a.ifname, str(a.address)) for a in found.addresses}
    routes = {(route.ifname, str(route.dst), route.ours) for route in found.routes}
    assert {("up0", "10.9.0.0/16", False), ("up0", "10.8.0.1/32", True)} <= routes
    assert not any(str(route.dst).startswith("127.") for route in found.routes)


@pytest.mark.parametrize(
    ("rules", "chain", "accepts"),
    [(DOCKER, "ip filter FORWARD", {"br-ok"}), (FIREWALLD, "inet firewalld filter_FORWARD", set())],
)
def test_firewalls_that_drop_what_is_forwarded_are_seen(
    host: Namespace, tmp_path: Path, rules: str, chain: str, accepts: set[str]
) -> None:
    script = tmp_path / "rules.nft"
    script.write_text(rules)
    host.run("nft", "-f", str(script))

    found = look(host, observe_firewall)

    assert (found.fault, len(found.version)) == ("", 3)
    assert [(str(one), one.drops, one.accepts) for one in found.chains] == [(chain, True, accepts)]


@pytest.mark.parametrize(
    ("chain", "owner"), [("DOCKER-USER", "Docker"), ("ufw-user", "ufw"), ("cali-FORWARD", "Calico")]
)
@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_whose_chains_drop_what_is_forwarded_is_seen(
    host: Namespace, program: str, chain: str, owner: str
) -> None:
    host.run(program, "-N", chain)
    host.run(program, "-A", "FORWARD", "-j", chain)
    host.run(program, "-P", "FORWARD", "DROP")

    found = look(host, observe_firewall)

    assert [one.owners for one in found.chains if one.drops] == [(owner,)]


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_both_kinds_of_iptables_are_seen(host: Namespace, program: str) -> None:
    host.run(program, "-A", "FORWARD", "-i", "cni0", "-j", "ACCEPT")
    host.run(program, "-P", "FORWARD", "DROP")
    names = host.run("cat", "/proc/net/ip_tables_names", check=False)

    found = look(host, observe_firewall)

    assert program == "iptables-nft" or "filter" in names
    assert [(one.drops, one.accepts) for one in found.chains if one.drops] == [(True, {"cni0"})]


def test_features_are_tried_without_leaving_anything_here() -> None:
    before = {link.name for link in inspect.observe_network().links}

    found = find_shortcomings(skeleton())

    needed = {"veth", "bridge", "nftables NAT", "nftables conntrack", "nftables fib"}
    assert (needed & set(found.missing), found.refusal) == (set(), "")
    assert {link.name for link in inspect.observe_network().links} == before


def test_a_ruleset_that_nft_does_not_take_is_told_with_its_complaint() -> None:
    found = find_shortcomings("table inet x { chain c { teleport ; } ; }")

    assert "teleport" in found.refusal or "syntax error" in found.refusal


def test_the_whole_examination_of_an_ailing_host(host: Namespace, tmp_path: Path) -> None:
    conf = tmp_path / "net.d"
    conf.mkdir()
    (conf / "05-other.conflist").write_text('{"name": "o", "plugins": [{"type": "bridge"}]}')
    (conf / "10-isthmus.conflist").write_bytes((CONF / "10-isthmus.conflist").read_bytes())
    host.run("ip", "link", "add", "flannel.1", "type", "veth", "peer", "name", "x")
    host.run("ip", "address", "add", "10.66.7.1/24", "dev", "flannel.1")
    for bridge, port, alias in (("cbr0", "isth0123456789a", "isthmus/1"), ("weave", "y", "y")):
        host.run("ip", "link", "add", bridge, "type", "bridge")
        host.run("ip", "link", "add", port, "master", bridge, "type", "veth")
        host.run("ip", "link", "set", port, "alias", alias)
    script = tmp_path / "rules.nft"
    script.write_text(DOCKER)
    host.run("nft", "-f", str(script))

    output = host.run(
        "env", f"PYTHONPATH={TREE}", str(TREE / ".venv/bin/python"), "-m", "cli",
        "doctor", "--json", "--socket", str(tmp_path / "none"),
        "--conf-dir", str(conf), "--bin-dir", str(tmp_path / "bin"),
        "--state-dir", str(tmp_path / "state"), check=False,
    )  # fmt: skip

    found = {finding["what"] for finding in json.loads(output)}
    assert {
        "05-other.conflist sorts before 10-isthmus.conflist",
        "the plugin isthmus is not in the directory of plugins",
        "10.66.0.0/16 of 10-isthmus.conflist overlaps the address 10.66.7.1/24 on flannel.1",
        "the chain ip filter FORWARD drops forwarded packets and does not accept cni0",
        "the link flannel.1 is there: it looks like one of flannel",
        "the link weave is there: it looks like one of Weave Net",
        f"no agent runs: there is no socket {tmp_path}/none",
    } <= found
    assert not any("cbr0" in what for what in found)
