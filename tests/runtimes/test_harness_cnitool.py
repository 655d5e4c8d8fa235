"""The harness itself, proven with the reference plugins: cnitool."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.runtimes.cnitool import Cnitool
from tests.runtimes.host import Host
from tests.runtimes.recorder import record

pytestmark = pytest.mark.runtime

NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "reference",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "ref0",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]]},
        }
    ],
}


def test_cnitool_attaches_checks_and_detaches_a_namespace(
    host: Host, cnitool: Cnitool, write_network: Callable[[dict[str, Any]], None]
) -> None:
    write_network(NETWORK)
    calls = record(host, "bridge")
    host.run("ip", "netns", "add", "pod")

    result = cnitool.add("reference", "pod")
    cnitool.succeed("check", "reference", "pod")
    ping = host.run("ip", "netns", "exec", "pod", "ping", "-c1", "-W5", "10.88.0.1")
    cnitool.succeed("del", "reference", "pod")

    assert result["ips"][0]["address"] == "10.88.0.2/24"
    assert "1 received" in ping.stdout
    assert calls.verbs() == ["ADD", "CHECK", "DEL"]


def test_hosts_reach_only_what_is_outside_of_them(host: Host) -> None:
    host.run("ping", "-c1", "-W5", "192.0.2.2")
    host.run("ping", "-c1", "-W5", "2001:db8::2")

    links = host.run("ip", "-br", "link").stdout

    assert sorted(line.split("@")[0].split()[0] for line in links.splitlines()) == ["lo", "uplink"]
