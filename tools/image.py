#!/usr/bin/env python3
"""Write build/isthmus-image.tar: the container image, without a registry or a container engine.

    tools/image.py [--dist DIRECTORY] [--output FILE] [--tag NAME:TAG] [--unpacked DIRECTORY]

The image is the frozen program (tools/dist.sh), the launcher, and nft, with every library they
load, and no shell.  What is not ours are files of this host's Debian packages, whose names,
versions and licences go along.  The archive is an OCI layout that also has what `docker load`
reads, so containerd, docker, podman and skopeo take it alike.  Equal inputs give equal bytes.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path("/opt/isthmus")
TOOLS = ("/usr/sbin/nft",)
LIMIT = 120 << 20
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MERGED = ("bin", "lib", "lib64", "sbin")  # links into /usr, as Debian has them
_DIRECTORY, _EXECUTABLE, _FILE = 0o755, 0o755, 0o644
# glibc has both services built in; without nsswitch.conf it would not ask /etc/hosts first.
_OURS = {
    "/etc/passwd": b"root:x:0:0:root:/root:/usr/sbin/nologin\n",
    "/etc/group": b"root:x:0:\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of the layer: a file's *content*, a link's *target*, or else a directory."""

    mode: int
    content: bytes | None = None
    target: str = ""


Tree = dict[str, Entry]


class Failed(Exception):
    """The image cannot be made; the message says why."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the container image.")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--output", type=Path, default=ROOT / "build/isthmus-image.tar")
    parser.add_argument("--tag", default=f"localhost/isthmus:{version()}")
    parser.add_argument("--unpacked", type=Path, help="write its files there, and no archive")
    options = parser.parse_args()
    try:
        tree = collect(options.dist)
        if options.unpacked:
            unpack(layer(tree), options.unpacked)
            return 0
        size = sum(len(entry.content or b"") for entry in tree.values())
        if size > LIMIT:
            raise Failed(f"{size >> 20} MB unpacked: more than the {LIMIT >> 20} MB it may have")
        digest = write(options.output, layer(tree), options.tag)
    except Failed as exc:
        print(f"image: {exc}", file=sys.stderr)
        return 1
    print(f"{options.output}: {options.tag}, {size / 1e6:.1f} MB unpacked, {digest}")
    return 0


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def collect(dist: Path) -> Tree:
    """Everything in the image.  Raises Failed for what is not there."""
    program, launcher = dist / "isthmus", dist / "isthmus-launcher"
    for needed in (program / "isthmus", launcher, *map(Path, TOOLS)):
        if not os.access(needed, os.X_OK):
            raise Failed(f"{needed} is missing: make dist, and the packages of tools/setup.sh")
    tree = {path: Entry(_FILE, content) for path, content in _OURS.items()}
    tree |= {f"/{name}": Entry(0o777, target=f"usr/{name}") for name in _MERGED}
    tree["/tmp"] = Entry(0o1777)
    for path in sorted(program.rglob("*")):
        place = str(PROGRAM / path.relative_to(program))
        if path.is_symlink():
            tree[place] = Entry(0o777, target=os.readlink(path))
        elif path.is_file():
            tree[place] = of_file(path)
    tree[f"{PROGRAM}-launcher"] = of_file(launcher)
    tree["/usr/bin/isthmus"] = Entry(0o777, target=f"{PROGRAM}/isthmus")
    system = system_files(program)
    tree |= {path: of_file(Path(path)) for path in system}
    tree |= packages(system)
    return tree


def of_file(path: Path) -> Entry:
    executable = os.access(path, os.X_OK)
    return Entry(_EXECUTABLE if executable else _FILE, path.read_bytes())


def system_files(program: Path) -> list[str]:
    """The tools, and all libraries of the system that they and the *program* load."""
    inside = program / "_internal"
    # The program itself is what lets the rest find the libraries beside it.
    alone = [*map(Path, TOOLS), program / "isthmus"]
    beside = [path for path in inside.rglob("*") if path.is_file() and is_elf(path)]
    found = set(TOOLS)
    for path in alone:
        found |= libraries(path, dict(os.environ))
    for path in beside:
        found |= libraries(path, os.environ | {"LD_LIBRARY_PATH": str(inside)})
    return sorted({in_usr(path) for path in found if not path.startswith(str(inside))})


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(path: Path, environment: dict[str, str]) -> set[str]:
    """Paths of what the loader loads for *path* (ldd).  Raises Failed for one it does not find."""
    done = subprocess.run(
        ["ldd", path], capture_output=True, text=True, env=environment, check=False
    )
    for line in done.stdout.splitlines():
        if "not found" in line:
            raise Failed(f"{path} needs {line.split()[0]}, which is not installed here")
    return {word for word in done.stdout.split() if word.startswith("/")}


def in_usr(path: str) -> str:
    """*path* as the package's files are placed: below /usr, where /lib is a link to."""
    return f"/usr{path}" if path.split("/")[1] in _MERGED else path


def packages(files: Iterable[str]) -> Tree:
    """What says from which Debian packages *files* are: for people, and for scanners.

    Scanners of images read /var/lib/dpkg/status.d, a file each package.
    """
    tree: Tree = {}
    for name in sorted({package_of(path) for path in files}):
        plain = name.partition(":")[0]
        status = run(["dpkg-query", "--status", name])
        tree[f"/var/lib/dpkg/status.d/{plain}"] = Entry(_FILE, status.encode())
        licence = Path("/usr/share/doc", plain, "copyright")
        if licence.exists():
            tree[str(licence)] = Entry(_FILE, licence.read_bytes())
    return tree


def package_of(path: str) -> str:
    """The package that installed *path*, which dpkg may know by its place before /usr."""
    for known in (path, path.removeprefix("/usr")):
        done = subprocess.run(["dpkg", "-S", known], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.partition(": ")[0].split(",")[0]
    raise Failed(f"{path} is of no Debian package: what is in the image must be traceable")


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def layer(tree: Tree) -> bytes:
    """The one layer: sorted, owned by root, without times."""
    whole = dict(tree)
    for path in tree:
        for parent in Path(path).parents[:-1]:
            whole.setdefault(str(parent), Entry(_DIRECTORY))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, entry in sorted(whole.items()):
            member = tarfile.TarInfo(path.lstrip("/"))
            member.mode = entry.mode
            if entry.target:
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
            elif entry.content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(entry.content)
            archive.addfile(member, io.BytesIO(entry.content or b""))
    return buffer.getvalue()


def unpack(content: bytes, directory: Path) -> None:
    # Not by extractall: its filter is newer than Debian 12's Python, and newer ones warn without.
    subprocess.run(["tar", "--extract", "--directory", directory], input=content, check=True)


def write(output: Path, content: bytes, tag: str) -> str:
    """Write the archive with its one layer; returns the digest of the image's manifest."""
    layer_digest = sha256(content)
    architecture = _ARCHITECTURES[os.uname().machine]
    config = to_json(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [f"{PROGRAM}/isthmus"],
                "Env": ["PATH=/usr/sbin:/usr/bin", "MALLOC_ARENA_MAX=1"],
                "Labels": {"org.opencontainers.image.version": version()},
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created_by": "tools/image.py"}],
        }
    )
    oci = "application/vnd.oci.image"
    manifest = to_json(
        {
            "schemaVersion": 2,
            "mediaType": f"{oci}.manifest.v1+json",
            "config": descriptor(f"{oci}.config.v1+json", config),
            "layers": [descriptor(f"{oci}.layer.v1.tar", content)],
        }
    )
    names = {
        "io.containerd.image.name": tag,
        "org.opencontainers.image.ref.name": tag.rpartition(":")[2],
    }
    index = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.index.v1+json",
        "manifests": [
            descriptor(f"{oci}.manifest.v1+json", manifest)
            | {"annotations": names, "platform": {"architecture": architecture, "os": "linux"}}
        ],
    }
    docker = [{"Config": blob(config), "RepoTags": [tag], "Layers": [blob(content)]}]
    members = {blob(each): each for each in (config, manifest, content)} | {
        "index.json": to_json(index),
        "manifest.json": to_json(docker),
        "oci-layout": to_json({"imageLayoutVersion": "1.0.0"}),
    }
    tree = {name: Entry(_FILE, each) for name, each in members.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f"{output.name}.new")
    temporary.write_bytes(layer(tree))
    temporary.rename(output)
    return f"sha256:{sha256(manifest)}"


def descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{sha256(content)}",
        "size": len(content),
    }


def blob(content: bytes) -> str:
    return f"blobs/sha256/{sha256(content)}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def to_json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


if __name__ == "__main__":
    sys.exit(main())
