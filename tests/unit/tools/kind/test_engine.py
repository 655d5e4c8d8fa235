"""How we know whether the engine runs."""

import fcntl
import os
from pathlib import Path

import pytest

from tools.kind import engine
from tools.kind.places import PROGRAMS


@pytest.fixture
def pid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine, "PID_FILE", tmp_path / "engine.pid")
    return tmp_path / "engine.pid"


def test_an_engine_runs_while_its_lock_is_held(pid_file: Path) -> None:
    with pid_file.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("17")
        file.flush()
        held = engine.running()

    assert held == 17


def test_a_pid_that_another_process_has_by_now_is_not_the_engine(pid_file: Path) -> None:
    pid_file.write_text(str(os.getpid()))

    assert engine.running() is None


def test_without_a_pid_nothing_runs(pid_file: Path) -> None:
    assert engine.running() is None


def test_programs_built_here_go_before_those_of_the_machine() -> None:
    path = engine.machines().environment["PATH"]

    assert path.startswith(f"{PROGRAMS}:")
