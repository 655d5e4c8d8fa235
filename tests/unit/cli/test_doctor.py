"""The doctor's summary; its judgements and its eyes have tests of their own."""

from cli.doctor import summary
from cli.findings import error, info


def test_the_summary_counts_by_severity() -> None:
    findings = [error("a", "b", "c"), info("a", "b", "c"), info("a", "b", "c")]

    assert summary(findings) == "Findings: 1 of severity error, 2 of severity info."


def test_without_findings_nothing_is_in_the_way() -> None:
    assert summary([]) == "Nothing is in the way."
