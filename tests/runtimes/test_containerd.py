"""isthmus under containerd 2, called through CRI as a kubelet does."""

import pytest

from tests.runtimes.agent import Agent
from tests.runtimes.containerd import Containerd, start_containerd
from tests.runtimes.host import HOST, Host
from tests.runtimes.networks import WriteNetwork, conflist, isthmus
from tests.runtimes.recorder import Recorder, record

pytestmark = pytest.mark.runtime

PORTABLE = {"cniVersion": "1.0.0", "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}
ASK = ("socat", "-T3", "-", f"TCP:{HOST}:18080,connect-timeout=2")


@pytest.fixture
def calls(host: Host, agent: Agent) -> Recorder:
    return record(host, "isthmus")


@pytest.fixture
def node(host: Host, calls: Recorder, write_network: WriteNetwork) -> Containerd:
    """A containerd whose only network is ours, as an operator would configure it."""
    write_network(conflist(isthmus()) | PORTABLE)
    return start_containerd(host)


def test_a_sandbox_is_attached_and_detached(
    agent: Agent, calls: Recorder, node: Containerd
) -> None:
    ready = node.network_ready()
    sandbox = node.run_sandbox("web")
    network = node.status(sandbox)["network"]
    held = agent.attachments()
    node.remove_sandbox(sandbox)

    assert ready["status"] is True
    assert network["ip"] == "10.66.0.2"
    assert [extra["ip"] for extra in network["additional_ips"]] == ["fd66::2"]
    assert [attachment["container_id"] for attachment in held] == [sandbox]
    assert set(calls.verbs()) == {"STATUS", "ADD", "DEL"}
    assert agent.attachments() == []
    assert agent.problems() == []


def test_capabilities_in_the_case_of_go_are_understood(
    host: Host, agent: Agent, calls: Recorder, node: Containerd
) -> None:
    mapping = {"protocol": 0, "container_port": 80, "host_port": 18080}
    limits = {
        "kubernetes.io/ingress-bandwidth": "8M",
        "kubernetes.io/egress-bandwidth": "8M",
    }
    dns = {"servers": ["192.0.2.53"], "searches": ["example.org"], "options": ["ndots:2"]}

    sandbox = node.run_sandbox("web", port_mappings=[mapping], annotations=limits, dns_config=dns)
    sent = next(call for call in calls.calls() if call.verb == "ADD").config["runtimeConfig"]
    serve(host, node, sandbox)
    answer = host.outside(*ASK).stdout
    node.remove_sandbox(sandbox)
    closed = host.outside(*ASK, check=False)

    assert sent["portMappings"][0]["HostPort"] == 18080
    assert sent["bandwidth"]["IngressRate"] == 8_000_000
    assert sent["dns"]["Servers"] == ["192.0.2.53"]
    assert answer == "hello\n"
    assert closed.returncode != 0


def serve(host: Host, node: Containerd, sandbox: str) -> None:
    """Answer `hello` on port 80 of a sandbox, and wait until it is listened on."""
    netns = node.netns(sandbox)
    enter = ("nsenter", f"--net={netns}")
    server = ("socat", "TCP6-LISTEN:80,fork,reuseaddr", "SYSTEM:echo hello")
    service = host.start("server", *enter, *server)
    service.wait_until(lambda: ":80 " in host.run(*enter, "ss", "-Hltn").stdout)


def test_a_node_is_not_ready_while_the_agent_is_away(agent: Agent, node: Containerd) -> None:
    agent.stop()
    away = node.network_ready()
    agent.start()
    back = node.network_ready()

    assert away.get("status", False) is False
    assert "isthmus" in away["message"]
    assert back["status"] is True


def test_a_sandbox_removed_with_the_agent_away_is_forgotten_when_it_is_back(
    agent: Agent, node: Containerd
) -> None:
    sandbox = node.run_sandbox("web")
    agent.kill()

    node.remove_sandbox(sandbox)
    agent.start()

    assert node.sandboxes() == []
    assert agent.attachments() == []
    assert agent.problems() == []


def test_an_add_that_outlives_a_killed_runtime_is_freed_by_reconciliation(
    host: Host, agent: Agent, write_network: WriteNetwork
) -> None:
    write_network(conflist(isthmus(), {"type": "tuning"}) | PORTABLE)
    ours, next_in_chain = record(host, "isthmus"), record(host, "tuning")
    next_in_chain.hold("ADD")
    node = start_containerd(host)

    node.begin_sandbox("lost")
    held = next_in_chain.wait_for_held("ADD", node.service)
    attached = len(agent.attachments())
    node.kill()
    next_in_chain.release("ADD", held)
    node.start()
    for sandbox in node.sandboxes():
        node.remove_sandbox(sandbox)
    agent.wait_until_empty()

    assert attached == 1
    assert "DEL" not in ours.verbs()
    assert agent.problems() == []


def test_an_add_that_a_killed_runtime_cannot_hear_of_is_undone(
    host: Host, agent: Agent, calls: Recorder, node: Containerd
) -> None:
    calls.hold("ADD")

    node.begin_sandbox("lost")
    held = calls.wait_for_held("ADD", node.service)
    node.kill()
    calls.release("ADD", held)
    agent.wait_until_served("ADD")
    agent.service.wait_until(lambda: "isth" not in host.run("ip", "-br", "link").stdout)
    agent.wait_until_empty()

    assert agent.problems() == []


def test_sandboxes_outlive_a_killed_runtime_and_a_killed_agent(
    host: Host, agent: Agent, node: Containerd
) -> None:
    sandbox = node.run_sandbox("web")
    netns = node.netns(sandbox)

    node.kill()
    agent.kill()
    while_away = host.run("nsenter", f"--net={netns}", "ping", "-c1", "-W5", "10.66.0.1").stdout
    agent.start()
    node.start()
    held = [attachment["container_id"] for attachment in agent.attachments()]
    node.remove_sandbox(sandbox)

    assert "1 received" in while_away
    assert held == [sandbox]
    assert agent.attachments() == []
