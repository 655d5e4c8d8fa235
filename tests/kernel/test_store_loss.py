"""Fifty containers run, and the file of their leases is lost in every way it can be.

What is damaged is kept aside and said so; the leases are read from the links, and nobody's
address is given to another.
"""

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cni.attachment import host_name
from dataplane.model import Bandwidth
from dataplane.netlink import Netlink
from dataplane.qdisc import Bucket
from dataplane.tc import Shaper, buckets
from ipam.leases import Attachment
from tests.kernel.agents import Machine, Pod, addresses, bare, made_machine, until
from tests.kernel.nodes import error_of
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

CONTAINERS = 50
Records = dict[str, tuple[str, tuple[str, ...]]]
LIMITS = {
    "ingressRate": 8_000_000,
    "ingressBurst": 800_000,
    "egressRate": 4_000_000,
    "egressBurst": 400_000,
}
RUNTIME_CONFIG = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


@pytest.fixture(scope="module")
def crowd(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with its containers attached, one with a port of the host, and no agent."""
    directory = tmp_path_factory.mktemp("crowd") / "node"
    with made_machine(directory, binary) as machine:
        machine.start()
        for number in range(CONTAINERS):
            extra = {} if number else {"runtimeConfig": RUNTIME_CONFIG}
            pod = machine.pod(f"c{number}")
            addresses(machine.add(pod, network={**machine.network, **extra}))
        machine.stop()
        yield machine


@pytest.fixture
def attached(crowd: Machine) -> Iterator[Records]:
    """What is known of the containers while all is well; the agent is stopped."""
    crowd.start()
    before = crowd.records()
    assert len(before) == CONTAINERS
    crowd.stop()
    for path in crowd.state.glob("*.damaged-*"):
        path.unlink()
    crowd.log.write_text("")
    yield before
    if not crowd.has_ended:
        crowd.stop()


def files(path: Path) -> list[Path]:
    return [found for found in path.parent.glob(f"{path.name}*") if ".damaged" not in found.name]


def deleted(path: Path) -> None:
    for each in files(path):
        each.unlink()


def deleted_but_for_its_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").write_bytes(b"log of a lost file")
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def scribbled_over(path: Path) -> None:
    data = bytearray(path.read_bytes())
    dice = random.Random(1)
    for _ in range(len(data) // 8):
        data[dice.randrange(100, len(data))] = dice.randrange(256)
    path.write_bytes(data)


def no_database(path: Path) -> None:
    path.write_text("this is no database, and long enough to be looked at\n" * 100)


def foreign_database(path: Path) -> None:
    deleted(path)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()


def set_version(path: Path, version: int) -> int:
    """Say of the file that its schema is of *version*, as who reads it; returns of which it was."""
    with sqlite3.connect(path) as db:
        (before,) = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("UPDATE readable SET since = ?", (version,))
    db.close()
    return int(before)


def older_copy(path: Path) -> None:
    """A backup of when nothing was attached."""
    with sqlite3.connect(path) as db:
        for table in ("address", "attachment", "released"):
            db.execute(f"DELETE FROM {table}")
    db.close()


GONE = [deleted, older_copy]
DAMAGED = [
    deleted_but_for_its_log,
    emptied,
    cut_off,
    scribbled_over,
    no_database,
    foreign_database,
]


def attach_another(machine: Machine, before: Records) -> None:
    """Nobody's address is given to a new container; then all is as before."""
    taken = {address for _, held in before.values() for address in held}
    another = machine.pod()
    given = addresses(machine.add(another))

    assert not taken & set(given)
    assert machine.delete(another).status == 0
    machine.remove(another)


@pytest.mark.parametrize("damage", [*GONE, *DAMAGED], ids=lambda damage: damage.__name__)
def test_leases_are_all_known_again_after_a_start(
    crowd: Machine, attached: Records, damage: Callable[[Path], None]
) -> None:
    damage(crowd.database)
    damaged = crowd.database.read_bytes() if damage in DAMAGED and crowd.database.exists() else b""
    crowd.start()

    assert crowd.records() == attached
    assert crowd.problems() == []
    assert len(crowd.links()) == CONTAINERS
    assert len(crowd.elements()) > CONTAINERS
    attach_another(crowd, attached)
    if damage in DAMAGED:
        log = crowd.log.read_text()
        assert "kept aside" in log
        assert str(crowd.database) in log
        kept = crowd.database.with_name(f"{crowd.database.name}.damaged-1")
        assert not damaged or kept.read_bytes() == damaged

    crowd.kill()
    crowd.start()

    assert crowd.records() == attached
    assert crowd.problems() == []


@pytest.mark.parametrize("damage", [deleted, no_database], ids=lambda damage: damage.__name__)
def test_store_lost_while_running_is_written_anew(
    crowd: Machine, attached: Records, damage: Callable[[Path], None]
) -> None:
    crowd.start()
    if damage is no_database:
        deleted(crowd.database)
    damage(crowd.database)
    another = crowd.pod()
    answers = []

    def succeeds() -> bool:
        answers.append(crowd.add(another))
        return answers[-1].status == 0

    until(succeeds, "ADD is served again")
    given = addresses(answers[-1])
    refused = {error_of(answer)["code"] for answer in answers[:-1]}
    crowd.kill()
    crowd.start()

    assert refused <= {11}
    assert crowd.records() == {**attached, another.container_id: ("held", given)}
    assert crowd.problems() == []
    assert crowd.delete(another).status == 0
    crowd.remove(another)


def test_status_tells_of_a_store_that_cannot_be_made(crowd: Machine, attached: Records) -> None:
    """While no file can be made, nothing is promised; DEL and what runs go on."""
    deleted(crowd.database)
    blocked = crowd.state / "isthmus.db.new"
    blocked.mkdir()
    crowd.start()
    try:
        status = crowd.call("STATUS")
        added = crowd.add(crowd.pod("refused"))
        known = crowd.records()
    finally:
        blocked.rmdir()
    until(lambda: crowd.call("STATUS").status == 0, "the store is made")

    assert error_of(status)["code"] == 50
    assert error_of(added)["code"] == 11
    assert "durable" in error_of(status)["msg"]
    assert str(crowd.database) in crowd.log.read_text()
    assert set(known) <= set(attached)
    crowd.remove(crowd.pods["refused"])
    until(lambda: crowd.records() == attached, "the leases are read from the links")
    assert crowd.problems() == []
    attach_another(crowd, attached)


def test_a_store_of_a_newer_version_is_left_alone(crowd: Machine, attached: Records) -> None:
    """It holds more than the links tell, and the program that knows it may come back."""
    known = set_version(crowd.database, 99)
    before = crowd.database.read_bytes()
    crowd.start()
    status = crowd.call("STATUS")
    added = crowd.add(crowd.pod("refused"))
    crowd.stop()
    after = crowd.database.read_bytes()
    set_version(crowd.database, known)
    crowd.start()

    assert (error_of(status)["code"], error_of(added)["code"]) == (50, 11)
    for answer in (status, added):
        told = " ".join(map(str, error_of(answer).values()))
        assert f"schema version 99; this program knows up to {known}" in told
    assert after == before
    assert not list(crowd.state.glob("*.damaged-*"))
    assert crowd.records() == attached
    crowd.remove(crowd.pods["refused"])


@pytest.fixture
def machine(binary: str, tmp_path: Path) -> Iterator[Machine]:
    with made_machine(tmp_path / "node", binary) as made:
        made.start()
        yield made


def lose(machine: Machine, damage: Callable[[Path], None]) -> None:
    machine.stop()
    damage(machine.database)
    machine.start()


def limits_of(machine: Machine, pod: Pod) -> tuple[Bucket | None, Bucket | None]:
    name = host_name(Attachment(machine.network["name"], pod.container_id, "eth0"))
    with inside(machine.host), Netlink() as netlink:
        return Shaper(netlink).observe(name)


@pytest.mark.parametrize("is_long", [False, True], ids=["kept", "no room for them"])
def test_a_limited_pod_is_not_cut_off(machine: Machine, is_long: bool) -> None:
    network = {**machine.network, "runtimeConfig": {"bandwidth": LIMITS}}
    pod = machine.pod("c" * 195 if is_long else "limited")
    addresses(machine.add(pod, network=network))
    wanted = buckets(
        Bandwidth(
            ingress_rate=LIMITS["ingressRate"],
            ingress_burst=LIMITS["ingressBurst"],
            egress_rate=LIMITS["egressRate"],
            egress_burst=LIMITS["egressBurst"],
        )
    )
    before = limits_of(machine, pod)
    lose(machine, deleted)

    assert before == wanted
    assert limits_of(machine, pod) == ((None, None) if is_long else wanted)
    assert pod.namespace.pings("10.9.0.1")
    assert machine.delete(pod, network=network).status == 0
    assert machine.leftovers() == []


LEASES = {
    "cniVersion": "1.1.0",
    "name": "shop",
    "type": "bridge",
    "ipam": {"type": "isthmus-ipam", "subnet": "10.89.0.0/24"},
}


def lease(machine: Machine, pod: Pod) -> str:
    """What `isthmus-ipam` gives to the interface of another plugin, which puts it there."""
    (address,) = addresses(machine.call("ADD", pod, network=LEASES, name="isthmus-ipam"))
    for command in (
        ("link", "add", "eth0", "type", "veth", "peer", "name", "other"),
        ("address", "add", f"{address}/24", "dev", "eth0"),
    ):
        pod.namespace.run("ip", *command)
    return address


def found(machine: Machine) -> dict[str, str]:
    """Of the addresses held by whoever has them: address to sandbox."""
    return {
        bare(address): record["sandbox"]
        for record in machine.ask("attachments")["attachments"]
        if record["network"] == "found"
        for address in record["addresses"]
    }


@pytest.mark.parametrize("damage", [deleted, cut_off], ids=lambda damage: damage.__name__)
def test_an_address_on_the_link_of_another_plugin_is_not_given_again(
    machine: Machine, damage: Callable[[Path], None]
) -> None:
    linked, owner, other = machine.pod(), machine.pod(), machine.pod()
    (known,) = addresses(machine.add(linked))
    given = lease(machine, owner)
    lose(machine, damage)
    others = lease(machine, other)
    holders = found(machine)
    deleted_by_owner = machine.call("DEL", owner, network=LEASES, name="isthmus-ipam")
    still = found(machine)

    assert given != others
    assert holders[given] == owner.path
    assert known not in holders
    assert deleted_by_owner.status == 0
    assert given in still
    assert not (machine.state / "lost").exists()


def test_a_found_address_is_free_when_its_namespace_has_ended(machine: Machine) -> None:
    owner, once_more = machine.pod(), machine.pod()
    given = lease(machine, owner)
    lease(machine, once_more)
    lose(machine, deleted)
    before = found(machine)
    machine.kill()
    machine.start()
    after_a_crash = found(machine)
    machine.remove(owner)
    until(lambda: given not in found(machine), "the address is free again")

    assert given in before
    assert after_a_crash[given] == before[given]
    assert len(set(found(machine).values()) & {once_more.path}) == 1


def test_a_first_start_searches_nothing(binary: str, tmp_path: Path) -> None:
    with made_machine(tmp_path / "node", binary) as machine:
        there = machine.pod()
        there.namespace.run("ip", "address", "add", "10.9.0.2/24", "dev", "lo")
        there.namespace.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
        there.namespace.run("ip", "address", "add", "10.9.0.3/24", "dev", "eth0")
        machine.start()

        assert found(machine) == {}
