"""An outage so long that a node runs out of addresses, over a real etcd and ipamd.

What takes an hour takes half a minute here: the blocks are small, addresses rest for a second, and
a node is silent for too long after one.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import ipamds
from tests.kernel.agents import Machine, Pod, addresses, until
from tests.kernel.etcd import Etcd, running
from tests.kernel.nodes import error_of
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

NETWORK = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "isthmus",
    "ipam": {"type": "isthmus"},
}
ROUNDS = 40


@pytest.fixture
def etcd(machine: Machine, tmp_path: Path) -> Iterator[Etcd]:
    """All of the cluster's side is in the machine's namespace."""
    with inside(machine.host), running(tmp_path / "etcd") as cluster:
        yield cluster


def test_an_outage_until_no_address_is_left_ends_without_a_restart(
    machine: Machine, etcd: Etcd, tmp_path: Path
) -> None:
    with ipamds.site(tmp_path, etcd) as place:
        place.begin(("four", "10.30.0.0/24", "--block-length", "29"))
        place.must("ipam", "settings", "--silence-s", "1", "--quarantine-s", "1")
        join(machine, place)
        machine.start()
        until(lambda: count(machine) == 1, "it has a block")
        pods = attached(machine, 2)
        etcd.kill(0)
        place.replicas[0].stop()
        started = machine.process

        pods += attached(machine, 3)
        for _ in range(ROUNDS):
            pods.append(pods.pop(0))
            assert machine.delete(pods[-1]).status == 0
            until(lambda: machine.add(pods[-1]).status == 0, "its address has rested")
        until(lambda: bool(cluster(machine)["trouble"]), "ipamd is missed")
        refused = error_of(machine.add(machine.pod()))
        status = json.loads(machine.call("STATUS").stdout)

        assert refused["code"] == 100
        assert "no free address in 10.30.0." in refused["msg"]
        assert f"(blocks of pool four): {place.replicas[0].endpoint}" in refused["msg"]
        assert refused["msg"].endswith(" s)")
        assert status["code"] == 50
        assert "no free address in 10.30.0." in status["msg"]

        etcd.start()
        place.replicas[0].start()
        late = machine.pod()
        until(lambda: machine.add(late).status == 0, "there is another block", timeout=60)
        until(lambda: cluster(machine)["mirror_waiting"] == 0, "the mirror has caught up")

        assert machine.process is started
        assert count(machine) == 2
        assert machine.problems() == []
        assert (
            place.must("ipam", "check", "--socket", str(machine.launcher.socket))
            == "No problem found.\n"
        )


def join(machine: Machine, place: ipamds.Site) -> None:
    files = place.signer.node("n1")
    machine.network = NETWORK
    machine.settings = {
        "status_counts_addresses": True,
        "ipamd": {
            "endpoints": list(place.endpoints),
            "ca": str(files.ca),
            "certificate": str(files.certificate),
            "key": str(files.key),
            "node": "n1",
            "addresses": ["192.0.2.1"],
        },
    }


def cluster(machine: Machine) -> dict[str, Any]:
    return dict(machine.ask("status")["status"]["cluster"])


def count(machine: Machine) -> int:
    return len(cluster(machine)["blocks"])


def attached(machine: Machine, number: int) -> list[Pod]:
    pods = [machine.pod() for _ in range(number)]
    for pod in pods:
        addresses(machine.add(pod))
    return pods
