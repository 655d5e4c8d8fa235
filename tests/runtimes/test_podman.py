"""isthmus under podman 4: real containers."""

import pytest

from tests.runtimes.agent import Agent
from tests.runtimes.host import HOST, OUTSIDE, Host
from tests.runtimes.networks import WriteNetwork, conflist, isthmus
from tests.runtimes.podman import Podman

pytestmark = pytest.mark.runtime

SERVE = ("nc", "-ll", "-p", "80", "-e", "ip", "address", "show", "dev", "eth0")
ASK = ("socat", "-T3", "-", f"TCP:{HOST}:18080,connect-timeout=2")
# A container is running before its program listens.
ASK_PATIENTLY = (*ASK[:-1], f"{ASK[-1]},retry=50,interval=0.1")


def test_a_container_has_its_static_address_mac_and_port(
    host: Host, agent: Agent, podman: Podman, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus(), version="1.0.0"))

    podman.run(
        *("web", "shop", "--publish", "18080:80"),
        *("--ip", "10.66.0.9", "--mac-address", "02:aa:00:00:00:09"),
        command=SERVE,
    )
    answer = host.outside(*ASK_PATIENTLY).stdout
    beyond = podman("exec", "web", "ping", "-c1", "-W5", OUTSIDE)
    podman("rm", "--force", "--time", "0", "web")
    closed = host.outside(*ASK, check=False)

    assert "10.66.0.9/24" in answer
    assert "02:aa:00:00:00:09" in answer
    assert "1 packets received" in beyond
    assert closed.returncode != 0
    assert agent.attachments() == []
    assert agent.problems() == []


def test_containers_reach_each_other_and_see_their_own_addresses(
    agent: Agent, podman: Podman, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus(), version="1.0.0"))
    podman.run("one", "shop", command=("sleep", "1000"))
    podman.run("two", "shop", command=("sleep", "1000"))

    networks = podman.inspect("two")["NetworkSettings"]["Networks"]
    ping = podman("exec", "one", "ping", "-c1", "-W5", networks["shop"]["IPAddress"])
    ping6 = podman("exec", "one", "ping", "-c1", "-W5", networks["shop"]["GlobalIPv6Address"])

    assert "1 packets received" in ping
    assert "1 packets received" in ping6


def test_a_container_started_again_has_a_network_again(
    agent: Agent, podman: Podman, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus(), version="1.0.0"))
    podman.run("web", "shop", command=("sleep", "1000"))

    podman("restart", "--time", "0", "web")
    ping = podman("exec", "web", "ping", "-c1", "-W5", OUTSIDE)

    assert "1 packets received" in ping
    assert len(agent.attachments()) == 1
    assert agent.problems() == []


def test_a_container_on_two_networks_has_two_interfaces(
    agent: Agent, podman: Podman, write_network: WriteNetwork
) -> None:
    backend = isthmus(bridge="cni1", isDefaultGateway=False)
    backend["ipam"] = {"type": "isthmus", "ranges": [[{"subnet": "10.67.0.0/24"}]]}
    write_network(conflist(isthmus(), version="1.0.0"))
    write_network(conflist(backend, version="1.0.0") | {"name": "backend"})

    podman.run("web", "shop,backend", command=("sleep", "1000"))
    shown = podman("exec", "web", "ip", "-4", "address")

    assert "10.66.0.2/24" in shown
    assert "10.67.0.2/24" in shown
    assert len(agent.attachments()) == 2


def test_a_container_removed_with_the_agent_away_is_forgotten_when_it_is_back(
    agent: Agent, podman: Podman, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus(), version="1.0.0"))
    podman.run("web", "shop", command=("sleep", "1000"))
    agent.kill()

    podman("rm", "--force", "--time", "0", "web")
    agent.start()

    assert agent.attachments() == []
    assert agent.problems() == []
