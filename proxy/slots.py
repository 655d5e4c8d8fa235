"""Dense slots for the endpoints of a list, changed as little as may be.  Pure."""

from collections.abc import Collection, Sequence
from typing import TypeVar

Member = TypeVar("Member")


def assign(before: Sequence[Member], wanted: Collection[Member]) -> tuple[Member, ...]:
    """*wanted*, each in its slot of *before* where that can be.

    Slots are 0 … len(wanted) - 1.  One gone: the last takes its slot; one more: it is the last.
    *wanted* has no doubles.
    """
    if not before:
        return tuple(wanted)
    members = set(wanted)
    slots: list[Member | None] = [
        each if each in members else None for each in before[: len(members)]
    ]
    kept = {each for each in slots if each is not None}
    # First those that had a slot beyond the end, in the order of slots: a plan that is made
    # anew after a failure comes to the same.
    rest = [each for each in before[len(members) :] if each in members]
    kept.update(rest)
    rest += [each for each in wanted if each not in kept]
    slots += [None] * (len(members) - len(slots))
    filling = iter(rest)
    return tuple(next(filling) if each is None else each for each in slots)
