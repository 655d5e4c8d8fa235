"""isthmus under the reference runtime: every version and verb, chains, delegation both ways."""

import json
from typing import Any

import pytest

from tests.runtimes.agent import Agent
from tests.runtimes.cnitool import Cnitool
from tests.runtimes.host import HOST, OUTSIDE, Host
from tests.runtimes.networks import (
    IPV4,
    IPV6,
    WITH_CHECK,
    WITHOUT_CHECK,
    WriteNetwork,
    conflist,
    isthmus,
)

pytestmark = pytest.mark.runtime

HOST_LOCAL: dict[str, Any] = {"type": "host-local", "ranges": [[IPV4], [IPV6]]}
STATIC: dict[str, Any] = {
    "type": "static",
    "addresses": [
        {"address": "10.66.0.77/24", "gateway": "10.66.0.1"},
        {"address": "fd66::77/64", "gateway": "fd66::1"},
    ],
}
OUR_IPAM: dict[str, Any] = {
    "type": "isthmus-ipam",
    "ranges": [[IPV4], [IPV6]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}


# On a point-to-point link the other end is the only neighbour there is.
GIVEN = {
    "bridge": ["10.66.0.2/24", "fd66::2/64"],
    "routed": ["10.66.0.2/32", "fd66::2/128"],
}


def pod(host: Host, name: str = "pod") -> str:
    host.run("ip", "netns", "add", name)
    return name


def inside(host: Host, netns: str, *argv: str, check: bool = True) -> str:
    return host.run("ip", "netns", "exec", netns, *argv, check=check).stdout


def reaches(host: Host, netns: str, *addresses: str) -> bool:
    return all("1 received" in inside(host, netns, "ping", "-c1", "-W5", ip) for ip in addresses)


def addresses_of(result: dict[str, Any]) -> list[str]:
    """Return the addresses of a result of any version."""
    if "ips" in result:
        return [ip["address"] for ip in result["ips"]]
    return [result[family]["ip"] for family in ("ip4", "ip6") if family in result]


def links(host: Host) -> list[str]:
    lines = host.run("ip", "-br", "link").stdout.splitlines()
    return sorted(line.split()[0].partition("@")[0] for line in lines)


@pytest.mark.parametrize("mode", ["bridge", "routed"])
@pytest.mark.parametrize("version", WITHOUT_CHECK + WITH_CHECK)
def test_every_version_attaches_and_detaches(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork, version: str, mode: str
) -> None:
    write_network(conflist(isthmus(mode=mode), version=version))
    pod(host)

    result = cnitool.add("shop", "pod")
    reached = reaches(host, "pod", HOST, OUTSIDE, "2001:db8::1", "2001:db8::2")
    checked = cnitool("check", "shop", "pod")
    held = [attachment["addresses"] for attachment in agent.attachments()]
    cnitool.succeed("del", "shop", "pod")
    cnitool.succeed("del", "shop", "pod")

    assert result["cniVersion"] == version
    assert addresses_of(result) == GIVEN[mode]
    assert reached
    assert (checked.returncode == 0) is (version in WITH_CHECK), checked.stderr
    assert [len(addresses) for addresses in held] == [2]
    assert agent.attachments() == []
    assert agent.problems() == []
    assert set(links(host)) <= {"cni0", "lo", "uplink"}


@pytest.mark.parametrize("version", WITH_CHECK)
def test_check_tells_a_sound_attachment_from_a_damaged_one(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork, version: str
) -> None:
    write_network(conflist(isthmus(), version=version))
    pod(host)
    cnitool.add("shop", "pod")

    cnitool.succeed("check", "shop", "pod")
    inside(host, "pod", "ip", "address", "del", "10.66.0.2/24", "dev", "eth0")
    damaged = cnitool("check", "shop", "pod")

    assert damaged.returncode != 0
    assert "10.66.0.2" in damaged.stderr


def test_status_is_silent_while_add_would_be_served_and_an_error_otherwise(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus()))
    pod(host)

    served = cnitool("status", "shop", "pod")
    agent.stop()
    away = cnitool("status", "shop", "pod")

    assert (served.returncode, served.stdout) == (0, "")
    assert away.returncode != 0


def test_gc_leaves_nothing_of_a_network_that_nobody_uses(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus()))
    for name in ("one", "two"):
        cnitool.add("shop", pod(host, name))

    cnitool.succeed("gc", "shop", "one")

    assert agent.attachments() == []
    assert agent.problems() == []


def test_one_container_has_interfaces_on_two_networks(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    other = isthmus(bridge="cni1", isDefaultGateway=False)
    other["ipam"] = {"type": "isthmus", "ranges": [[{"subnet": "10.67.0.0/24"}]]}
    write_network(conflist(isthmus()))
    write_network(conflist(other) | {"name": "backend"})
    pod(host)

    cnitool.add("shop", "pod")
    cnitool.add("backend", "pod", {"CNI_IFNAME": "net1"})
    reached = reaches(host, "pod", "10.66.0.1", "10.67.0.1", OUTSIDE)
    cnitool.succeed("del", "backend", "pod", {"CNI_IFNAME": "net1"})

    assert reached
    assert [attachment["ifname"] for attachment in agent.attachments()] == ["eth0"]


def test_address_and_mac_are_those_of_the_arguments(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus()))
    pod(host)

    result = cnitool.add("shop", "pod", {"CNI_ARGS": "IP=10.66.0.60;MAC=02:00:00:00:00:60"})
    taken = cnitool("add", "shop", pod(host, "other"), {"CNI_ARGS": "IP=10.66.0.60"})

    assert addresses_of(result) == ["10.66.0.60/24", "fd66::2/64"]
    assert result["interfaces"][-1]["mac"] == "02:00:00:00:00:60"
    assert taken.returncode != 0
    assert "10.66.0.60" in taken.stderr


def test_address_and_mac_are_those_of_the_capabilities(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus()))
    pod(host)
    wanted = {"ips": ["10.66.0.50", "fd66::50/64"], "mac": "02:00:00:00:00:50"}

    result = cnitool.add("shop", "pod", {"CAP_ARGS": json.dumps(wanted)})

    assert addresses_of(result) == ["10.66.0.50/24", "fd66::50/64"]
    assert result["interfaces"][-1]["mac"] == "02:00:00:00:00:50"
    assert "02:00:00:00:00:50" in inside(host, "pod", "ip", "link", "show", "eth0")


def test_a_mapped_port_is_reached_from_outside_and_closed_after_del(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus()))
    pod(host)
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    asked = {"CAP_ARGS": json.dumps({"portMappings": [mapping]})}
    client = ("socat", "-T3", "-", f"TCP:{HOST}:8080,connect-timeout=2")

    cnitool.add("shop", "pod", asked)
    serve(host, "pod")
    open_answer = host.outside(*client).stdout
    cnitool.succeed("del", "shop", "pod", asked)
    closed = host.outside(*client, check=False)

    assert open_answer == "hello\n"
    assert closed.returncode != 0


def serve(host: Host, netns: str) -> None:
    """Answer `hello` on port 80 of a namespace, and wait until it is listened on."""
    server = ("socat", "TCP6-LISTEN:80,fork,reuseaddr", "SYSTEM:echo hello")
    service = host.start(f"server-{netns}", "ip", "netns", "exec", netns, *server)
    service.wait_until(lambda: ":80 " in inside(host, netns, "ss", "-Hltn"))


@pytest.mark.parametrize(
    ("ipam", "given"),
    [
        pytest.param(HOST_LOCAL, ["10.66.0.2", "fd66::2"], id="host-local"),
        pytest.param(STATIC, ["10.66.0.77", "fd66::77"], id="static"),
    ],
)
@pytest.mark.parametrize("mode", ["bridge", "routed"])
def test_addresses_come_from_another_ipam_plugin(
    host: Host,
    agent: Agent,
    cnitool: Cnitool,
    write_network: WriteNetwork,
    ipam: dict[str, Any],
    given: list[str],
    mode: str,
) -> None:
    write_network(conflist(isthmus(ipam=ipam, mode=mode)))
    pod(host)

    result = cnitool.add("shop", "pod")
    reached = reaches(host, "pod", OUTSIDE)
    cnitool.succeed("check", "shop", "pod")
    cnitool.succeed("del", "shop", "pod")
    reserved = host.run("find", "/var/lib/cni/networks", "-name", "10.*", check=False).stdout

    assert [address.partition("/")[0] for address in addresses_of(result)] == given
    assert reached
    assert reserved == ""
    assert agent.attachments() == []


def test_a_namespace_made_anew_without_a_del_gets_its_addresses_from_host_local_again(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus(ipam=HOST_LOCAL)))
    pod(host)
    cnitool.add("shop", "pod")
    host.run("ip", "netns", "del", "pod")
    pod(host)

    result = cnitool.add("shop", "pod")
    reserved = host.run("find", "/var/lib/cni/networks", "-name", "10.*").stdout.split()

    assert len(addresses_of(result)) == 2
    assert reaches(host, "pod", OUTSIDE)
    assert len(reserved) == len(agent.attachments()) == 1


@pytest.mark.parametrize(
    "plugin",
    [
        {"type": "bridge", "bridge": "ref0", "isGateway": True},
        {"type": "ptp"},
        {"type": "macvlan", "master": "uplink"},
    ],
    ids=lambda plugin: plugin["type"],
)
@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.1.0"])
def test_reference_plugins_take_addresses_from_isthmus_ipam(
    host: Host,
    agent: Agent,
    cnitool: Cnitool,
    write_network: WriteNetwork,
    plugin: dict[str, Any],
    version: str,
) -> None:
    write_network(conflist(plugin | {"ipam": OUR_IPAM}, version=version))
    pod(host)

    result = cnitool.add("shop", "pod")
    held = [attachment["addresses"] for attachment in agent.attachments()]
    if version != "0.2.0":
        cnitool.succeed("check", "shop", "pod")
    cnitool.succeed("del", "shop", "pod")

    assert addresses_of(result) == ["10.66.0.2/24", "fd66::2/64"]
    assert held == [["10.66.0.2/24", "fd66::2/64"]]
    assert agent.attachments() == []
    assert agent.problems() == []


@pytest.mark.parametrize("mode", ["bridge", "routed"])
def test_reference_plugins_chained_after_isthmus_work_on_its_interface(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork, mode: str
) -> None:
    ours = isthmus(mode=mode, capabilities={})
    write_network(
        conflist(
            ours,
            {"type": "tuning", "mac": "02:00:00:00:00:42", "mtu": 1400},
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
            {"type": "firewall", "backend": "iptables"},
        )
    )
    pod(host)
    limits = {"ingressRate": 8_000_000, "ingressBurst": 8_000_000}
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    asked = {"CAP_ARGS": json.dumps({"portMappings": [mapping], "bandwidth": limits})}

    result = cnitool.add("shop", "pod", asked)
    serve(host, "pod")
    answer = host.outside("socat", "-T3", "-", f"TCP:{HOST}:8080,connect-timeout=2").stdout
    cnitool.succeed("check", "shop", "pod", asked)
    cnitool.succeed("del", "shop", "pod", asked)

    assert result["interfaces"][-1]["mac"] == "02:00:00:00:00:42"
    assert answer == "hello\n"
    assert agent.attachments() == []
    assert agent.problems() == []


def test_a_chain_that_fails_after_isthmus_leaves_nothing_after_its_del(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus(), {"type": "tuning", "sysctl": {"net.no.such.key": "1"}}))
    pod(host)

    failed = cnitool("add", "shop", "pod")
    cnitool.succeed("del", "shop", "pod")

    assert failed.returncode != 0
    assert agent.attachments() == []
    assert "eth0" not in inside(host, "pod", "ip", "-br", "link")


def test_del_succeeds_with_the_agent_away_and_is_done_when_it_is_back(
    host: Host, agent: Agent, cnitool: Cnitool, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus()))
    pod(host)
    cnitool.add("shop", "pod")
    agent.kill()

    cnitool.succeed("del", "shop", "pod")
    agent.start()

    assert agent.attachments() == []
    assert "eth0" not in inside(host, "pod", "ip", "-br", "link")
