"""What travels between the command and its pods comes back as it was."""

import json

import pytest

from connectivity.model import Outcome, Path, Target, Trial

TARGET = Target(
    path=Path.POD_SAME_NODE, address="fd00::1", port=1, node="n", trials=(Trial.TCP, Trial.MANY)
)
OUTCOME = Outcome(
    path=Path.OUTSIDE, trial=Trial.TCP, client_node="n", node="", address="a", seconds=0.5
)


def test_targets_and_outcomes_survive_json() -> None:
    assert Target.from_json(json.loads(json.dumps(TARGET.to_json()))) == TARGET
    assert Outcome.from_json(json.loads(json.dumps(OUTCOME.to_json()))) == OUTCOME


def test_a_path_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="teleport"):
        Target.from_json(TARGET.to_json() | {"path": "teleport"})
