import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cni.errors import CNIError
from cni.frames import encode_request
from cni.request import Request
from cni.spool import Spool

DEL = Request(
    program="isthmus",
    environment={"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"},
    stdin=b'{"name": "shop"}',
    started_ns=2_000,
    boot_id="3f0f6f6e-8b1d-4d86-9d3e-0d1b6f1c9a11",
)
FRAME = encode_request(DEL)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def names(spool: Spool) -> list[str]:
    return sorted(os.listdir(spool.directory))


def requests(spool: Spool) -> list[Request]:
    return [entry.request for entry in spool.pending()]


def put(spool: Spool, name: str, content: bytes) -> None:
    spool.directory.mkdir(exist_ok=True)
    (spool.directory / name).write_bytes(content)


def test_nothing_is_pending_before_the_directory_exists(spool: Spool) -> None:
    assert spool.pending() == []
    assert not spool.directory.exists()


def test_an_added_deletion_is_pending_without_its_descriptor(spool: Spool) -> None:
    spool.add(replace(DEL, netns_fd=7))

    assert requests(spool) == [DEL]
    assert spool.directory.stat().st_mode & 0o777 == 0o700


def test_an_entry_of_the_launcher_is_read(spool: Spool) -> None:
    put(spool, "00000000000000002000-77.del", FRAME)

    assert requests(spool) == [DEL]


def test_entries_come_in_the_order_in_which_their_calls_started(spool: Spool) -> None:
    for started in (3_000, 1_000, 20_000):
        spool.add(replace(DEL, started_ns=started))

    assert [request.started_ns for request in requests(spool)] == [1_000, 3_000, 20_000]


def test_two_deletions_of_one_attachment_and_instant_are_both_kept(spool: Spool) -> None:
    spool.add(DEL)
    spool.add(DEL)

    assert requests(spool) == [DEL, DEL]


def test_waiting_entries_are_counted_without_being_read(spool: Spool) -> None:
    put(spool, "1-1.del", b"torn")
    put(spool, "1-2.del.bad", b"torn")
    put(spool, ".tmp-1-3", b"")

    assert spool.waiting() == 1


def test_a_removed_entry_is_gone_and_removing_it_again_is_harmless(spool: Spool) -> None:
    spool.add(DEL)
    (entry,) = spool.pending()
    spool.remove(entry)
    spool.remove(entry)

    assert names(spool) == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(FRAME[:50], id="torn header"),
        pytest.param(FRAME[:-1], id="torn body"),
        pytest.param(FRAME + b"x", id="too long"),
        pytest.param(bytes(len(FRAME)), id="zeros after a power loss"),
        pytest.param(
            encode_request(replace(DEL, environment={"CNI_COMMAND": "ADD"})), id="not a DEL"
        ),
    ],
)
def test_a_damaged_entry_is_set_aside_and_blocks_no_other(
    spool: Spool, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    put(spool, "00000000000000001000-1.del", content)
    spool.add(DEL)

    with caplog.at_level(logging.WARNING):
        assert requests(spool) == [DEL]
        assert requests(spool) == [DEL]

    assert "00000000000000001000-1.del.bad" in names(spool)
    assert [record.message for record in caplog.records] == ["damaged deletion set aside"]


@pytest.mark.parametrize("kind", ["fifo", "directory", "symbolic link"])
def test_what_is_no_file_is_set_aside_without_opening_it(spool: Spool, kind: str) -> None:
    spool.add(DEL)
    odd = spool.directory / "1-1.del"
    match kind:
        case "fifo":
            os.mkfifo(odd)
        case "directory":
            odd.mkdir()
        case _:
            odd.symlink_to("/dev/zero")

    assert requests(spool) == [DEL]
    assert "1-1.del.bad" in names(spool)


def test_unfinished_and_foreign_files_are_no_entries(spool: Spool) -> None:
    put(spool, ".tmp-77-2000", FRAME)
    put(spool, "README", b"")

    assert spool.pending() == []
    assert names(spool) == [".tmp-77-2000", "README"]


def test_tidying_removes_old_unfinished_files_alone(spool: Spool) -> None:
    for name in (".tmp-old", ".tmp-new", "1-1.del"):
        put(spool, name, FRAME)
    os.utime(spool.directory / ".tmp-old", (1_000, 1_000))
    os.utime(spool.directory / ".tmp-new", (1_500, 1_500))
    os.utime(spool.directory / "1-1.del", (1_000, 1_000))
    spool.tidy(now=1_700, age=600)

    assert names(spool) == [".tmp-new", "1-1.del"]


def test_tidying_before_the_directory_exists_does_nothing(spool: Spool) -> None:
    spool.tidy(now=1_700)

    assert not spool.directory.exists()


def test_a_missing_parent_is_an_error_that_names_the_directory(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "absent" / "spool")

    with pytest.raises(CNIError, match=f"{spool.directory}: No such file") as caught:
        spool.add(DEL)
    assert caught.value.code == 11


def test_a_full_spool_refuses_and_leaves_nothing_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit=2)
    spool.add(DEL)
    spool.add(DEL)

    with pytest.raises(CNIError, match="2 deletions wait already"):
        spool.add(DEL)
    assert len(names(spool)) == 2


def test_a_deletion_that_no_reader_would_take_is_refused_and_leaves_nothing(spool: Spool) -> None:
    with pytest.raises(CNIError, match="more than 1572864"):
        spool.add(replace(DEL, stdin=b" " * 2_000_000))
    assert names(spool) == []
