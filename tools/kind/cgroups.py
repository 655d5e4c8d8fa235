"""Control groups that a container engine's containers are made in, and their removal.

With cgroup version 1 each controller has a hierarchy of its own, and docker uses one path in all of
them.  Ours is below the group that the caller is in for its memory, so that the caller's
limits hold for the cluster too.

    unshare --mount python -m tools.kind.cgroups make|remove GROUPS...
"""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tools.kind.places import ROOT
from tools.kind.progress import run

# One for each checkout, whose engines would otherwise remove each other's groups.
NAME = f"isthmus-kind-{hashlib.sha256(bytes(ROOT)).hexdigest()[:8]}"
CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def hierarchies(mountinfo: str, having: str = "") -> tuple[Path, ...]:
    """Return where the text of /proc/self/mountinfo has hierarchies of control groups.

    *having* is an option of these mounts: "ro", as in many containers.  Field 5 is the mount point,
    6 its options; after a lone "-" comes the type of the file system (proc(5)).
    """
    found = []
    for line in mountinfo.splitlines():
        fields = line.split()
        is_one = fields[fields.index("-") + 1] in ("cgroup", "cgroup2")
        if is_one and (not having or having in fields[5].split(",")):
            found.append(Path(fields[4]))
    return tuple(found)


def own_group(cgroup: str) -> str:
    """Return the path of the group for memory in the text of /proc/self/cgroup (cgroups(7)).

    Where there is version 2 alone its one line, whose list of controllers is empty.
    """
    groups = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups.get("memory", groups.get("", "/"))


def directories(
    parent: str, mounts: Iterable[Path], existing: Iterable[Path] = ()
) -> tuple[Path, ...]:
    """Return what has to be made, parents first, so that *parent* is in each of *mounts*."""
    parts = PurePosixPath(parent).relative_to("/").parts
    paths = [mount.joinpath(*parts[: depth + 1]) for mount in mounts for depth in range(len(parts))]
    there = set(existing)
    return tuple(path for path in paths if path not in there)


def plan() -> tuple[str, tuple[Path, ...]]:
    """Return docker's --cgroup-parent on this machine, and the directories that lack for it."""
    parent = f"{own_group(Path('/proc/self/cgroup').read_text()).rstrip('/')}/{NAME}"
    mounts = hierarchies(Path("/proc/self/mountinfo").read_text())
    wanted = directories(parent, mounts)
    return parent, directories(parent, mounts, (path for path in wanted if path.exists()))


def make(groups: Iterable[Path]) -> None:
    """Make the groups; a new one of cpuset may use nothing until it is told what its parent may."""
    for group in groups:
        group.mkdir(exist_ok=True)
        for name in CPUSET_FILES:
            if (file := group / name).exists() and not file.read_text().strip():
                file.write_text((group.parent / name).read_text())


def remove(groups: Iterable[Path], seconds: float = 10) -> None:
    """Remove the groups and all below them; OSError for one whose processes do not end.

    What only leads to another of them stays where somebody else has groups in it meanwhile.
    """
    deadline = time.monotonic() + seconds
    made = sorted(groups, reverse=True)
    leading = {group.parent for group in made}
    for group in made:
        if group in leading:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        for inner, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                _remove_when_empty(Path(inner), deadline)


def _remove_when_empty(group: Path, deadline: float) -> None:
    # The kernel empties a group a moment after it has killed what was in it.
    while True:
        try:
            return group.rmdir()
        except FileNotFoundError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def main() -> None:
    """Make or remove groups, in a mount namespace in which all hierarchies may become writable."""
    verb, *groups = sys.argv[1:]
    for mount in hierarchies(Path("/proc/self/mountinfo").read_text(), "ro"):
        run("mount", "-o", "remount,bind,rw", mount)
    {"make": make, "remove": remove}[verb](map(Path, groups))


if __name__ == "__main__":
    main()
