"""What a planner is given."""

from routing.model import Told


def test_before_anything_was_told_nothing_is_known_or_trusted() -> None:
    told = Told()

    assert (dict(told.rows), told.blocks, told.in_sync, told.trusted) == ({}, (), False, False)
