"""The harness itself, proven with the reference plugins: podman."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.runtimes.host import HOST, Host
from tests.runtimes.podman import Podman

pytestmark = pytest.mark.runtime

NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "reference",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "ref0",
            "isGateway": True,
            "capabilities": {"mac": True, "ips": True},
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.88.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
SERVE = ("nc", "-ll", "-p", "80", "-e", "ip", "address", "show", "dev", "eth0")


def test_podman_runs_a_container_with_address_mac_and_port(
    host: Host, podman: Podman, write_network: Callable[[dict[str, Any]], None]
) -> None:
    write_network(NETWORK)

    podman.run(
        *("web", "reference", "--publish", "18080:80"),
        *("--ip", "10.88.0.9", "--mac-address", "02:aa:00:00:00:09"),
        command=SERVE,
    )
    # A container is running before its program listens.
    server = f"TCP:{HOST}:18080,connect-timeout=3,retry=50,interval=0.1"
    answer = host.outside("socat", "-T3", "-", server).stdout
    podman("rm", "--force", "--time", "0", "web")

    assert "10.88.0.9/24" in answer
    assert "02:aa:00:00:00:09" in answer
    assert host.run("ls", "/run/netns").stdout.split() == ["outside"]
