"""Findings carry the severity they were made with."""

from cli.findings import Severity, error, info, warning


def test_each_severity_has_its_maker() -> None:
    made = [make("what", "why", "mend") for make in (error, warning, info)]

    assert [finding.severity for finding in made] == list(Severity)
