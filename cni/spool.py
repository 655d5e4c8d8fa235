"""Deletions that wait for the agent: one file each, a request frame verbatim.

The launcher (launcher/spool.c) writes one when no agent does its DEL; so does whoever in Python
cannot do one now.  An entry is durable when its writer reports success: temporary file, fsync,
rename, fsync of the directory.  Several entries may name one attachment; removing an entry
twice, or beside another reader, is harmless.
"""

import itertools
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cni.errors import CNIError, ErrorCode
from cni.frames import (
    HEADER_SIZE,
    MAX_BODY,
    FrameError,
    encode_request,
    parse_body,
    parse_header,
)
from cni.request import Request

log = logging.getLogger(__name__)

MAX_ENTRIES = 10_000
_ENTRY, _TEMPORARY, _DAMAGED = ".del", ".tmp-", ".bad"


@dataclass(frozen=True, slots=True)
class Entry:
    """One deletion that waits."""

    path: Path
    request: Request = field(repr=False)


class Spool:
    """The directory of waiting deletions, absent until the first one."""

    def __init__(self, directory: Path, *, limit: int = MAX_ENTRIES) -> None:
        self.directory = directory
        self._limit = limit
        self._added = itertools.count()

    def waiting(self) -> int:
        """How many entries there are, at the cost of one scan."""
        return len(self._files(_ENTRY))

    def pending(self) -> list[Entry]:
        """Read the entries, earliest start first; damaged ones are set aside with a warning.

        Costs one scan of the directory when there are none.  Raises OSError when the directory
        is there but cannot be read.
        """
        entries = [
            Entry(path, request)
            for path in self._files(_ENTRY)
            if (request := self._read(path)) is not None
        ]
        return sorted(entries, key=lambda entry: (entry.request.started_ns, entry.path))

    def add(self, request: Request) -> None:
        """Keep *request*, a DEL, durably.

        Raises CNIError 11 naming path and reason, and leaves nothing behind then.
        """
        name = f"{request.started_ns:020d}-{os.getpid()}-{next(self._added)}"
        temporary = self.directory / f"{_TEMPORARY}{name}"
        with self._refusals():
            self._make_directory()
            if self.waiting() >= self._limit:
                raise _refusal(self.directory, f"{self._limit} deletions wait already")
            try:
                _write_durably(temporary, encode_request(replace(request, netns_fd=None)))
                temporary.rename(self.directory / f"{name}{_ENTRY}")
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_directory(self.directory)

    def remove(self, entry: Entry) -> None:
        """Forget an entry whose deletion is durable elsewhere; idempotent.  Raises OSError."""
        entry.path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            _sync_directory(self.directory)

    def tidy(self, now: float, *, age: float = 600.0) -> None:
        """Remove what writers that died left behind: temporary files *age* seconds old.

        *now* is in seconds since the epoch, as modification times are.  Raises OSError.
        """
        for path in self._files("", prefix=_TEMPORARY):
            with suppress(FileNotFoundError):
                if now - path.lstat().st_mtime >= age:
                    path.unlink()

    def _files(self, suffix: str, *, prefix: str = "") -> list[Path]:
        try:
            with os.scandir(self.directory) as found:
                return [
                    Path(each.path)
                    for each in found
                    if each.name.endswith(suffix) and each.name.startswith(prefix)
                ]
        except FileNotFoundError:
            return []

    def _read(self, path: Path) -> Request | None:
        try:
            return _parse(_read_regular(path))
        except FileNotFoundError:
            return None  # another reader was quicker
        except FrameError as damage:
            log.warning("damaged deletion set aside", extra={"path": str(path), "why": str(damage)})
            with suppress(FileNotFoundError):
                path.rename(f"{path}{_DAMAGED}")
        except OSError as failure:
            log.warning("unreadable deletion", extra={"path": str(path), "why": str(failure)})
        return None

    def _make_directory(self) -> None:
        with suppress(FileExistsError):
            self.directory.mkdir(mode=0o700)
        # Even when it was there: whoever made it may not have come so far.
        _sync_directory(self.directory.parent)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as failure:
            path = failure.filename or self.directory
            raise _refusal(path, failure.strerror or str(failure)) from failure
        except FrameError as failure:
            raise _refusal(self.directory, str(failure)) from failure


def _refusal(path: object, reason: str) -> CNIError:
    return CNIError(
        ErrorCode.TRY_AGAIN_LATER, "the deletion cannot be kept for later", f"{path}: {reason}"
    )


def _parse(data: bytes) -> Request:
    header = parse_header(data[:HEADER_SIZE])
    request = parse_body(header, data[HEADER_SIZE:])
    command = request.environment.get("CNI_COMMAND", "")
    if command != "DEL":
        raise FrameError(f"CNI_COMMAND is {command!r}, not 'DEL'")
    return request


def _read_regular(path: Path) -> bytes:
    # Something else than a file, put there by hand, must not hang the agent.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise FrameError("not a regular file")
    with path.open("rb") as file:
        return file.read(HEADER_SIZE + MAX_BODY + 1)


def _write_durably(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
