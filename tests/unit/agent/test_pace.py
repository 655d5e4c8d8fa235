"""When the next round is due, by a clock that the test holds."""

from random import Random

import pytest

from agent.pace import Pace


class Middling(Random):
    def random(self) -> float:
        return 0.5


def pace() -> Pace:
    return Pace(Middling(), longest_rest_s=1.0, longest_s=60.0)


def have_round(tested: Pace, begun: float, ended: float, *, well: bool = True) -> bool:
    is_whole = tested.begin(begun)
    tested.end(ended, well=well)
    return is_whole


def test_after_a_rest_news_are_worked_on_at_once() -> None:
    tested = pace()
    have_round(tested, 10.0, 10.1)

    assert tested.wait_s(20.0, has_news=True) == 0
    assert not tested.begin(20.0)


@pytest.mark.parametrize(("length", "rest"), [(0.125, 0.375), (0.25, 0.75), (5.0, 1.0)])
def test_after_a_round_news_gather_for_a_while(length: float, rest: float) -> None:
    tested = pace()
    have_round(tested, 10.0, 10.0 + length)

    assert tested.wait_s(10.0 + length, has_news=True) == rest


def test_without_news_everything_is_looked_at_each_longest_interval() -> None:
    tested = pace()
    have_round(tested, 10.0, 10.0)

    assert tested.wait_s(20.0, has_news=False) == pytest.approx(50.0)
    assert tested.begin(70.1)


def test_what_fails_is_tried_again_less_and_less_often() -> None:
    tested, waits = pace(), []
    for _ in range(9):
        have_round(tested, 100.0, 100.0, well=False)
        waits.append(tested.wait_s(100.0, has_news=False))

    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    have_round(tested, 100.0, 100.0)
    have_round(tested, 100.0, 100.0, well=False)
    assert tested.wait_s(100.0, has_news=False) == 0.5


def test_after_a_failure_news_are_worked_on_all_the_same() -> None:
    tested = pace()
    for _ in range(9):
        have_round(tested, 100.0, 100.0, well=False)

    assert tested.wait_s(100.0, has_news=True) == 0
    assert not tested.begin(100.0)


def test_a_hurry_makes_the_next_round_whole_and_due() -> None:
    tested = pace()
    have_round(tested, 10.0, 10.0)
    tested.hurry()

    assert tested.wait_s(10.5, has_news=False) == 0
    assert have_round(tested, 11.0, 11.0)
    assert not tested.begin(12.0)


def test_a_hurry_during_a_round_is_for_the_one_after() -> None:
    tested = pace()
    tested.begin(10.0)
    tested.hurry()
    tested.end(10.0, well=True)

    assert tested.begin(11.0)
