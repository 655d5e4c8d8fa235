"""What a planner is given."""

from masquerade.model import Told


def test_before_anything_was_told_there_are_no_pools() -> None:
    assert (Told().pools, dict(Told().rows)) == ((), {})
