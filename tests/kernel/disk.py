"""A directory as power loss may leave it: recorded by strace, replayed op by op.

What a program did to a file is in the page cache until it syncs that file, and what it did to
names is there until it syncs the directory (fsync(2)).  What was not synced may be lost, kept, or
kept in part: a write may be torn at any byte, later writes may be there without earlier ones.
Journals keep changes of names in their order, so of those a beginning is kept.
"""

import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from pathlib import Path

CALLS = (
    "open,openat,mkdir,mkdirat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,"
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,ftruncate,truncate,fallocate,link,linkat,"
    "symlink,symlinkat,sendfile,copy_file_range"
)
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<at>\d+\.\d+) (?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_BYTES = r"((?:\\x[0-9a-f]{2})*)"
_PATH_OF_DESCRIPTOR = re.compile(rf"<{_BYTES}>(\(deleted\))?")
_STRING = re.compile(rf'"{_BYTES}"(\.\.\.)?')
_UNFINISHED = " <unfinished ...>"


class Kind(StrEnum):
    """What one call changes."""

    CREATE = "create"
    MAKE_DIRECTORY = "mkdir"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    RENAME = "rename"
    UNLINK = "unlink"


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One call that succeeded; *at* is in seconds since the epoch."""

    at: float
    kind: Kind
    path: str
    offset: int = 0
    data: bytes = field(default=b"", repr=False)
    target: str = ""


def strace(trace: Path) -> list[str]:
    """What to put before a program to have it recorded."""
    return ["strace", "-f", "-q", "-ttt", "-y", "-xx", "-s", "4000000",
            "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace)]  # fmt: skip


def tracer_of(pid: int) -> int:
    """The strace of a running program."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("TracerPid:")[2].split()[0])


def is_over(tracer: int) -> bool:
    """Whether it has written down everything: it is gone, but for its parent to notice."""
    try:
        return Path(f"/proc/{tracer}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def read(traces: Iterable[Path], root: Path) -> list[Op]:
    """What the traced programs did to files below *root*, in the order of time."""
    found = [op for trace in traces for op in _Reader(str(root)).ops(trace)]
    return sorted(found, key=lambda op: op.at)


_NAMING = {
    "mkdir": Kind.MAKE_DIRECTORY,
    "mkdirat": Kind.MAKE_DIRECTORY,
    "unlink": Kind.UNLINK,
    "unlinkat": Kind.UNLINK,
}


class _Reader:
    """One trace; several threads' calls are put together again."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._unfinished: dict[str, str] = {}
        self._positions: dict[str, int] = {}

    def ops(self, trace: Path) -> Iterator[Op]:
        for line in trace.read_text().splitlines():
            parts = _LINE.match(line)
            if not parts:
                continue
            rest, pid = parts["rest"], parts["pid"]
            if rest.endswith(_UNFINISHED):
                self._unfinished[pid] = rest.removesuffix(_UNFINISHED)
                continue
            if resumed := _RESUMED.match(rest):
                rest = self._unfinished.pop(pid) + resumed["rest"]
            call = _CALL.match(rest)
            if call and int(call["result"]) >= 0:
                yield from self._op(float(parts["at"]), call)

    def _op(self, at: float, call: re.Match[str]) -> Iterator[Op]:
        arguments = call["arguments"]
        at_descriptors = _PATH_OF_DESCRIPTOR.findall(arguments)
        strings = [_decoded(text) for text, _ in _STRING.findall(arguments)]
        if any(deleted for _, deleted in at_descriptors):
            return  # a file without a name: power loss ends it
        descriptors = [os.fsdecode(_decoded(text)) for text, _ in at_descriptors]
        yield from self._ours(self._changes(at, call, descriptors, strings))

    def _changes(
        self, at: float, call: re.Match[str], descriptors: Sequence[str], strings: Sequence[bytes]
    ) -> list[Op]:
        name, arguments = call["name"], call["arguments"]
        if name in ("open", "openat"):
            path = _joined(descriptors, strings[0])
            self._positions[path] = 0
            kinds = {"O_CREAT": Kind.CREATE, "O_TRUNC": Kind.TRUNCATE}
            return [
                Op(at=at, kind=kind, path=path) for flag, kind in kinds.items() if flag in arguments
            ]
        if name in ("write", "pwrite64"):
            return [self._write(at, name, descriptors[0], call, strings[0])]
        if name in ("rename", "renameat", "renameat2"):
            source, target = (_joined(descriptors[i : i + 1], strings[i]) for i in (0, 1))
            return [Op(at=at, kind=Kind.RENAME, path=source, target=target)]
        if name == "ftruncate":
            length = int(arguments.rpartition(",")[2])
            return [Op(at=at, kind=Kind.TRUNCATE, path=descriptors[0], offset=length)]
        if name in ("fsync", "fdatasync"):
            return [Op(at=at, kind=Kind.SYNC, path=descriptors[0])]
        if name in _NAMING:
            return [Op(at=at, kind=_NAMING[name], path=_joined(descriptors, strings[0]))]
        paths = [*descriptors, *map(os.fsdecode, strings)]
        assert not any(path.startswith(self._root) for path in paths), f"not understood: {name}"
        return []

    def _write(self, at: float, name: str, path: str, call: re.Match[str], data: bytes) -> Op:
        data = data[: int(call["result"])]
        if name == "pwrite64":
            offset = int(call["arguments"].rpartition(",")[2])
        else:
            offset = self._positions.get(path, 0)
            self._positions[path] = offset + len(data)
        return Op(at=at, kind=Kind.WRITE, path=path, offset=offset, data=data)

    def _ours(self, ops: Iterable[Op]) -> Iterator[Op]:
        return (op for op in ops if op.path.startswith(f"{self._root}/") or op.path == self._root)


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _joined(directory: Sequence[str], name: bytes) -> str:
    return os.path.join(*directory[:1], os.fsdecode(name))


Names = dict[str, int]


@dataclass(slots=True)
class _File:
    """Content as synced, and what was done to it since."""

    synced: bytes = b""
    pending: list[Op] = field(default_factory=list)

    def content(self, kept: Iterable[Op]) -> bytes:
        data = bytearray(self.synced)
        for op in kept:
            if op.kind is Kind.TRUNCATE:
                data[op.offset :] = bytes(max(0, op.offset - len(data)))
                continue
            data += bytes(max(0, op.offset - len(data)))
            data[op.offset : op.offset + len(op.data)] = op.data
        return bytes(data)


class Disk:
    """The directory *root* while a recording is replayed: as programs see it, and as synced."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._numbers = count()
        self._files: dict[int, _File] = {}
        self._seen: Names = {}
        self._synced: Names = {}
        self._pending: dict[str, list[Op]] = {}  # changes of names, by directory
        self._made: dict[Op, int] = {}  # the file of each creation

    def apply(self, op: Op) -> None:
        """Do what *op* did."""
        match op.kind:
            case Kind.CREATE | Kind.MAKE_DIRECTORY:
                if op.path not in self._seen:
                    self._made[op] = next(self._numbers)
                    self._files[self._made[op]] = _File()
                    self._change(op)
            case Kind.RENAME | Kind.UNLINK:
                self._change(op)
            case Kind.WRITE | Kind.TRUNCATE:
                if op.path in self._seen:
                    self._files[self._seen[op.path]].pending.append(op)
            case Kind.SYNC:
                self._sync(op.path)

    def images(self, dice: random.Random) -> Iterator[dict[str, bytes]]:
        """Contents by name as power loss now may leave them: the extremes, and two by chance."""
        yield self._image(self._synced, {})
        everything = {number: file.pending for number, file in self._files.items()}
        yield self._image(self._seen, everything)
        for _ in range(2):
            names = dict(self._synced)
            for pending in self._pending.values():
                for op in pending[: dice.randint(0, len(pending))]:
                    self._rename(names, op)
            kept = {number: _some(file.pending, dice) for number, file in self._files.items()}
            yield self._image(names, kept)

    def torn(self, dice: random.Random) -> Iterator[dict[str, bytes]]:
        """The same with all kept but for the last write, of which there is a beginning."""
        for number, file in self._files.items():
            if file.pending and file.pending[-1].kind is Kind.WRITE and file.pending[-1].data:
                kept = {number: each.pending for number, each in self._files.items()}
                kept[number] = [*file.pending[:-1], _beginning(file.pending[-1], dice)]
                yield self._image(self._seen, kept)

    def _change(self, op: Op) -> None:
        self._rename(self._seen, op)
        self._pending.setdefault(os.path.dirname(op.path), []).append(op)

    def _rename(self, names: Names, op: Op) -> None:
        match op.kind:
            case Kind.CREATE | Kind.MAKE_DIRECTORY:
                names[op.path] = self._made[op]
            case Kind.UNLINK:
                names.pop(op.path, None)
            case _:
                if op.path in names:
                    names[op.target] = names.pop(op.path)

    def _sync(self, path: str) -> None:
        for op in self._pending.pop(path, []):
            self._rename(self._synced, op)
        if path in self._seen:
            file = self._files[self._seen[path]]
            file.synced, file.pending = file.content(file.pending), []

    def _image(self, names: Names, kept: dict[int, list[Op]]) -> dict[str, bytes]:
        # A name is there only if that of its directory is.
        there = {path for path in names if self._reached(os.path.dirname(path), names)}
        return {
            os.path.relpath(path, self._root): self._files[names[path]].content(
                kept.get(names[path], [])
            )
            for path in there
        }

    def _reached(self, directory: str, names: Names) -> bool:
        return directory == self._root or directory in names


def _some(pending: Sequence[Op], dice: random.Random) -> list[Op]:
    kept = [op for op in pending if dice.random() < 0.6]
    if kept and kept[-1].data and dice.random() < 0.5:
        kept[-1] = _beginning(kept[-1], dice)
    return kept


def _beginning(op: Op, dice: random.Random) -> Op:
    length = dice.randrange(len(op.data))
    return Op(at=op.at, kind=op.kind, path=op.path, offset=op.offset, data=op.data[:length])
