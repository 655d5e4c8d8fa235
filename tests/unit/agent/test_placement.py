"""Files put where runtimes look, whole or not at all."""

import logging
import os
from pathlib import Path

import pytest

from agent.placement import InstallConfig, Placement, place


@pytest.fixture
def config(tmp_path: Path) -> InstallConfig:
    (tmp_path / "launcher").write_bytes(b"program")
    (tmp_path / "10-isthmus.conflist").write_bytes(b"{}")
    (tmp_path / "net.d").mkdir()
    return InstallConfig(
        network_list=tmp_path / "10-isthmus.conflist",
        launcher=tmp_path / "launcher",
        bin_dir=tmp_path / "bin",
        conf_dir=tmp_path / "net.d",
    )


def test_the_plugin_is_put_under_both_names_by_which_it_is_called(config: InstallConfig) -> None:
    Placement(config).put_plugins()

    assert sorted(os.listdir(config.bin_dir)) == ["isthmus", "isthmus-ipam"]
    assert (config.bin_dir / "isthmus").read_bytes() == b"program"
    assert (config.bin_dir / "isthmus").stat().st_mode & 0o7777 == 0o755
    assert os.listdir(config.conf_dir) == []


def test_what_is_as_it_should_be_is_not_touched(config: InstallConfig) -> None:
    placement = Placement(config)
    placement.put_plugins()
    placement.put_network_list()
    paths = [config.bin_dir / "isthmus", config.conf_dir / "10-isthmus.conflist"]
    before = [path.stat().st_ino for path in paths]

    placement.put_plugins()
    placement.put_network_list()

    assert [path.stat().st_ino for path in paths] == before


def test_what_somebody_changed_or_removed_is_put_again(config: InstallConfig) -> None:
    placement = Placement(config)
    placement.put_network_list()
    placement.put_plugins()
    (config.conf_dir / "10-isthmus.conflist").write_bytes(b"edited")
    (config.bin_dir / "isthmus").unlink()

    placement.put_network_list()
    placement.put_plugins()

    assert (config.conf_dir / "10-isthmus.conflist").read_bytes() == b"{}"
    assert (config.bin_dir / "isthmus").exists()


def test_a_list_that_runtimes_would_take_before_ours_is_told_once(
    config: InstallConfig, caplog: pytest.LogCaptureFixture
) -> None:
    (config.conf_dir / "05-other.conflist").write_bytes(b"{}")
    (config.conf_dir / "00-readme.txt").write_bytes(b"")
    (config.conf_dir / "20-later.conf").write_bytes(b"{}")
    placement = Placement(config)

    with caplog.at_level(logging.WARNING):
        placement.put_network_list()
        placement.put_network_list()

    [record] = caplog.records
    assert record.path == str(config.conf_dir / "05-other.conflist")  # type: ignore[attr-defined]


def test_a_file_is_put_with_its_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "isthmus"

    place(path, b"program", 0o755)

    assert path.read_bytes() == b"program"
    assert path.stat().st_mode & 0o7777 == 0o755
    assert os.listdir(tmp_path) == ["isthmus"]


def test_who_has_the_old_file_open_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "isthmus"
    path.write_bytes(b"old")

    with path.open("rb") as old:
        place(path, b"new", 0o755)

        assert old.read() == b"old"
    assert path.read_bytes() == b"new"


def test_the_temporary_name_is_none_that_a_runtime_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    rename = Path.rename

    def spy(self: Path, target: Path) -> Path:
        seen.append(self.name)
        assert self.parent == target.parent
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", spy)

    place(tmp_path / "10-isthmus.conflist", b"{}", 0o644)

    assert len(seen) == 1
    assert not seen[0].endswith((".conf", ".conflist", ".json"))


def test_what_an_interrupted_attempt_left_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.isthmus-new").write_bytes(b"half")

    place(tmp_path / "a", b"whole", 0o600)

    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_cannot_be_put_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "full").write_bytes(b"")

    with pytest.raises(OSError, match="director"):
        place(tmp_path / "a", b"x", 0o600)

    assert os.listdir(tmp_path) == ["a"]
