"""Files that the agent puts where runtimes look, on a node that gets it as a container.

The plugin is put before anything else, the network list once an ADD can be served: a runtime
without STATUS calls the plugin, and calls the node ready, from that moment on.  Both stay when
the agent ends: without them no pod could be deleted, and none started during an upgrade.

A file is written under a temporary name in its own directory, synced, given its mode, and
renamed: a runtime that execs the old binary keeps it ("text file busy" cannot happen), and
one that watches the directory of configurations is told by the rename, which it is not for a
rename from elsewhere (containerd#11715).  The temporary suffix is none that runtimes load.
"""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

PLUGINS = ("isthmus", "isthmus-ipam")
_TEMPORARY = ".isthmus-new"
_LISTS = (".conf", ".conflist", ".json")  # what libcni loads


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallConfig:
    """What is put where: *launcher* into *bin_dir*, *network_list* under its name in *conf_dir*."""

    network_list: Path
    launcher: Path = Path("/opt/isthmus-launcher")
    bin_dir: Path = Path("/opt/cni/bin")
    conf_dir: Path = Path("/etc/cni/net.d")


class Placement:
    """Puts what differs, as often as it is asked to."""

    def __init__(self, config: InstallConfig) -> None:
        self._config = config
        self._in_the_way = ""

    def put_plugins(self) -> None:
        """Raises OSError."""
        content = self._config.launcher.read_bytes()
        for name in PLUGINS:
            _put(self._config.bin_dir / name, content, 0o755)

    def put_network_list(self) -> None:
        """Raises OSError."""
        source = self._config.network_list
        _put(self._config.conf_dir / source.name, source.read_bytes(), 0o644)
        self._look_for_others()

    def _look_for_others(self) -> None:
        """Runtimes take the first list of the directory: say once where that is not ours."""
        found = (path for path in self._config.conf_dir.iterdir() if path.suffix in _LISTS)
        first = min(found, key=lambda path: path.name)
        in_the_way = "" if first.name == self._config.network_list.name else str(first)
        if in_the_way not in ("", self._in_the_way):
            log.warning(
                "another network list comes before ours: runtimes take that one; remove it",
                extra={"path": in_the_way},
            )
        self._in_the_way = in_the_way


def _put(path: Path, content: bytes, mode: int) -> None:
    with suppress(FileNotFoundError):
        if path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    place(path, content, mode)
    log.info("put", extra={"path": str(path)})


def place(path: Path, content: bytes, mode: int) -> None:
    """Put *content* at *path* atomically and durably; its directory exists."""
    temporary = path.with_name(path.name + _TEMPORARY)
    with suppress(FileNotFoundError):
        temporary.unlink()  # what an interrupted attempt left
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in the directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
