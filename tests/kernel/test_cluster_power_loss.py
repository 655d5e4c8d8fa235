"""After the loss of power at any moment, node and ipamd know what they said and acted upon.

Agent and ipamd are recorded while blocks come, go and are lost; see tests/kernel/power.py.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from ipam.calls import Claim, Register, Registered, Release
from ipam.holdings import Holdings, OwnState
from ipam.memory import DaemonMemory, Remembered
from ipam.sqlite import open_store
from net.address import IPNetwork
from tests.kernel.agents import Machine, made_machine, until
from tests.kernel.disk import Kind, Op, is_over, read, strace, tracer_of
from tests.kernel.memory_ipamd import Ipamd
from tests.kernel.power import Recording, find, lose_power

pytestmark = pytest.mark.kernel

MOMENTS = 200
NETWORK: Mapping[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "isthmus",
    "ipam": {"type": "isthmus"},
}
NOBODY = Holdings(uid="")


@dataclass(slots=True)
class Cluster:
    """A node and its ipamd; *lost*: from when to when the node had said that a block is lost."""

    recording: Recording
    ipamd: Ipamd
    journal: list[tuple[float, str, Any]] = field(default_factory=list)
    lost: list[tuple[IPNetwork, float, float]] = field(default_factory=list)

    def until(self, count: int, state: OwnState) -> None:
        until(lambda: len(self.blocks(state)) == count, f"{count} blocks are {state}")

    def blocks(self, state: OwnState) -> list[str]:
        told = self.recording.machine.ask("status")["status"]["cluster"]["blocks"]
        return [block["cidr"] for block in told if block["state"] == state]

    def before(self, moment: float, what: str) -> list[Any]:
        return [message for at, kind, message in self.journal if at < moment and kind == what]

    def on_the_node(self, directory: Path, moment: float) -> Iterator[str]:
        """What its store should have by *moment*, and has not."""
        yield from find(directory).wrong(self.recording.calls, moment)
        store = open_store(directory / "isthmus.db")
        try:
            found = store.load()
        finally:
            store.close()
        own = found.holdings or NOBODY
        for asked in self.before(moment, "asked"):
            if asked.node == "n1":
                yield from forgotten(asked, own)
        held = [address.ip for record in found.records for address in record.addresses]
        for ip in held:
            if not any(ip in block.cidr for block in own.blocks):
                yield f"{ip} is of no block: {own.blocks}"
        kept = {block.cidr for block in own.of_state(OwnState.LOST)}
        for cidr, since, until_ in self.lost:
            if since < moment <= until_ and cidr not in kept:
                yield f"{cidr} is lost, and that is forgotten: {own.blocks}"

    def at_ipamd(self, directory: Path, moment: float) -> Iterator[str]:
        """What ipamd's memory should have by *moment*, and has not."""
        kept = DaemonMemory(directory / "memory.json").load()
        nothing = Remembered(cluster_id=0, generation="", revision=0, counter=0)
        for answer in self.before(moment, "answered"):
            revisions = [held.revision for held in answer.blocks]
            seen = (kept or nothing).revision, (kept or nothing).counter
            if max(revisions, default=0) > seen[0] or answer.counter > seen[1]:
                yield f"{answer} was given, and remembered is {kept}"
            if isinstance(answer, Registered) and answer.generation != (kept or nothing).generation:
                yield f"generation {answer.generation} was told, and remembered is {kept}"


def forgotten(asked: Register | Claim | Release, own: Holdings) -> Iterator[str]:
    """What was sent, and is not kept."""
    if asked.uid != own.uid or asked.epoch > own.epoch:
        yield f"{asked} was sent, and kept is {own}"
    match asked:
        case Register() if (asked.generation, asked.counter) > (own.generation, own.counter):
            yield f"{asked} was sent, and kept is {own}"
        case Release():
            usable = {(b.cidr, b.revision) for b in own.of_state(OwnState.ACTIVE)}
            for held in asked.blocks:
                if (held.cidr, held.revision) in usable:
                    yield f"{held} was given back, and is to be used"


def run(machine: Machine, directory: Path) -> Cluster:
    """Blocks are claimed, given back, drained and lost; both are killed, and start again."""
    ipamd = Ipamd(machine, directory / "ipamd", [*strace(directory / "ipamd.trace"), "-D"])
    tracer = tracer_of(ipamd.pid)
    try:
        cluster = _course(Cluster(Recording(machine, directory), ipamd))
    finally:
        ipamd.kill()
    until(lambda: is_over(tracer), "all of ipamd is recorded")
    cluster.journal = ipamd.journal()
    return cluster


def _course(cluster: Cluster) -> Cluster:
    recording, ipamd, machine = cluster.recording, cluster.ipamd, cluster.recording.machine
    for pool in (("four", "10.30.0.0/27", 29), ("six", "fd30::/122", 124)):
        ipamd.do("pool", *pool)
    ipamd.do("settings", {"quarantine_s": 0})
    machine.network = NETWORK
    machine.settings = {"ipamd": ipamd.settings()}
    recording.start()
    cluster.until(2, OwnState.ACTIVE)
    pods = [machine.pod(f"c{number}") for number in range(6)]
    for pod in pods[:5]:
        recording.call("ADD", pod)
    cluster.until(3, OwnState.ACTIVE)
    recording.call("ADD", pods[5])
    for pod in pods[1:]:
        recording.call("DEL", pod)
    ipamd.do("drain", "n1", False)
    cluster.until(0, OwnState.ACTIVE)
    recording.stop(kill=True)
    recording.start()
    cluster.until(2, OwnState.DRAINING)
    ipamd.do("drain", "n1", True)
    cluster.until(2, OwnState.ACTIVE)
    recording.call("ADD", pods[2])
    recording.stop()
    ipamd.do("fence", "n1")
    until(lambda: ipamd.do("show", "blocks") == [], "the blocks are freed", timeout=60)
    ipamd.do("take", "n2", 2)
    recording.start()
    cluster.until(2, OwnState.LOST)
    since, gone = time.time(), cluster.blocks(OwnState.LOST)
    recording.stop(kill=True)
    recording.start()
    for pod in (pods[0], pods[2]):
        until_ = time.time()
        recording.call("DEL", pod)
    cluster.until(0, OwnState.LOST)
    cluster.lost = [(ip_network(cidr), since, until_) for cidr in gone]
    cluster.until(2, OwnState.ACTIVE)
    recording.call("ADD", pods[3])
    recording.stop()
    return cluster


@pytest.fixture(scope="module")
def cluster(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("recorded")
    with made_machine(directory / "node", binary) as machine:
        yield run(machine, directory)


def of_the_node(cluster: Cluster) -> list[Op]:
    return cluster.recording.ops()


def of_ipamd(cluster: Cluster) -> list[Op]:
    """What became of its memory; certificates are there from the beginning."""
    trace, root = cluster.ipamd.directory.with_suffix(".trace"), cluster.ipamd.directory
    return [op for op in read([trace], root) if "memory" in op.path or op.path == str(root)]


def test_a_node_knows_what_it_has_said_and_acted_upon(cluster: Cluster) -> None:
    ops = of_the_node(cluster)
    wrong = lose_power(cluster.recording.machine.state, ops, cluster.on_the_node, MOMENTS)

    assert len(ops) > 100
    assert wrong[:5] == []


def test_an_ipamd_remembers_what_it_has_answered(cluster: Cluster) -> None:
    ops = of_ipamd(cluster)
    wrong = lose_power(cluster.ipamd.directory, ops, cluster.at_ipamd, MOMENTS)

    assert len(ops) > 20
    assert len(cluster.before(time.time(), "answered")) > 5
    assert wrong[:5] == []


@pytest.mark.parametrize("kind", [".new", "ipamd"])
def test_a_sync_left_out_of_the_memory_is_found_wanting(cluster: Cluster, kind: str) -> None:
    careless = without_syncs(of_ipamd(cluster), kind)

    assert lose_power(cluster.ipamd.directory, careless, cluster.at_ipamd, MOMENTS)


def test_a_sync_left_out_of_the_store_is_found_wanting(cluster: Cluster) -> None:
    careless = without_syncs(of_the_node(cluster), "-wal")

    assert lose_power(cluster.recording.machine.state, careless, cluster.on_the_node, MOMENTS)


def without_syncs(ops: list[Op], kind: str) -> list[Op]:
    careless = [op for op in ops if op.kind is not Kind.SYNC or not op.path.endswith(kind)]
    assert len(careless) < len(ops)
    return careless
