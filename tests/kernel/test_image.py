"""The container image: what is in it runs by itself, and equal inputs give equal bytes."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
TAG = "localhost/isthmus:test"
MOST = 120 << 20
# An interpreter of commands would be the first thing that an intruder looks for.
SHELLS = {"sh", "bash", "dash", "busybox", "python3", "perl"}


def make(dist: Path, output: Path) -> Path:
    subprocess.run(
        [ROOT / "tools/image.py", "--dist", dist, "--output", output, "--tag", TAG],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return output


@pytest.fixture(scope="module")
def archive(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(dist, tmp_path_factory.mktemp("image") / "image.tar")


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's file system, as an engine without any cleverness would unpack it."""
    root = tmp_path_factory.mktemp("root")
    with tarfile.open(archive) as outer:
        [described] = json.load(outer.extractfile("manifest.json"))  # type: ignore[arg-type]
        for name in described["Layers"]:
            content = outer.extractfile(name).read()  # type: ignore[union-attr]
            subprocess.run(["tar", "--extract", "--directory", root], input=content, check=True)
    return root


def run(root: Path, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run *argv* of the image alone, in a network namespace of its own."""
    return subprocess.run(
        ["unshare", "--net", "chroot", root, *argv],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/sbin:/usr/bin"},
        check=False,
    )


def test_two_builds_of_the_same_program_are_equal_byte_by_byte(
    dist: Path, archive: Path, tmp_path: Path
) -> None:
    again = make(dist, tmp_path / "again.tar")

    assert again.read_bytes() == archive.read_bytes()


def test_the_image_is_small_and_has_no_shell(unpacked: Path) -> None:
    files = [path for path in unpacked.rglob("*") if path.is_file() and not path.is_symlink()]

    assert sum(path.stat().st_size for path in files) <= MOST
    assert not {path.name for path in files} & SHELLS


def test_engines_of_both_kinds_find_the_same_layer_under_the_same_name(archive: Path) -> None:
    with tarfile.open(archive) as outer:

        def read(name: str) -> object:
            return json.load(outer.extractfile(name))  # type: ignore[arg-type]

        [docker] = read("manifest.json")  # type: ignore[misc]
        [oci] = read("index.json")["manifests"]  # type: ignore[index]
        manifest = read("blobs/" + oci["digest"].replace(":", "/"))
        sizes = {member.name: member.size for member in outer.getmembers()}

    [layer] = manifest["layers"]  # type: ignore[index]
    blob = "blobs/" + layer["digest"].replace(":", "/")
    assert docker["Layers"] == [blob]
    assert sizes[blob] == layer["size"]
    assert docker["RepoTags"] == [TAG]
    assert oci["annotations"]["io.containerd.image.name"] == TAG


def test_nft_of_the_image_loads_a_table(unpacked: Path) -> None:
    done = run(unpacked, "nft", "-f", "-", text="table inet own { set s { type ipv4_addr; }; }\n")

    assert (done.returncode, done.stderr) == (0, "")


def test_the_program_of_the_image_is_agent_ipamd_and_command_line(unpacked: Path) -> None:
    asked = [run(unpacked, "isthmus", *words, "--help") for words in (("agent",), ("ipamd",))]
    version = run(unpacked, "isthmus", "--version")

    assert [done.returncode for done in asked] == [0, 0]
    assert version.stdout.startswith("isthmus, version ")


def test_the_program_of_the_image_finds_its_launcher(unpacked: Path) -> None:
    done = run(unpacked, "isthmus", "install", "--root", "/tmp", "--no-program", "--no-start")

    assert done.returncode == 0, done.stderr
    assert (unpacked / "tmp/opt/cni/bin/isthmus").exists()


def test_packages_of_all_foreign_files_are_named_with_their_licences(unpacked: Path) -> None:
    named = {path.name for path in (unpacked / "var/lib/dpkg/status.d").iterdir()}

    assert {"libc6", "nftables"} <= named
    assert all((unpacked / "usr/share/doc" / name / "copyright").exists() for name in named)
