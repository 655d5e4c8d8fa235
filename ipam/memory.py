"""What one ipamd keeps of the store, to notice one that was rolled back, wiped or exchanged."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ipam.errors import StoreDamaged, StoreUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """*revision* and *counter* are the highest seen; *counter* is the claim counter's version."""

    cluster_id: int
    generation: str
    revision: int
    counter: int


@contextlib.contextmanager
def kept_from_others(state_dir: Path) -> Iterator[None]:
    """Hold *state_dir* for this process during the block.

    Two that share one memory would each forget what the other saw.  Raises StoreUnavailable.
    """
    path = state_dir / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreUnavailable(f"cannot open {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(fd)
        raise StoreUnavailable(
            f"state_dir {state_dir} is in use by another ipamd: each needs one of its own"
        ) from exc
    try:
        yield
    finally:
        os.close(fd)


class DaemonMemory:
    """One small JSON file, replaced whole and synced before `keep` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Remembered | None:
        """Return what was kept, None if nothing ever was.

        Raises StoreDamaged where the file is not ours: to go on as without memory, a person
        removes it.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise StoreDamaged(f"cannot read {self._path}: {exc}") from exc
        try:
            kept = Remembered(**json.loads(text))
        except (ValueError, TypeError) as exc:
            raise StoreDamaged(f"{self._path} is not what ipamd wrote: {exc}") from exc
        numbers = (kept.cluster_id, kept.revision, kept.counter)
        if not all(type(one) is int for one in numbers) or type(kept.generation) is not str:
            raise StoreDamaged(f"{self._path} is not what ipamd wrote: {text}")
        return kept

    def keep(self, remembered: Remembered) -> None:
        """Make it durable.  Raises StoreUnavailable."""
        new = self._path.with_name(self._path.name + ".new")
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump(asdict(remembered), file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            self._sync_directory()
        except OSError as exc:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise StoreUnavailable(f"cannot write {self._path}: {exc}") from exc

    def _sync_directory(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
