"""What the store does not know, and links or namespaces tell of."""

from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from shutil import rmtree

import pytest

from agent.reconciler import Reconciler
from cni.host_local import HostLocal
from dataplane.errors import DataplaneError
from dataplane.survey import Surveyed
from ipam.leases import State
from tests.unit.agent.reconciling import FULL, HOST, later
from tests.unit.cni.fakes import BLUE, GREEN, WHO, World
from tests.unit.ipam.cases import BOOT


def surveyed(address: str, cookie: int = 11, path: str = BLUE) -> Surveyed:
    return Surveyed(path, cookie, {"net1": (ip_interface(address),)})


def test_after_a_loss_addresses_in_namespaces_are_held_until_these_end(
    world: World, reconciler: Reconciler, lost: list[Surveyed]
) -> None:
    lost.append(surveyed("10.9.0.77/24"))
    started = reconciler.start()
    (record,) = world.leases.records()
    alive = [later(world, reconciler) for _ in range(2)]
    world.kernel.pods[BLUE].cookie = 99
    lost[:] = [surveyed("10.9.0.77/24", 33, GREEN)]  # somebody else has it too
    used = [later(world, reconciler) for _ in range(2)]
    lost.clear()
    ended = [later(world, reconciler) for _ in range(2)]

    assert started.adopted == 1
    assert (record.who.network, record.who.ifname) == ("found", "net1")
    assert not reconciler.search.owed
    assert not any(alive + used)
    assert [report.ended for report in ended] == [0, 1]
    assert world.leases.records() == []


def test_what_links_tell_of_is_not_taken_for_found(
    world: World, reconciler: Reconciler, lost: list[Surveyed]
) -> None:
    world.made()
    (record,) = world.leases.records()
    lost.append(surveyed(str(record.addresses[0])))

    assert reconciler.start().adopted == 0
    assert world.leases.records() == [record]


def test_no_address_is_given_until_namespaces_were_searched(
    world: World, reconciler: Reconciler, lost: list[Surveyed]
) -> None:
    def refuse() -> list[Surveyed]:
        raise DataplaneError("test fault")

    works = reconciler.search.survey
    reconciler.search.survey = refuse
    failed = reconciler.start().failed
    refused = world.leases.degraded
    reconciler.search.survey = works
    reconciler.round()

    assert failed == 1
    assert "yet to be searched" in refused
    assert world.leases.degraded == ""


def test_a_complete_pair_of_nobody_is_adopted(world: World, reconciler: Reconciler) -> None:
    result = world.made(world.conf(**FULL))
    world.leases.release(WHO).result()

    report = reconciler.round()

    record = world.record()
    assert report.adopted == 1
    assert [str(address) for address in record.addresses] == ["10.9.0.2/24"]
    assert (record.boot_id, record.state) == (BOOT, State.HELD)
    assert world.kernel.published[WHO].masquerade
    assert [m.host_port for m in world.kernel.published[WHO].port_mappings] == [8080]
    assert reconciler.check() == []
    assert world.add(args="IP=10.9.0.2", container_id="c2").code == 101
    assert result["interfaces"][2]["name"] == "eth0"


def test_an_adopted_address_that_another_holds_is_told_and_not_taken(
    world: World, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    world.made()
    world.leases.release(WHO).result()
    world.made(container_id="c2", netns=GREEN, args="IP=10.9.0.2")

    report = reconciler.round()

    assert (report.adopted, report.failed) == (0, 1)
    assert world.leases.find(WHO) is None
    assert [r.__dict__.get("holder") for r in caplog.records if "holder" in r.__dict__] == [
        "shop/c2/eth0"
    ]


def test_no_address_is_given_before_all_that_was_found_is_recorded(
    world: World, reconciler: Reconciler
) -> None:
    world.made()
    there = world.kernel.links[HOST]
    world.leases.release(WHO).result()
    world.clock.advance(31)
    world.store.full = True
    reconciler.start()
    world.store.full = False
    world.leases.expire()  # which finds out that the disk takes writes again

    refused = world.add(container_id="c2", netns=GREEN)
    reconciler.round()

    assert world.kernel.links[HOST] == there
    assert refused.code == 11
    assert world.record().addresses
    assert world.add(container_id="c2", netns=GREEN).addresses == ["10.9.0.3/24"]


def test_a_lost_store_is_rebuilt_from_the_links_at_start(
    world: World, reconciler: Reconciler
) -> None:
    world.made(world.conf(**FULL))
    world.made(container_id="c2", netns=GREEN)
    before = {record.who: record.addresses for record in world.leases.records()}
    for who in before:
        world.leases.release(who).result()

    report = reconciler.start()

    assert report.adopted == 2
    assert {record.who: record.addresses for record in world.leases.records()} == before
    assert {record.who for record in world.store.load().records} == before.keys()


def test_an_adopted_pod_keeps_its_isolation_its_guard_and_its_bridge(
    world: World, reconciler: Reconciler
) -> None:
    conf = world.conf(portIsolation=True, macspoofchk=True, bridge="br7")
    world.made(conf)
    mac = world.kernel.published[WHO].pod_mac
    world.leases.release(WHO).result()
    world.kernel.links[HOST] = replace(world.kernel.links[HOST], master=0)

    reconciler.round()

    published = world.kernel.published[WHO]
    assert (published.mac_spoof_check, published.pod_mac) == (True, mac)
    assert world.kernel.links[HOST].master == world.kernel.links["br7"].index
    assert world.kernel.links[HOST].isolated


@pytest.fixture
def old(world: World, reconciler: Reconciler, tmp_path: Path) -> Path:
    """The directory of another plugin's network, with one address."""
    folder = tmp_path / "networks" / "old"
    folder.mkdir(parents=True)
    (folder / "10.9.0.7").write_text("c9\r\neth0")
    world.node = replace(world.node, host_local=HostLocal(folder.parent))
    reconciler.node = reconciler._adoption.node = world.node
    return folder


def test_what_another_plugin_gave_is_held_until_nothing_has_it(
    world: World, reconciler: Reconciler, there: list[Surveyed], old: Path
) -> None:
    first = reconciler.start()
    (record,) = world.leases.records()
    (old / "10.9.0.7").unlink()
    there.append(surveyed("10.9.0.7/24"))
    in_a_namespace = [later(world, reconciler) for _ in range(2)]
    there.clear()
    world.kernel.held_addresses[99] = [ip_interface("10.9.0.7/32")]
    on_the_host = [later(world, reconciler) for _ in range(2)]
    del world.kernel.held_addresses[99]
    ended = [later(world, reconciler).ended for _ in range(2)]

    assert first.adopted == 1
    assert str(record.who) == "old/c9/eth0"
    assert not any(in_a_namespace + on_the_host)
    assert ended == [0, 1]
    assert world.leases.records() == []


def test_ours_stand_in_the_directory_of_the_other_plugin(
    world: World, reconciler: Reconciler, old: Path
) -> None:
    world.made()
    (old / "10.9.0.2").unlink()
    (old / "10.9.0.9").write_text("c5\r\neth0\r\n")  # of a life that was cut off
    reconciler.start()

    assert sorted(one.name for one in old.iterdir()) == ["10.9.0.2", "10.9.0.7"]


def test_a_directory_that_cannot_be_looked_at_is_a_failure_and_not_the_end(
    world: World, reconciler: Reconciler, old: Path
) -> None:
    world.made()
    rmtree(old.parent)
    old.parent.write_text("a file")

    report = reconciler.round()

    assert report.failed == 1
    assert len(world.leases.records()) == 1
