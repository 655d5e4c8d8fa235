"""Each shell gets its own script."""

import pytest
from click.shell_completion import ShellComplete

from cli.group import isthmus
from tests.unit.cli.conftest import Run


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")]
)
def test_a_script_is_printed_for_each_shell(run: Run, shell: str, word: str) -> None:
    result = run("completion", shell)

    assert result.exit_code == 0
    assert word in result.output
    assert "_ISTHMUS_COMPLETE" in result.output


def test_another_shell_is_refused_with_those_that_are_known(run: Run) -> None:
    result = run("completion", "tcsh")

    assert result.exit_code == 2
    assert "fish" in result.output


def test_commands_of_a_group_are_completed() -> None:
    completer = ShellComplete(isthmus, {}, "isthmus", "_ISTHMUS_COMPLETE")

    found = [item.value for item in completer.get_completions(["ipam"], "")]

    assert found[:4] == ["show", "check", "release", "init"]
