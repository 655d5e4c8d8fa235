"""Addresses shown, verified and given back."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Agent, Run
from tests.unit.cli.test_attachments import ROW

USAGE = {"ranges": "10.66.0.0/16", "size": 9, "held": 1, "cooling": 2, "free": 8}


def test_show_has_holders_and_how_full_ranges_are(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"attachments": [ROW], "usage": [USAGE]})

    people = run("ipam", "show", "--socket", path)
    programs = run("ipam", "show", "--json", "--socket", path)

    assert people.output.splitlines()[-1].split() == ["10.66.0.0/16", "9", "1", "2", "8"]
    assert json.loads(programs.output)["usage"] == [USAGE]


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "No problem found."), (1, "1 problem found."), (2, "2 problems found.")],
)
def test_check_counts_what_it_found(run: Run, agent: Agent, number: int, said: str) -> None:
    path = agent(lambda op: {"problems": ["10.66.0.2 is held twice"] * number})

    assert run("ipam", "check", "--socket", path).output.splitlines()[-1] == said


@pytest.mark.parametrize(("problems", "status"), [([], 0), (["10.66.0.2 is held twice"], 1)])
def test_check_ends_with_one_when_something_is_wrong(
    run: Run, agent: Agent, problems: list[str], status: int
) -> None:
    path = agent(lambda op: {"problems": problems})

    people = run("ipam", "check", "--socket", path)
    programs = run("ipam", "check", "--json", "--socket", path)

    assert (people.exit_code, programs.exit_code) == (status, status)
    assert json.loads(programs.output) == {"source": "agent", "problems": problems}
    assert all(problem in people.output for problem in problems)


def test_release_says_what_was_released(run: Run, agent: Agent) -> None:
    asked: list[dict[str, Any]] = []

    def answer(op: dict[str, Any]) -> dict[str, Any]:
        asked.append(op)
        return {"released": ROW}

    result = run("ipam", "release", "10.66.0.2", "--force", "--socket", agent(answer))

    assert result.exit_code == 0
    assert "released isthmus/0123456789abcdef/eth0: 10.66.0.2/16 fd66::2/64" in result.output
    assert asked == [{"op": "ipam-release", "wanted": "10.66.0.2", "force": True}]


def test_a_refused_release_is_a_problem(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"error": "its sandbox is alive"})

    result = run("ipam", "release", "c1", "--socket", path)

    assert result.exit_code == 1
    assert "its sandbox is alive" in result.output


def test_block_to_release_is_one_for_ipamd_and_has_no_host_bits(run: Run, tmp_path: Path) -> None:
    where = ("--ipamd", "127.0.0.1:1", "--identity", tmp_path)
    block = run("ipam", "release", "10.9.0.0/26", *where)
    inside = run("ipam", "release", "10.9.0.1/26", *where)

    assert "admin.pem" in block.output
    assert "10.9.0.1/26 has host bits set" in inside.output
    assert inside.exit_code == 1


def test_release_needs_an_agent_and_a_name(run: Run, tmp_path: Path) -> None:
    away = run("ipam", "release", "c1", "--socket", tmp_path / "none")

    assert away.exit_code == 3
    assert run("ipam", "release", " ").exit_code == 2
    assert run("ipam", "release").exit_code == 2
