"""When another block is wanted, and when one is too many."""

from ipaddress import ip_network

import pytest

from ipam.holdings import OwnBlock
from ipam.supply import superfluous, wants_another

BLOCKS = [
    OwnBlock(cidr=ip_network(f"10.0.0.{n * 16}/28"), pool="p", epoch=1, revision=1)
    for n in range(3)
]  # of thirteen addresses each


def used(*counts: int) -> dict[OwnBlock, int]:
    return dict(zip(BLOCKS, counts, strict=False))


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ((), True),
        ((0,), False),
        ((10,), False),
        ((11,), True),
        ((13, 0), False),
        ((13, 1), False),
        ((13, 8), True),
        ((13, 13, 1), False),
    ],
)
def test_another_is_wanted_beyond_four_fifths_unless_one_is_empty(
    counts: tuple[int, ...], wanted: bool
) -> None:
    assert wants_another(used(*counts)) is wanted


@pytest.mark.parametrize(
    ("counts", "which"),
    [
        ((0,), None),
        ((6, 0), 1),
        ((7, 0), None),
        ((0, 6), 0),
        ((0, 0, 0), 2),
        ((6, 6, 1), None),
        ((13, 0, 0), 2),
    ],
)
def test_an_empty_one_is_too_many_where_half_of_the_rest_would_do(
    counts: tuple[int, ...], which: int | None
) -> None:
    assert superfluous(used(*counts)) == (None if which is None else BLOCKS[which])


@pytest.mark.parametrize(("counts", "which"), [((), None), ((1,), None), ((0,), 0), ((6, 0), 1)])
def test_where_no_network_asks_the_only_one_is_too_many_once_it_is_empty(
    counts: tuple[int, ...], which: int | None
) -> None:
    found = superfluous(used(*counts), is_wanted=False)

    assert found == (None if which is None else BLOCKS[which])
