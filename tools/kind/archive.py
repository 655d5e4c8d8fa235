"""Container images without a registry: docker-archives, equal byte for byte for equal content.

The format is that of `docker save`: a tar with each layer as a tar, the image's configuration, and
manifest.json, which names them (OCI image specification, and moby's image/spec v1.2).
"""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = "1970-01-01T00:00:00Z"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link within an image."""

    target: str


# What a layer has under a name: a file or folder of this machine, bytes, or a link.
Content = Path | bytes | Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image: every tag it goes by, what each layer adds, how it is started."""

    tags: tuple[str, ...]
    layers: tuple[Mapping[str, Content], ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = (PATH,)
    working_directory: str = "/"


@dataclass(slots=True)
class Layers:
    """Layers as files, each written once however many images share it."""

    directory: Path
    written: dict[int, tuple[Path, str]] = field(default_factory=dict)

    def write(self, content: Mapping[str, Content]) -> tuple[Path, str]:
        """Return the compressed layer and the digest of what is compressed in it."""
        if id(content) not in self.written:
            path = self.directory / f"{len(self.written)}.tar.gz"
            self.written[id(content)] = (path, _write_layer(path, content))
        return self.written[id(content)]


def tree(directory: Path, leave_out: Iterable[str] = ()) -> dict[str, Content]:
    """Return a folder and all below it as a layer, without what begins with *leave_out*."""
    prefixes = tuple(leave_out)
    names = ((path.relative_to(directory).as_posix(), path) for path in directory.rglob("*"))
    return {name: path for name, path in names if not f"{name}/".startswith(prefixes)}


def write(archive: Path, images: Iterable[Image]) -> None:
    """Write *images* to one docker-archive, which appears whole or not at all."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=archive.parent, prefix=".archive-") as scratch:
        layers = Layers(Path(scratch))
        unfinished = Path(scratch, "archive.tar")
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as tar:
            manifest = [_add_image(tar, image, layers) for image in images]
            _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
        unfinished.rename(archive)


def _add_image(tar: tarfile.TarFile, image: Image, layers: Layers) -> dict[str, object]:
    written = [layers.write(content) for content in image.layers]
    for path, digest in written:
        name = f"{digest}.tar.gz"
        if name not in tar.getnames():
            with path.open("rb") as file:
                tar.addfile(_member(name, path.stat().st_size), file)
    digests = [digest for _, digest in written]
    config = json.dumps(_configuration(image, digests), sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    _add_bytes(tar, config_name, config)
    names = [f"{digest}.tar.gz" for digest in digests]
    return {"Config": config_name, "RepoTags": list(image.tags), "Layers": names}


def _configuration(image: Image, digests: list[str]) -> dict[str, object]:
    return {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": EPOCH,
        "config": {
            "Entrypoint": list(image.entrypoint),
            "Cmd": list(image.command),
            "Env": list(image.environment),
            "WorkingDir": image.working_directory,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": EPOCH, "created_by": "isthmus"} for _ in digests],
    }


class _Hashed(io.BytesIO):
    """Writes through to a file and hashes on the way."""

    def __init__(self, file: gzip.GzipFile) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: "ReadableBuffer") -> int:
        self.digest.update(data)
        return self._file.write(data)


def _write_layer(path: Path, content: Mapping[str, Content]) -> str:
    # The fastest compression: layers are read once, by a machine that sits beside this one.
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
    ):
        hashed = _Hashed(packed)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name, item in sorted(_with_folders(content).items()):
                _add(tar, name, item)
        return hashed.digest.hexdigest()


def _with_folders(content: Mapping[str, Content]) -> dict[str, Content | None]:
    # None is a folder nobody named: runtimes differ in what they make of one that is missing.
    folders: dict[str, Content | None] = {
        parent.as_posix(): None
        for name in content
        for parent in Path(name).parents
        if parent != Path()
    }
    return folders | dict(content)


def _add(tar: tarfile.TarFile, name: str, item: Content | None) -> None:
    if isinstance(item, bytes):
        return _add_bytes(tar, name, item)
    if isinstance(item, Path):
        return _add_path(tar, name, item)
    member = _member(name)
    if item is None:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    else:
        member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, item.target
    tar.addfile(member)


def _add_path(tar: tarfile.TarFile, name: str, path: Path) -> None:
    # tarfile would make a hard link of a file it has already seen under another name.
    tar.inodes = {}  # type: ignore[attr-defined]
    member = tar.gettarinfo(path, name)
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    if not member.isreg():
        return tar.addfile(member)
    with path.open("rb") as file:
        tar.addfile(member, file)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
