"""A node that changes from ptp and host-local to blocks, under the containers that run on it."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.agents import ROOT, Machine, Pod, addresses, bare, until
from tests.kernel.memory_ipamd import Ipamd
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

PEERS = ROOT / "build" / "peers" / "bin"
FOUR, SIX = "10.31.0.0/16", "fd31::/64"
OLD4, OLD6 = "10.31.7.0/28", "fd31::70/124"
NETWORK: Mapping[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "isthmus",
    "mode": "routed",
    "ipam": {
        "type": "isthmus",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}


class Reference:
    """The former network of a machine, called as its runtime calls it."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.directory = directory
        self.files = directory / "old"

    def call(self, verb: str, pod: Pod) -> dict[str, Any]:
        conf = {
            "cniVersion": "1.0.0",
            "name": "old",
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.directory),
                "ranges": [[{"subnet": OLD4}], [{"subnet": OLD6}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }
        environment = self.machine.environment(verb, pod, CNI_PATH=str(PEERS))
        with inside(self.machine.host):
            done = subprocess.run(
                [PEERS / "ptp"],
                env=environment,
                input=json.dumps(conf).encode(),
                capture_output=True,
                check=False,
                timeout=60,
            )
        assert done.returncode == 0, done
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def add(self, pod: Pod) -> list[str]:
        return [bare(one["address"]) for one in self.call("ADD", pod)["ips"]]

    def given(self) -> set[str]:
        """The addresses that stand in its directory, whoever put them there."""
        return {one.name for one in self.files.iterdir() if one.name[0] in "1f"}


@pytest.fixture
def ipamd(machine: Machine, tmp_path: Path) -> Iterator[Ipamd]:
    """With pools that have the former network's addresses, and a machine that knows of both."""
    ipamd = Ipamd(machine, tmp_path / "ipamd")
    try:
        ipamd.do("pool", "four", FOUR, 28)
        ipamd.do("pool", "six", SIX, 124)
        machine.network = NETWORK
        machine.settings = {
            "host_local": str(tmp_path / "networks"),
            "ipamd": ipamd.settings(),
        }
        yield ipamd
    finally:
        ipamd.kill()


@pytest.fixture
def reference(machine: Machine, tmp_path: Path) -> Reference:
    return Reference(machine, tmp_path / "networks")


@pytest.fixture
def moved(machine: Machine, ipamd: Ipamd, reference: Reference) -> list[tuple[Pod, list[str]]]:
    """Containers of the former network, with their addresses, and an agent started after them."""
    pods = [machine.pod() for _ in range(3)]
    old = [(pod, reference.add(pod)) for pod in pods]
    for block in (OLD4, OLD6):
        ipamd.do("pin", "n1", block)
    machine.start()
    until(lambda: blocks(machine) == {OLD4, OLD6}, "it has the pinned blocks")
    return old


def blocks(machine: Machine) -> set[str]:
    found = machine.ask("status")["status"]["cluster"]["blocks"]
    return {block["cidr"] for block in found if block["state"] == "active"}


def new(machine: Machine) -> tuple[Pod, tuple[str, ...]]:
    pod = machine.pod()
    return pod, addresses(machine.add(pod))


def held(machine: Machine, pod: Pod) -> bool:
    return pod.container_id in machine.records()


def test_running_containers_keep_their_addresses_and_nobody_else_gets_them(
    machine: Machine, moved: list[tuple[Pod, list[str]]]
) -> None:
    old = {address for _, given in moved for address in given}
    fresh = [new(machine) for _ in range(9)]
    given = [address for _, both in fresh for address in both]

    assert len(given) == len(set(given)) == 18
    assert old.isdisjoint(given)
    assert not {"10.31.7.1", "fd31::71"} & set(given)  # its gateways, on the host
    assert {pod.container_id for pod, _ in moved} <= machine.records().keys()
    (first, its), (other, _) = fresh[0], moved[0]
    for address in moved[0][1]:
        assert first.namespace.pings(address)
        assert machine.host.pings(address)
    assert all(other.namespace.pings(address) for address in its)
    assert machine.problems() == []


@pytest.mark.parametrize("by", ["host-local", "isthmus"])
def test_whoever_is_told_of_the_end_the_address_is_free_then(
    machine: Machine, moved: list[tuple[Pod, list[str]]], reference: Reference, by: str
) -> None:
    pod, given = moved[0]
    if by == "isthmus":
        assert machine.delete(pod).status == 0
        freed = set(given) & reference.given()
        still = held(machine, pod)
        machine.remove(pod)
    else:
        reference.call("DEL", pod)
        freed, still = set(given) & reference.given(), True
    until(lambda: not held(machine, pod), "its addresses are held no more")

    assert freed == set()
    assert still  # by isthmus: not before it is unused
    assert machine.delete(pod).status == 0
    assert machine.problems() == []


def test_none_is_given_twice_by_two_plugins_at_once(
    machine: Machine, moved: list[tuple[Pod, list[str]]], reference: Reference
) -> None:
    pods = [machine.pod() for _ in range(8)]

    def attach(at: int) -> list[str]:
        call: Callable[[Pod], Any] = reference.add if at % 2 else machine.add
        done = call(pods[at])
        return list(done if at % 2 else addresses(done))

    with ThreadPoolExecutor(4) as threads:
        both = [address for each in threads.map(attach, range(8)) for address in each]

    assert len(both) == len(set(both)) == 16
    assert {address for _, given in moved for address in given}.isdisjoint(both)
    until(lambda: all(held(machine, pod) for pod in pods), "all of them are held")
    assert machine.problems() == []


def test_host_local_may_be_told_of_the_end_of_ours(
    machine: Machine, moved: list[tuple[Pod, list[str]]], reference: Reference
) -> None:
    pod, given = new(machine)
    before = set(given) <= reference.given()
    reference.call("DEL", pod)
    until(lambda: not held(machine, pod), "what it deleted is held no more")
    # A round that came in between had put our file back.
    until(lambda: reference.given().isdisjoint(given), "it stands in its directory no more")

    assert before
    assert machine.leftovers() == []


def test_our_files_go_with_the_last_container_of_the_former_network(
    machine: Machine, moved: list[tuple[Pod, list[str]]], reference: Reference
) -> None:
    _, given = new(machine)
    before = set(given) <= reference.given()
    for pod, _ in moved:
        reference.call("DEL", pod)
    until(lambda: reference.given() == set(), "its directory is empty")
    until(lambda: len(machine.records()) == 1, "ours alone is held")

    assert before
    assert machine.problems() == []


def test_an_agent_that_was_killed_goes_on_so(
    machine: Machine, moved: list[tuple[Pod, list[str]]], reference: Reference
) -> None:
    pod, _ = new(machine)
    machine.kill()
    late = machine.pod()
    given = set(reference.add(late))
    machine.start()
    known = machine.records().keys()

    assert {pod.container_id, late.container_id, moved[0][0].container_id} <= known
    fresh = {address for _ in range(5) for address in new(machine)[1]}
    assert given.isdisjoint(fresh)


def test_addresses_in_a_block_of_nobodys_pin_are_told_of_and_left_running(
    machine: Machine, ipamd: Ipamd, reference: Reference
) -> None:
    pod = machine.pod()
    old = reference.add(pod)
    machine.start()
    until(lambda: len(blocks(machine)) == 2, "it has blocks of its own")
    given = new(machine)[1]

    problems = machine.ask("status")["status"]["cluster"]

    assert machine.host.pings(old[0])
    assert not {OLD4, OLD6} & blocks(machine)
    assert set(given).isdisjoint(old)
    assert "lost" not in {block["state"] for block in problems["blocks"]}
