"""`isthmus ipamd`: what it refuses before it starts."""

from pathlib import Path

from tests.unit.cli.conftest import Run


def test_a_wrong_configuration_is_a_matter_of_usage(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ipamd.toml"
    path.write_text('colour = "blue"\n')
    outcome = run("ipamd", "--config", path)

    assert outcome.exit_code == 2
    assert "unknown key 'colour'" in outcome.output


def test_help_says_how_many_may_run(run: Run) -> None:
    assert "any number of replicas may run" in " ".join(run("ipamd", "--help").output.split())
