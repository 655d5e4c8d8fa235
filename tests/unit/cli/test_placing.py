"""Files put whole or not at all, and taken away again."""

import os
from pathlib import Path

import pytest

from cli.placing import (
    Manifest,
    Placed,
    digest,
    digest_of,
    make_directories,
    place,
    read_manifest,
    remove_empty,
    take_away,
    write_manifest,
)


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


def test_taking_away_puts_back_what_was_saved_and_may_be_repeated(tmp_path: Path) -> None:
    path, saved = tmp_path / "a", tmp_path / "a.saved"
    path.write_bytes(b"ours")
    saved.write_bytes(b"theirs")

    take_away(path, saved)
    restored = path.read_bytes()
    take_away(path, None)
    take_away(path, None)

    assert restored == b"theirs"
    assert os.listdir(tmp_path) == []


def test_a_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    manifest = Manifest([Placed(path="/a", sha256="1", saved="/b")], ["/c"])

    write_manifest(tmp_path / "manifest.json", manifest)

    assert read_manifest(tmp_path / "manifest.json") == manifest


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": [{}], "directories": []}'])
def test_a_damaged_manifest_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)

    assert read_manifest(tmp_path / "manifest.json") == Manifest()


def test_what_was_saved_first_stays_recorded_when_a_file_is_put_again() -> None:
    manifest = Manifest()

    manifest.add(Placed(path="/a", sha256="1", saved="/theirs"))
    manifest.add(Placed(path="/a", sha256="2"))

    assert manifest.files == [Placed(path="/a", sha256="2", saved="/theirs")]


def test_only_directories_that_were_missing_are_made_and_only_empty_ones_removed(
    tmp_path: Path,
) -> None:
    made = make_directories(tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "theirs").write_bytes(b"")

    remove_empty(made)

    assert [path.name for path in made] == ["c", "b", "a"]
    assert os.listdir(tmp_path / "a") == ["theirs"]


def test_the_hash_of_what_is_absent_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")

    assert digest_of(tmp_path / "a") == digest(b"x")
    assert digest_of(tmp_path / "b") is None
    assert digest_of(tmp_path / "a" / "b") is None
