"""Which cluster is the one asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tools.kind import cluster
from tools.kind.cluster import Recipe
from tools.kind.engine import Engine
from tools.kind.progress import KindError


@dataclass(frozen=True, slots=True)
class FakeEngine(Engine):
    """Remembers what it is asked to run; what contains *failing* fails."""

    failing: str = "nothing"
    calls: list[str] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *argv: str | Path, stdin: str | bytes | None = None, timeout: float = 600) -> str:
        line = " ".join(map(str, argv))
        self.calls.append(line)
        if self.failing in line:
            raise KindError(line)
        return ""

    def verbs(self) -> list[str]:
        return [call.split()[1] for call in self.calls if call.startswith("kind")]


@pytest.fixture(autouse=True)
def complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cluster, "COMPLETE", tmp_path / "cluster.json")
    monkeypatch.setattr(cluster, "KUBECONFIG", tmp_path / "kubeconfig")
    return tmp_path / "cluster.json"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    config = tmp_path / "config.yaml"
    config.write_text("kind: Cluster\n")
    return Recipe(config, "node:1")


def test_what_is_there_is_left_alone(recipe: Recipe) -> None:
    engine = FakeEngine()
    cluster.ensure(engine, recipe)
    engine.calls.clear()

    cluster.ensure(engine, recipe)

    assert engine.verbs() == []


def test_a_cluster_of_something_else_is_replaced(recipe: Recipe) -> None:
    engine = FakeEngine()
    cluster.ensure(engine, recipe)
    engine.calls.clear()

    cluster.ensure(engine, Recipe(recipe.config, "node:2"))

    assert engine.verbs() == ["delete", "create"]


def test_a_cluster_that_does_not_answer_is_replaced(recipe: Recipe) -> None:
    cluster.ensure(FakeEngine(), recipe)
    engine = FakeEngine(failing="readyz")

    cluster.ensure(engine, recipe)

    assert engine.verbs() == ["delete", "create"]


def test_a_cluster_that_was_not_finished_is_begun_again(recipe: Recipe) -> None:
    with pytest.raises(KindError):
        cluster.ensure(FakeEngine(failing="create"), recipe)
    engine = FakeEngine()

    cluster.ensure(engine, recipe)

    assert engine.verbs() == ["delete", "create"]


def test_one_that_is_being_deleted_is_complete_no_more(recipe: Recipe, complete: Path) -> None:
    cluster.ensure(FakeEngine(), recipe)
    was = json.loads(complete.read_text())

    with pytest.raises(KindError):
        cluster.delete(FakeEngine(failing="delete"))

    assert was == {"made from": recipe.digest()}
    assert not complete.exists()
