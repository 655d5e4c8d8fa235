"""Archives hold what was asked for, and equal content gives equal bytes."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from tools.kind import archive
from tools.kind.archive import Image, Link


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: file.read() for name, file in files if file is not None}


def manifest(path: Path) -> Any:
    return json.loads(contents(path)["manifest.json"])


def layer(path: Path, image: int = 0, number: int = 0) -> tarfile.TarFile:
    name = manifest(path)[image]["Layers"][number]
    return tarfile.open(fileobj=io.BytesIO(gzip.decompress(contents(path)[name])))


def test_an_image_has_its_tags_and_is_started_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"

    archive.write(path, [Image(tags=("a:1", "b:1"), layers=({"x": b"y"},), entrypoint=("/x",))])

    (described,) = manifest(path)
    config = json.loads(contents(path)[described["Config"]])
    assert described["RepoTags"] == ["a:1", "b:1"]
    assert config["config"]["Entrypoint"] == ["/x"]


def test_digests_are_of_what_is_compressed(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"

    archive.write(path, [Image(tags=("a:1",), layers=({"x": b"y"},))])

    files = contents(path)
    (described,) = manifest(path)
    config = json.loads(files[described["Config"]])
    unpacked = gzip.decompress(files[described["Layers"][0]])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(unpacked).hexdigest()}"]


def test_a_layer_has_files_links_and_the_folders_they_are_in(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!")
    program.chmod(0o755)
    path = tmp_path / "image.tar"

    content: dict[str, archive.Content] = {"usr/bin/p": program, "bin": Link("usr/bin")}
    archive.write(path, [Image(tags=("a:1",), layers=(content,))])

    with layer(path) as tar:
        listed = [(member.name, oct(member.mode), member.linkname) for member in tar]
    assert listed == [
        ("bin", "0o777", "usr/bin"),
        ("usr", "0o755", ""),
        ("usr/bin", "0o755", ""),
        ("usr/bin/p", "0o755", ""),
    ]


def test_a_file_under_two_names_is_there_twice(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(b"same")
    (tmp_path / "tree/b").hardlink_to(tmp_path / "tree/a")
    path = tmp_path / "image.tar"

    archive.write(path, [Image(tags=("a:1",), layers=(archive.tree(tmp_path / "tree"),))])

    with layer(path) as tar:
        assert [member.isreg() for member in tar] == [True, True]


def test_a_tree_is_taken_without_what_is_left_out(tmp_path: Path) -> None:
    for name in ("dev/null", "device", "etc/hosts"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    taken = archive.tree(tmp_path, ["dev/"])

    assert sorted(taken) == ["device", "etc", "etc/hosts"]


def test_a_layer_that_images_share_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    shared: dict[str, archive.Content] = {"x": b"y"}

    archive.write(
        path,
        [Image(tags=("a:1",), layers=(shared,)), Image(tags=("b:1",), layers=(shared, {"z": b""}))],
    )

    first, second = manifest(path)
    assert first["Layers"][0] == second["Layers"][0]
    assert len([name for name in contents(path) if name.endswith(".tar.gz")]) == 2


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"same")
        tree = archive.tree(tmp_path / name)
        archive.write(tmp_path / f"{name}.tar", [Image(tags=("a:1",), layers=(tree,))])

    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_an_archive_that_cannot_be_finished_does_not_appear(tmp_path: Path) -> None:
    path = tmp_path / "new" / "image.tar"
    missing: dict[str, archive.Content] = {"x": tmp_path / "missing"}
    try:
        archive.write(path, [Image(tags=("a:1",), layers=(missing,))])
    except FileNotFoundError:
        left = list(path.parent.iterdir())

    assert left == []
