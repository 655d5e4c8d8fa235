"""Which control groups are made, and that they go again."""

from pathlib import Path

import pytest

from tools.kind import cgroups

MOUNTINFO = """\
24 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
33 31 0:28 / /sys/fs/cgroup/unified ro,relatime - cgroup2 cgroup2 rw
"""


def test_hierarchies_are_what_is_mounted_as_one() -> None:
    found = cgroups.hierarchies(MOUNTINFO)

    assert found == (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified"))


def test_hierarchies_that_are_read_only_where_they_are_mounted_are_found() -> None:
    found = cgroups.hierarchies(MOUNTINFO, "ro")

    assert found == (Path("/sys/fs/cgroup/unified"),)


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/\n", "/a/b"),
        ("0::/user.slice/a\n", "/user.slice/a"),
        ("", "/"),
    ],
)
def test_the_own_group_is_that_of_memory_or_the_only_one(text: str, group: str) -> None:
    assert cgroups.own_group(text) == group


def test_a_group_is_made_in_every_hierarchy_parents_first() -> None:
    mounts = (Path("/g/cpu"), Path("/g/memory"))

    made = cgroups.directories("/a/b", mounts, existing=(Path("/g/memory/a"),))

    assert made == (Path("/g/cpu/a"), Path("/g/cpu/a/b"), Path("/g/memory/a/b"))


def test_a_new_cpuset_may_use_what_its_parent_may(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for group, cpus in ((tmp_path, "0-1\n"), (tmp_path / "new", "\n")):
        for name in cgroups.CPUSET_FILES:
            (group / name).write_text(cpus)

    cgroups.make([tmp_path / "new"])

    assert [(tmp_path / "new" / name).read_text() for name in cgroups.CPUSET_FILES] == ["0-1\n"] * 2


def test_groups_of_another_beside_ours_stay(tmp_path: Path) -> None:
    (tmp_path / "shared/ours/inner").mkdir(parents=True)
    (tmp_path / "shared/theirs/inner").mkdir(parents=True)

    cgroups.remove([tmp_path / "shared", tmp_path / "shared/ours"])

    assert (tmp_path / "shared/theirs/inner").exists()
    assert not (tmp_path / "shared/ours").exists()


def test_what_was_made_is_removed_with_all_below_it_and_nothing_above(tmp_path: Path) -> None:
    (tmp_path / "above/ours/docker/node").mkdir(parents=True)

    cgroups.remove([tmp_path / "above/ours", tmp_path / "never made"])

    assert [path.name for path in tmp_path.rglob("*")] == ["above"]


def test_a_group_that_stays_in_use_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/tasks").write_text("17\n")  # as a process would, it keeps the folder

    with pytest.raises(OSError, match="ours"):
        cgroups.remove([tmp_path / "ours"], seconds=0)
