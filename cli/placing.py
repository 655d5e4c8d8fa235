"""The manifest of what was put on a host, and how it is taken away again."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.placement import place, sync_directory

SAVED = ".isthmus-saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One file we put: what it held, and under which name what was there before is kept.

    Paths are as the installed host sees them, without the root they were staged below.
    """

    path: str
    sha256: str
    saved: str = ""


@dataclass(slots=True)
class Manifest:
    """All that was put on the host, in the order in which it was put."""

    files: list[Placed] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)

    def add(self, placed: Placed) -> None:
        """Record *placed*; what was saved when it was first put stays recorded."""
        before = next((one for one in self.files if one.path == placed.path), None)
        if before is not None:
            self.files.remove(before)
            placed = Placed(
                path=placed.path, sha256=placed.sha256, saved=before.saved or placed.saved
            )
        self.files.append(placed)


def read_manifest(path: Path) -> Manifest:
    """The manifest at *path*, empty where there is none or where it is damaged."""
    try:
        stored: dict[str, Any] = json.loads(path.read_bytes())
        return Manifest(
            files=[Placed(**one) for one in stored["files"]],
            directories=[str(one) for one in stored["directories"]],
        )
    except (OSError, ValueError, TypeError, KeyError):
        return Manifest()


def write_manifest(path: Path, manifest: Manifest) -> None:
    place(path, json.dumps(asdict(manifest), indent=2).encode() + b"\n", 0o600)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_of(path: Path) -> str | None:
    """The hash of the file at *path*, or None where there is none."""
    try:
        return digest(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_directories(path: Path) -> list[Path]:
    """Make *path* and its parents; return those that were not there."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for one in reversed(missing):
        one.mkdir(mode=0o755)
    return missing


def take_away(path: Path, saved: Path | None) -> None:
    """Remove the file at *path*, and put back what was *saved* when it was put; idempotent."""
    path.unlink(missing_ok=True)
    if saved is not None:
        with suppress(FileNotFoundError):
            saved.rename(path)
    if path.parent.is_dir():
        sync_directory(path.parent)


def remove_empty(directories: Iterable[Path]) -> None:
    """Remove those directories that hold nothing, the innermost first."""
    for one in sorted(directories, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):
            one.rmdir()
