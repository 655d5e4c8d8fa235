"""What `isthmus connectivity` takes, and what it says when there is no cluster."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

NOWHERE = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
}


@pytest.mark.parametrize("value", ["foo", ":443", "host:0", "host:65536", "host:x"])
def test_a_target_outside_is_a_host_and_a_port(run: Run, value: str) -> None:
    result = run("connectivity", "test", "--outside", value)

    assert result.exit_code == 2
    assert "say HOST:PORT" in result.output


def test_a_kubeconfig_that_is_not_there_is_named(run: Run) -> None:
    result = run("connectivity", "test", "--kubeconfig", "/nonexistent")

    assert result.exit_code == 1
    assert "/nonexistent: No such file" in result.output


def test_an_api_server_that_does_not_answer_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps(NOWHERE))

    result = run("connectivity", "test", "--kubeconfig", str(path))

    assert result.exit_code == 1
    assert "http://127.0.0.1:1" in result.output


def test_targets_that_are_none_are_refused(run: Run) -> None:
    result = run("connectivity", "probe", "--node", "n", "--targets", '[{"path": "teleport"}]')

    assert result.exit_code == 2
    assert "teleport" in result.output
