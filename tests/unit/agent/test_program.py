from pathlib import Path

from agent.program import own_command
from agent.version import VERSION
from dataplane.programs import run


def test_this_program_can_be_run_again_from_anywhere(tmp_path: Path) -> None:
    done = run(["/usr/bin/env", "-C", str(tmp_path), *own_command(), "--version"])

    assert (done.status, done.stdout) == (0, f"isthmus, version {VERSION}\n")
