"""How the agent is, for people and for programs."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.admin import Status
from cli.status import span
from tests.unit.cli.conftest import Agent, Run

GOOD = Status(
    version="0.1.0", pid=7, boot_id="b", uptime_s=7300, serving=True, attachments=3,
    last_reconcile_s=None, resident_bytes=40 * 2**20, store="/var/lib/isthmus/isthmus.db",
)  # fmt: skip


def test_an_agent_that_serves_is_fine(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"status": asdict(GOOD)})

    result = run("status", "--socket", path)

    assert result.exit_code == 0
    assert "serving, version 0.1.0, pid 7" in result.output
    assert "40 MiB" in result.output
    assert "not yet" in result.output


def test_an_agent_that_does_not_serve_is_a_problem_with_reasons(run: Run, agent: Agent) -> None:
    bad = asdict(GOOD) | {"serving": False, "reasons": ["disk full"]}
    path = agent(lambda op: {"status": bad})

    result = run("status", "--socket", path)

    assert result.exit_code == 1
    assert "disk full" in result.output


def test_programs_get_the_whole_status(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"status": asdict(GOOD)})

    found = json.loads(run("status", "--json", "--socket", path).output)

    assert found == json.loads(json.dumps(asdict(GOOD)))


def test_without_an_agent_the_exit_status_is_three(run: Run, tmp_path: Path) -> None:
    result = run("status", "--socket", tmp_path / "none")

    assert result.exit_code == 3
    assert "systemctl start isthmus-agent" in result.output


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (150, "2 min"), (7300, "2 h"), (9e5, "10 d")]
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text
