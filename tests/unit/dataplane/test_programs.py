"""Programs run to their end, or in the background until told."""

from pathlib import Path

import pytest

from dataplane.programs import ProgramMissing, Running, run


def test_output_and_status_come_back() -> None:
    done = run(["sh", "-c", "read x; echo $x; echo bad >&2; exit 3"], stdin="hello\n")

    assert (done.status, done.stdout, done.complaint) == (3, "hello\n", "bad")


def test_a_silent_failure_complains_with_its_status() -> None:
    assert run(["false"]).complaint == "exit status 1"


def test_a_missing_program_and_one_that_hangs_are_told_apart() -> None:
    with pytest.raises(ProgramMissing, match="cannot run /nowhere/x: No such file"):
        run(["/nowhere/x"])
    with pytest.raises(ProgramMissing, match="did not end within"):
        run(["sleep", "60"], timeout=0.05)


def test_the_environment_can_be_given() -> None:
    assert run(["/usr/bin/env"], environment={"A": "b"}).stdout == "A=b\n"


@pytest.mark.parametrize("kill", [True, False])
def test_a_program_in_the_background_is_stopped_and_logs(tmp_path: Path, kill: bool) -> None:
    running = Running(["sh", "-c", "echo here; exec sleep 60"], tmp_path / "log")

    was_running = not running.has_ended
    running.stop(kill=kill)
    running.stop()

    assert was_running
    assert running.has_ended


def test_a_program_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing):
        Running(["/nowhere/x"], tmp_path / "log")
