"""The agent's own command."""

from tests.unit.cli.conftest import Run


def test_an_option_that_is_unknown_is_a_usage_error(run: Run) -> None:
    assert run("agent", "--confg", "x").exit_code == 2


def test_a_configuration_that_is_a_directory_is_a_usage_error(run: Run) -> None:
    result = run("agent", "--config", "/")

    assert result.exit_code == 2
    assert "directory" in result.output
