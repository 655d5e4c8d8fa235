"""host-local's directory, which two write."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from cni.host_local import HostLocal, Reservation
from ipam.leases import Attachment

NET = ip_network("10.9.0.0/24")
OURS = Attachment("shop", "c1", "eth0")
SEVEN, EIGHT = ip_address("10.9.0.7"), ip_address("10.9.0.8")
THEIRS = Attachment("old", "c9", "eth0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As host-local leaves it, with one address given."""
    made = tmp_path / "old"
    made.mkdir()
    (made / "lock").touch()
    (made / "last_reserved_ip.0").write_text("10.9.0.7")
    (made / "10.9.0.7").write_text("c9\r\neth0")
    return made


@pytest.fixture
def shared(folder: Path) -> HostLocal:
    return HostLocal(folder.parent)


def test_what_host_local_gave_is_read_and_nothing_else_of_its_directory(
    shared: HostLocal, folder: Path
) -> None:
    (folder.parent / "10.9.0.9").write_text("no network's")
    (folder / "fd09::1").write_text("c8")

    found = {one.address: one for one in shared.others()}

    assert found[SEVEN] == Reservation(SEVEN, THEIRS)
    assert found[ip_address("fd09::1")].who == Attachment("old", "c8", "")
    assert len(found) == 2


def test_an_address_is_either_ours_or_theirs(shared: HostLocal, folder: Path) -> None:
    taken = shared.take(OURS, SEVEN, [NET])
    free = shared.take(OURS, EIGHT, [NET])
    again = shared.take(Attachment("shop", "c2", "eth0"), EIGHT, [NET])

    assert (taken, free, again) == (THEIRS, None, None)
    assert (folder / "10.9.0.8").read_bytes() == b"c2\r\neth0\r\n"
    assert [one.address for one in shared.others()] == [SEVEN]


@pytest.mark.parametrize("among", [ip_network("10.8.0.0/16"), ip_network("fd09::/64")])
def test_a_directory_of_other_addresses_is_left_alone(
    shared: HostLocal, folder: Path, among: object
) -> None:
    before = sorted(folder.iterdir())

    assert shared.take(OURS, EIGHT, [among]) is None  # type: ignore[list-item]
    assert not shared.shares([among])  # type: ignore[list-item]
    assert sorted(folder.iterdir()) == before


def test_a_pod_of_theirs_that_we_are_told_to_delete_is_free_with_them(
    shared: HostLocal, folder: Path
) -> None:
    shared.take(Attachment("shop", "c9", "eth0"), EIGHT, [NET])
    for other in ("c9", "c9\r\nnet1", "c10\r\neth0"):
        (folder / f"10.9.0.{20 + len(other)}").write_text(other)

    shared.release("c9", "eth0")

    assert {one.who.container_id for one in shared.others()} == {"c9", "c10"}
    assert not (folder / "10.9.0.7").exists()
    assert not (folder / "10.9.0.22").exists()
    assert (folder / "10.9.0.8").exists()


def test_our_files_follow_what_we_hold_until_they_have_none(
    shared: HostLocal, folder: Path
) -> None:
    shared.take(OURS, EIGHT, [NET])
    nine = ip_address("10.9.0.9")
    shared.keep({nine: OURS}, [NET], lambda address: address == EIGHT)
    kept = sorted(one.name for one in folder.glob("10.*"))
    (folder / "10.9.0.7").unlink()
    shared.keep({nine: OURS}, [NET], lambda address: False)

    assert kept == ["10.9.0.7", "10.9.0.9"]
    assert list(folder.glob("10.*")) == []


def test_without_such_a_directory_there_is_nothing_to_do(tmp_path: Path) -> None:
    absent = HostLocal(tmp_path / "none")

    absent.keep({}, [NET], lambda address: True)
    absent.release("c9", "eth0")

    assert absent.take(OURS, SEVEN, [NET]) is None
    assert absent.others() == []
