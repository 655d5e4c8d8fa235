"""One at a time."""

import subprocess
import sys
from pathlib import Path

from tools.kind import lock

HOLD = "from pathlib import Path; from tools.kind.lock import held\nwith held(Path({!r})): {}"


def test_others_wait_and_are_told_for_whom(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.held(path):
        code = HOLD.format(str(path), "print('mine')")
        other = subprocess.Popen(
            [sys.executable, "-c", code],
            env={},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert other.stderr is not None
        told = other.stderr.readline()
        waiting = other.poll() is None
    output, _ = other.communicate(timeout=20)

    assert told.startswith("==> waiting: the cluster is in use by process ")
    assert waiting
    assert output == "mine\n"


def test_what_runs_under_the_lock_does_not_wait_for_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.held(path), lock.held(path):
        code = HOLD.format(str(path), "pass")
        done = subprocess.run([sys.executable, "-c", code], timeout=20, check=False)

    assert done.returncode == 0


def test_one_who_is_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = HOLD.format(str(path), "import os; os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, "-c", code], env={}, timeout=20, check=False)

    with lock.held(path):
        assert "process" in path.read_text()
