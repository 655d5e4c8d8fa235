from hypothesis import given
from hypothesis import strategies as st

from proxy.slots import assign

SETS = st.lists(st.integers(0, 30), unique=True, max_size=20)


def test_one_more_is_the_last() -> None:
    assert assign(("a", "b"), ["c", "a", "b"]) == ("a", "b", "c")


def test_the_last_takes_the_slot_of_one_that_went() -> None:
    assert assign(("a", "b", "c", "d"), ["a", "c", "d"]) == ("a", "d", "c")


def test_a_swap_touches_one_slot() -> None:
    assert assign(("a", "b", "c"), ["a", "c", "x"]) == ("a", "x", "c")


@given(SETS, SETS)
def test_slots_are_dense_and_change_as_little_as_can_be(
    before: list[int], wanted: list[int]
) -> None:
    slots = assign(before, wanted)

    assert sorted(slots) == sorted(wanted)
    changed = sum(1 for old, new in zip(before, slots, strict=False) if old != new)
    gone = sum(1 for each in before[: len(wanted)] if each not in wanted)
    assert changed == gone
