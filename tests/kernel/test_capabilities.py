"""The agent with no more than its pod has: named capabilities, and /proc/sys read-only."""

import json

import pytest

from cli.manifest_agent import CAPABILITIES
from tests.kernel.agents import NETWORK, Machine, until

pytestmark = pytest.mark.kernel

# As runc mounts it for a container that is not privileged.
READ_ONLY = """
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 99
exec "$@"
"""
EVERYTHING = {
    **NETWORK,
    "mode": "routed",
    "ipam": {
        "type": "isthmus",
        "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/112"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
    "capabilities": {"portMappings": True, "bandwidth": True},
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8000000, "ingressBurst": 8000000},
    },
}


def confine(machine: Machine, *capabilities: str) -> None:
    """Let the agent have *capabilities* alone."""
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    machine.prefix = (
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "confined"),
        *("setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={bounds}"),
    )


def test_pods_come_and_go_with_the_capabilities_of_the_manifest(machine: Machine) -> None:
    confine(machine, *CAPABILITIES)
    machine.start()
    pod = machine.pod()

    added = machine.add(pod, network=EVERYTHING)
    forwarding = machine.host.run("cat", "/proc/sys/net/ipv4/ip_forward").strip()
    deleted = machine.delete(pod, network=EVERYTHING)

    assert added.status == 0, added.stdout
    assert len(json.loads(added.stdout)["ips"]) == 2
    assert forwarding == "1"
    assert deleted.status == 0, deleted.stdout
    assert machine.leftovers() == []


# Not seen here: NET_RAW tells neighbours of an address that another pod had, and DAC_OVERRIDE is
# for hosts where the runtime's directories belong to somebody else.
@pytest.mark.parametrize("capability", sorted({*CAPABILITIES} - {"NET_RAW", "DAC_OVERRIDE"}))
def test_none_of_them_can_be_left_out(machine: Machine, capability: str) -> None:
    confine(machine, *(name for name in CAPABILITIES if name != capability))
    machine.start(wait=False)
    until(lambda: machine.has_ended or machine.config.socket.exists(), "it serves or ends")
    pod = machine.pod()

    added = machine.add(pod, network=EVERYTHING)

    assert added.status != 0 or machine.has_ended
