"""Addresses that another plugin gave, held beside ours."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from cni import former, spec
from cni.host_local import HostLocal, Reservation
from cni.node import Node
from ipam.leases import Attachment
from tests.unit.cni.fakes import World

THEIRS = Attachment("old", "c9", "eth0")


@pytest.fixture
def give(world: World, tmp_path: Path) -> Callable[[str], Path]:
    """Have host-local give an address to the container c9."""
    folder = tmp_path / "networks" / "old"
    folder.mkdir(parents=True)
    world.node = replace(world.node, host_local=HostLocal(folder.parent))

    def given(address: str) -> Path:
        (folder / address).write_text("c9\r\neth0")
        return folder / address

    return given


def theirs(node: Node, *addresses: str) -> tuple[int, list[str]]:
    return former.hold([Reservation(ip_address(one), THEIRS) for one in addresses], node)


def test_an_address_given_meanwhile_is_held_as_theirs_and_another_is_chosen(
    world: World, give: Callable[[str], Path]
) -> None:
    file = give("10.9.0.2")

    made = world.made()

    assert made["ips"][0]["address"] == "10.9.0.3/24"
    assert (file.parent / "10.9.0.3").read_text().split() == ["c1", "eth0"]
    record = world.leases.find(THEIRS)
    assert record is not None
    assert spec.of(record).former


def test_a_gateway_of_theirs_on_a_link_of_the_host_is_no_pods(
    world: World, give: Callable[[str], Path]
) -> None:
    give("10.9.0.7")
    world.kernel.held_addresses[99] = [ip_interface("10.9.0.2/32")]

    first = world.made()

    assert first["ips"][0]["address"] == "10.9.0.3/24"
    assert ip_address("10.9.0.2") in former.reserved(world.node)


def test_both_addresses_of_theirs_are_one_records(world: World) -> None:
    first = theirs(world.node, "10.9.0.7")
    second = theirs(world.node, "fd09::7")
    third = theirs(world.node, "10.9.0.7", "fd09::7")

    record = world.leases.find(THEIRS)
    assert record is not None
    assert [str(one.ip) for one in record.addresses] == ["10.9.0.7", "fd09::7"]
    assert [new for new, _ in (first, second, third)] == [1, 1, 0]


def test_what_is_ours_already_is_said(world: World) -> None:
    world.made()

    new, faults = theirs(world.node, "10.9.0.2")

    assert new == 0
    assert "old/c9/eth0: requested address 10.9.0.2 is held by shop/c1/eth0" in faults[0]


def test_a_deletion_of_theirs_frees_it_with_them_and_not_yet_with_us(
    world: World, give: Callable[[str], Path]
) -> None:
    file = give("10.9.0.7")
    theirs(world.node, "10.9.0.7")

    of_another_name = world.call("DEL", world.conf(), container_id="c9")
    held = world.leases.find(THEIRS)

    assert of_another_name.status == 0
    assert not file.exists()
    assert held is not None


def test_a_directory_that_cannot_be_read_is_said(world: World, tmp_path: Path) -> None:
    (tmp_path / "networks").write_text("a file")
    world.node = replace(world.node, host_local=HostLocal(tmp_path / "networks"))

    refused = world.call("ADD", world.conf())

    assert refused.code == 11
    assert "host-local's addresses cannot be looked at" in refused.msg


def test_without_another_plugin_nothing_is_looked_at(world: World) -> None:
    world.made()

    assert "every_address" not in world.kernel.steps
