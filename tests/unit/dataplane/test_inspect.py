"""What is read from files."""

import fcntl
from pathlib import Path

from dataplane.inspect import lock_is_held, read_sysctl


def test_a_setting_that_is_not_there_is_none() -> None:
    assert read_sysctl("net/ipv4/no_such_setting") is None
    assert read_sysctl("kernel/ostype") == "Linux"


def test_a_lock_is_seen_without_being_kept(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    absent = lock_is_held(path)
    with path.open("w") as holder:
        free = lock_is_held(path)
        fcntl.flock(holder, fcntl.LOCK_EX)
        taken = lock_is_held(path)

    assert (absent, free, taken) == (False, False, True)
