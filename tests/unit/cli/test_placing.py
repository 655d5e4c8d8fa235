"""The manifest of what was put, and taking it away again."""

import os
from pathlib import Path

import pytest

from cli.placing import (
    Manifest,
    Placed,
    digest,
    digest_of,
    make_directories,
    read_manifest,
    remove_empty,
    take_away,
    write_manifest,
)


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
