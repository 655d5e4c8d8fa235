"""What fails says what it said."""

import pytest

from tools.kind.progress import KindError, run, step


def test_the_output_of_a_program_is_returned() -> None:
    assert run("cat", stdin="said") == "said"


def test_a_failure_tells_status_and_output() -> None:
    with pytest.raises(KindError, match=r"exit status 4\nout\nerr"):
        run("sh", "-c", "echo out; echo err >&2; exit 4")


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(KindError, match="no-such-program"):
        run("no-such-program")


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(KindError, match=r"sleep: .* timed out"):
        run("sleep", "60", timeout=0.1)


def test_a_step_is_announced_before_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with step("something long"):
        announced = capsys.readouterr().err

    assert announced == "==> something long\n"
