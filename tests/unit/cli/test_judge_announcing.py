"""What is told of a node that answers for addresses of Services."""

from typing import Any

from cli.findings import Severity
from cli.judge_announcing import judge_announcing


def told(**other: Any) -> dict[str, Any]:
    return {"problems": [], "unfit": "", "refused": {}, "is_many": True, **other}


def test_who_announces_nothing_or_does_it_well_has_no_findings() -> None:
    assert judge_announcing(None) == judge_announcing({}) == judge_announcing(told()) == []


def test_a_node_that_is_not_heard_is_grave_where_it_takes_the_majority() -> None:
    line = "node b is not heard: no answer from 192.0.2.2:9479"

    (one,) = judge_announcing(told(problems=[line]))
    (many,) = judge_announcing(told(problems=[line], is_many=False))

    assert (one.what, one.severity) == (line, Severity.WARNING)
    assert many.severity is Severity.ERROR
    assert "isthmus ipam drain" in many.mend


def test_why_a_node_answers_for_nothing_is_said() -> None:
    (found,) = judge_announcing(told(unfit="Services are not programmed yet"))

    assert found.severity is Severity.INFO
    assert found.what.endswith("of Services: Services are not programmed yet")


def test_heartbeats_that_no_node_of_ours_sends_are_told_of_and_late_ones_are_not() -> None:
    refused = {"of a session that is over": 9, "sealed with another key": 2}

    (found,) = judge_announcing(told(refused=refused))

    assert found.what == "2 heartbeats were refused: sealed with another key"
