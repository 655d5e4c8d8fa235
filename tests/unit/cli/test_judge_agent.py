"""Findings about the agent and what waits for it."""

from cli.findings import Severity
from cli.judge_agent import judge_agent, judge_boot, judge_spool
from cli.judge_files import Network


def test_an_agent_that_is_away_is_an_error_unless_all_networks_work_without() -> None:
    alone = Network(file="f", name="n", standalone=True)
    bound = Network(file="f", name="m")

    assert judge_agent(None, "gone", [alone])[0].severity is Severity.INFO
    assert judge_agent(None, "gone", [alone, bound])[0].severity is Severity.ERROR
    assert judge_agent(None, "gone", [])[0].severity is Severity.ERROR


def test_an_agent_that_serves_gives_no_finding() -> None:
    assert judge_agent({"serving": True, "reasons": []}, "", []) == []


def test_each_reason_not_to_serve_is_a_finding() -> None:
    findings = judge_agent({"serving": False, "reasons": ["no store", "no nft"]}, "", [])

    assert [finding.what for finding in findings] == [
        "the agent does not serve: no store",
        "the agent does not serve: no nft",
    ]


def test_deletions_that_wait_are_odd_only_while_an_agent_runs() -> None:
    assert judge_spool(0, agent_runs=True) == []
    assert judge_spool(2, agent_runs=True)[0].severity is Severity.WARNING
    assert judge_spool(2, agent_runs=False)[0].severity is Severity.INFO


def test_leases_of_an_earlier_boot_and_a_clock_that_went_back_are_told() -> None:
    rows = [{"boot_id": "now"}, {"boot_id": "before"}]

    findings = judge_boot(rows, "now", store_age_s=-7200)

    assert [finding.severity for finding in findings] == [Severity.INFO, Severity.WARNING]
    assert judge_boot(rows[:1], "now", store_age_s=5) == []
    assert judge_boot([], "now", store_age_s=None) == []
