"""The harness itself, proven with the reference plugins: containerd."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.runtimes.containerd import start_containerd
from tests.runtimes.host import Host
from tests.runtimes.recorder import record

pytestmark = pytest.mark.runtime

NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "cniVersions": ["1.0.0", "1.1.0"],
    "name": "reference",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "ref0",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
MAPPING = {"protocol": 0, "container_port": 80, "host_port": 18080}
WriteNetwork = Callable[[dict[str, Any]], None]


def test_containerd_asks_for_status_and_attaches_and_detaches_a_sandbox(
    host: Host, write_network: WriteNetwork
) -> None:
    write_network(NETWORK)
    calls = record(host, "bridge")
    containerd = start_containerd(host)

    ready = containerd.network_ready()
    sandbox = containerd.run_sandbox("web", port_mappings=[MAPPING])
    address = containerd.status(sandbox)["network"]["ip"]
    ping = host.run(
        "nsenter", f"--net={containerd.netns(sandbox)}", "ping", "-c1", "-W5", "10.88.0.1"
    )
    containerd.remove_sandbox(sandbox)

    assert ready["status"] is True
    assert address == "10.88.0.2"
    assert "1 received" in ping.stdout
    assert {"STATUS", "ADD", "DEL"} == set(calls.verbs())
    assert containerd.sandboxes() == []


def test_containerd_killed_during_an_add_never_sends_its_del(
    host: Host, write_network: WriteNetwork
) -> None:
    write_network(NETWORK)
    calls = record(host, "bridge")
    calls.hold("ADD")
    containerd = start_containerd(host)

    containerd.begin_sandbox("lost")
    held = calls.wait_for_held("ADD", containerd.service)
    containerd.kill()
    calls.release("ADD", held)
    containerd.start()
    for sandbox in containerd.sandboxes():
        containerd.remove_sandbox(sandbox)

    assert "DEL" not in calls.verbs()
    assert host.run("ls", "/var/lib/cni/networks/reference").stdout.split()[0] == "10.88.0.2"
