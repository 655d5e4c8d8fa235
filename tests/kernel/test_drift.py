"""What others change on the host is put back; what cannot be set must be right already."""

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.agents import Machine, Pod, until
from tests.kernel.nodes import Site, error_of, in_child, site_of
from tests.kernel.sockets import inside
from tests.kernel.test_attachments import (
    DUAL,
    HOST4,
    HOST6,
    V4,
    V6,
    Conf,
    add,
    addresses_of,
    call,
    conf,
    host_side,
    link,
)

pytestmark = pytest.mark.kernel

_CLONE_NEWNS = 0x00020000


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """Its host has an address of each family that its pods can be reached from."""
    for address in (f"{HOST4}/32", f"{HOST6}/128"):
        machine.host.run("ip", "address", "add", address, "dev", "lo")
    return machine


@pytest.fixture
def site(machine: Machine) -> Iterator[Site]:
    with site_of(machine) as found, found.wired.links.host(), found.wired.host._conntrack():
        yield found  # the sockets of this thread are closed after it


BANDWIDTH = {"ingressRate": 8_000_000, "ingressBurst": 800_000}
BRIDGED = conf(
    ipam=DUAL,
    ipMasq=True,
    macspoofchk=True,
    runtimeConfig={
        "portMappings": [{"hostPort": 8080, "containerPort": 80}],
        "bandwidth": BANDWIDTH,
    },
)
ROUTED = conf(mode="routed", ipam=DUAL, ipMasq=True)

DRIFTS: dict[str, tuple[Conf, list[str]]] = {
    "bridge address": (BRIDGED, ["ip -4 address flush dev cni0"]),
    "bridge address of IPv6": (BRIDGED, ["ip -6 address delete fd09::1/64 dev cni0"]),
    "bridge down": (BRIDGED, ["ip link set cni0 down"]),
    "bridge": (BRIDGED, ["ip link delete cni0"]),
    "port": (BRIDGED, ["ip link set {host} nomaster"]),
    "host side down": (BRIDGED, ["ip link set {host} down"]),
    "hairpin": (BRIDGED, ["ip link set {host} type bridge_slave hairpin off"]),
    "isolation": (BRIDGED, ["ip link set {host} type bridge_slave isolated on"]),
    "all tables": (BRIDGED, ["nft flush ruleset"]),
    "rate limits": (BRIDGED, ["tc qdisc delete dev {host} root"]),
    "host route": (ROUTED, ["ip route delete {address}"]),
    "host route elsewhere": (ROUTED, ["ip route replace {address} dev lo"]),
    "gateway": (ROUTED, ["ip address delete 169.254.1.1/32 dev {host}"]),
    "gateway of IPv6": (ROUTED, ["ip -6 address delete fe80::1/64 dev {host}"]),
    "routed host side down": (ROUTED, ["ip link set {host} down"]),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_is_repaired_by_the_next_round(site: Site, name: str) -> None:
    network, commands = DRIFTS[name]
    pod, result = add(site, network)
    checked = network | {"prevResult": result}
    for command in commands:
        words = command.format(host=host_side(pod), address=addresses_of(result)[0])
        site.machine.host.run(*words.split())
    broken = call(site, "CHECK", pod, checked)

    report = site.wired.reconciler.round()

    assert broken.get("code") == 104, broken
    assert report.repaired
    assert call(site, "CHECK", pod, checked) == {}
    assert not site.wired.reconciler.round()
    for address in addresses_of(result):
        assert site.machine.host.pings(address)


@pytest.mark.parametrize(
    ("setting", "ipam"),
    [("net.ipv4.ip_forward", V4), ("net.ipv6.conf.all.forwarding", V6)],
)
def test_forwarding_that_was_switched_off_is_switched_on(
    site: Site, setting: str, ipam: Conf
) -> None:
    add(site, conf(ipam=ipam))
    site.machine.host.run("sysctl", "-qw", f"{setting}=0")

    site.wired.host.forget()  # as the agent does before each round
    site.wired.reconciler.round()

    assert site.machine.host.run("sysctl", "-n", setting).strip() == "1"


def test_links_and_rules_of_others_are_left_alone(site: Site) -> None:
    host = site.machine.host
    add(site, BRIDGED)
    host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "veth1")
    host.run("ip", "route", "add", "203.0.113.0/24", "dev", "lo", "proto", "static")
    host.run("nft", "add", "table", "inet", "theirs")

    for _ in range(3):
        site.wired.reconciler.round()

    assert link(host, "veth0")["ifname"] == "veth0"
    assert "203.0.113.0/24" in host.run("ip", "route")
    assert "table inet theirs" in host.run("nft", "list", "tables")


def uplink_by_advertisement(site: Site) -> None:
    host = site.machine.host
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "up1")
    host.run("ip", "link", "set", "up0", "up")
    host.run("ip", "link", "set", "up1", "up")
    host.run("ip", "-6", "route", "add", "default", "via", "fe80::99", "dev", "up0", "proto", "ra")


def sysctl(site: Site, name: str) -> str:
    with inside(site.machine.host):
        return (Path("/proc/sys") / name).read_text().strip()


def test_an_uplink_by_router_advertisement_goes_on_listening(site: Site) -> None:
    uplink_by_advertisement(site)
    site.wired.host.forget()
    before = sysctl(site, "net/ipv6/conf/up0/accept_ra")

    add(site, conf(ipam=V6))

    assert before == "1"
    assert sysctl(site, "net/ipv6/conf/up0/accept_ra") == "2"
    assert sysctl(site, "net/ipv6/conf/all/forwarding") == "1"
    assert '"net/ipv6/conf/up0/accept_ra": "1"' in site.machine.config.sysctl_ledger.read_text()


def test_ipv4_alone_leaves_ipv6_as_it_is(site: Site) -> None:
    uplink_by_advertisement(site)

    add(site, conf())

    assert sysctl(site, "net/ipv6/conf/up0/accept_ra") == "1"
    assert sysctl(site, "net/ipv6/conf/all/forwarding") == "0"


def read_only_settings() -> None:
    """Make /proc/sys read-only for this process, as an unprivileged container has it."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_CLONE_NEWNS) == 0
    for command in (
        "mount --make-rprivate /",
        "mount --bind /proc/sys /proc/sys",
        "mount -o remount,ro,bind /proc/sys",
    ):
        subprocess.run(command.split(), check=True, timeout=30)


def under_read_only_settings(machine: Machine, work: Callable[[Site], Any]) -> Any:
    def attempt() -> Any:
        read_only_settings()
        with site_of(machine) as site:
            return work(site)

    return in_child(attempt)


@pytest.mark.parametrize("mode", ["bridge", "routed"])
def test_read_only_settings_that_are_right_are_no_hindrance(machine: Machine, mode: str) -> None:
    pod = machine.pod()
    machine.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    result = under_read_only_settings(
        machine, lambda site: add(site, conf(mode=mode, ipam=DUAL), pod)[1]
    )

    assert all(machine.host.pings(address) for address in addresses_of(result))


def test_a_read_only_setting_that_is_wrong_is_named(machine: Machine) -> None:
    pod = Pod("c1", machine.pod().namespace)

    error = under_read_only_settings(machine, lambda site: error_of(site.call("ADD", pod, conf())))

    assert error["code"] == 102
    assert "ip_forward" in error["msg"]
    assert "Read-only file system" in error["msg"]
    assert machine.links() == []
    assert pod.addresses() == []


def test_a_running_agent_hears_of_a_loss_and_does_not_wait_for_its_round(
    machine: Machine,
) -> None:
    machine.settings = {"reconcile_interval_s": 3600}
    machine.start()
    pod = machine.pod()
    machine.add(pod, network=BRIDGED)
    machine.host.run("ip", "-4", "address", "flush", "dev", "cni0")

    until(lambda: pod.namespace.pings("10.9.0.1"), "the gateway is back")

    assert machine.problems() == []


def ruleset(machine: Machine) -> list[str]:
    return sorted(machine.host.run("nft", "list", "ruleset").splitlines())


@pytest.mark.parametrize(
    "command",
    [
        "nft flush ruleset",
        "nft delete table inet isthmus-cni",
        "nft delete table bridge isthmus-cni",
        "nft flush chain inet isthmus-cni postrouting",
    ],
)
def test_a_running_agent_hears_that_a_table_of_its_own_was_lost(
    machine: Machine, command: str
) -> None:
    machine.settings = {"reconcile_interval_s": 3600}
    machine.start()
    machine.add(machine.pod(), network=BRIDGED)
    before = ruleset(machine)
    machine.host.run(*command.split())

    until(lambda: ruleset(machine) == before, "the tables are whole again")

    assert machine.problems() == []


def test_a_lost_store_opens_no_port_and_no_guard(site: Site) -> None:
    network = conf(portIsolation=True, macspoofchk=True)
    pods = [add(site, network) for _ in range(2)]
    for record in site.records():
        site.wired.leases.release(record.who).result()

    report = site.wired.reconciler.round()

    (one, made), (_, other) = pods
    assert report.adopted == 2
    assert one.namespace.pings("10.9.0.1")
    assert not one.namespace.succeeds("ping", "-c1", "-W1", addresses_of(other)[0])
    assert call(site, "CHECK", one, network | {"prevResult": made}) == {}
    one.namespace.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:66")
    assert not one.namespace.succeeds("ping", "-c1", "-W1", "10.9.0.1")
