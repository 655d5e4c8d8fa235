from itertools import pairwise

import pytest

from proxy.tables import CLASSES, MAPS, class_of, skeleton


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (8, 8), (9, 12), (12, 12), (13, 16), (17, 24), (16384, 16384)]
)
def test_the_smallest_class_that_holds_them_is_taken(count: int, size: int) -> None:
    assert class_of(count) == size


def test_more_than_the_largest_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 16384"):
        class_of(16385)


def test_at_most_a_third_of_the_draws_miss() -> None:
    misses = [1 - (before + 1) / size for before, size in pairwise(CLASSES)]

    assert max(misses) < 1 / 3


@pytest.mark.parametrize("version", [4, 6])
def test_no_rule_has_a_set_or_map_without_a_name(version: int) -> None:
    rules = [rule for chain in skeleton(version).chains for rule in chain.rules]

    assert not [rule for rule in rules if "{" in rule]


def test_each_set_is_declared_once() -> None:
    names = [each.name for each in MAPS[4].all]

    assert len(set(names)) == len(names)
