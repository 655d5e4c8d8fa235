import os
from pathlib import Path

import pytest

from ipam.errors import StoreDamaged, StoreUnavailable
from ipam.memory import DaemonMemory, Remembered, kept_from_others

SEEN = Remembered(cluster_id=2**63, generation="g", revision=7, counter=3)


def test_what_was_kept_comes_back_in_another_process(tmp_path: Path) -> None:
    DaemonMemory(tmp_path / "memory").keep(SEEN)

    assert DaemonMemory(tmp_path / "memory").load() == SEEN


def test_no_file_is_no_memory(tmp_path: Path) -> None:
    assert DaemonMemory(tmp_path / "memory").load() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"tomato": 1}',
        "\x00",
        '{"cluster_id":"1","generation":1,"revision":1,"counter":1}',
    ],
)
def test_file_that_is_not_ours_is_damage_not_forgetting(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory").write_text(text)

    with pytest.raises(StoreDamaged, match="memory"):
        DaemonMemory(tmp_path / "memory").load()


def test_old_memory_stays_whole_where_the_new_cannot_be_written(tmp_path: Path) -> None:
    memory = DaemonMemory(tmp_path / "memory")
    memory.keep(SEEN)
    (tmp_path / "memory.new").mkdir()

    with pytest.raises(StoreUnavailable):
        memory.keep(Remembered(cluster_id=1, generation="h", revision=8, counter=4))

    assert memory.load() == SEEN


def test_memory_is_synced_before_and_after_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, move = os.fsync, Path.replace

    def fsync(file: int) -> None:
        order.append("fsync")
        sync(file)

    def rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return move(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)

    DaemonMemory(tmp_path / "memory").keep(SEEN)

    assert order == ["fsync", "rename", "fsync"]


def test_state_directory_is_one_replicas_alone_and_free_afterwards(tmp_path: Path) -> None:
    with (
        kept_from_others(tmp_path),
        pytest.raises(StoreUnavailable, match=r"in use by another ipamd: each needs one"),
        kept_from_others(tmp_path),
    ):
        pass

    with kept_from_others(tmp_path):
        assert (tmp_path / "lock").exists()


def test_state_directory_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreUnavailable, match=r"cannot open .*/none/lock"),
        kept_from_others(tmp_path / "none"),
    ):
        pass
