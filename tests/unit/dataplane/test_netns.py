"""What is a network namespace and what is not; entering one is for tests/kernel."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from dataplane.errors import InvalidNamespace
from dataplane.netns import (
    Identity,
    open_descriptor,
    open_path,
    open_sandbox,
    own_identity,
    reachable,
)

OWN = "/proc/self/ns/net"


def test_a_namespace_is_opened_for_use() -> None:
    fd = open_path(OWN)
    try:
        assert Identity.of_descriptor(fd) == Identity.of_path(OWN) == own_identity()
    finally:
        os.close(fd)


def test_a_handle_is_reopened_for_use_and_stays_the_callers() -> None:
    handle = os.open(OWN, os.O_PATH)
    try:
        fd = open_descriptor(handle, OWN)
        try:
            assert fd != handle
            assert Identity.of_descriptor(handle) == Identity.of_descriptor(fd)
        finally:
            os.close(fd)
    finally:
        os.close(handle)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(InvalidNamespace) as caught:
        open_path("/no/such/netns")

    assert str(caught.value) == 'failed to open netns "/no/such/netns": No such file or directory'


def test_a_dangling_symlink_is_not_there_and_a_good_one_is(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.symlink_to("/no/such/netns")
    good.symlink_to(OWN)

    os.close(open_path(str(good)))
    with pytest.raises(InvalidNamespace, match="No such file"):
        open_path(str(bad))


def test_a_plain_file_is_told_by_its_file_system() -> None:
    with (
        tempfile.NamedTemporaryFile(dir="/dev/shm") as file,
        pytest.raises(InvalidNamespace, match=r'unknown FS magic on "/dev/shm/.*": 1021994'),
    ):
        open_path(file.name)


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    with pytest.raises(InvalidNamespace, match="unknown FS magic"):
        open_path(str(path))


@pytest.mark.parametrize("path", ["/", "/dev/null", "/proc/self/status"])
def test_folders_devices_and_files_of_proc_are_none(path: str) -> None:
    with pytest.raises(InvalidNamespace, match="unknown FS magic"):
        open_path(path)


def test_a_socket_is_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "sock"))
        with pytest.raises(InvalidNamespace, match="unknown FS magic"):
            open_path(str(tmp_path / "sock"))


def test_a_namespace_of_another_kind_is_none() -> None:
    with pytest.raises(InvalidNamespace) as caught:
        open_path("/proc/self/ns/mnt")

    assert str(caught.value) == '"/proc/self/ns/mnt" is a namespace, but not a network namespace'


def test_refusals_leave_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))

    for path in ("/", "/proc/self/ns/mnt", "/no/such/netns", str(tmp_path)):
        with pytest.raises(InvalidNamespace):
            open_sandbox(path)

    assert len(os.listdir("/proc/self/fd")) == before


def test_the_host_s_own_namespace_is_none_of_the_reachable_ones() -> None:
    found = reachable()
    identities = {Identity.of_path(path) for path in found if Path(path).exists()}

    assert own_identity() not in identities
    assert len(set(found)) == len(found)
