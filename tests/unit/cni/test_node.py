"""How long a verb may take, and that a node stands for itself."""

import pytest

from cni.errors import CNIError
from cni.locks import KeyLocks
from cni.node import Deadline
from tests.unit.cni.fakes import World
from tests.unit.ipam.cases import SECOND, Clock


def test_a_deadline_runs_down_and_stops_at_nothing() -> None:
    clock = Clock()
    deadline = Deadline(clock.ns + 2 * SECOND, clock)
    left = [deadline.left()]
    for _ in range(3):
        clock.advance(1)
        left.append(deadline.left())

    assert left == [2.0, 1.0, 0.0, 0.0]


def test_a_step_for_which_no_time_is_left_is_refused() -> None:
    clock = Clock()
    deadline = Deadline(clock.ns + SECOND, clock)
    deadline.check("the first step")
    clock.advance(1)

    with pytest.raises(CNIError) as caught:
        deadline.check("the last step")

    assert (caught.value.code, str(caught.value)) == (11, "out of time: before the last step")


def test_every_node_has_locks_of_its_own_and_is_ready_unless_told(world: World) -> None:
    assert isinstance(world.node.locks, KeyLocks)
    assert world.node.ready() == ""
