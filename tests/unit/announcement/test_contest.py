import itertools
from ipaddress import ip_address

from announcement.contest import BURST_S, HURRY_S, QUICK_S, SLOW_S, YIELD_S, Announcements, Contest

ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
LOW, HIGH = "02:00:00:00:00:01", "02:00:00:00:00:02"


def announced(for_s: float, *, in_doubt: bool) -> list[float]:
    """When ONE is announced, looked at ten times a second."""
    announcements = Announcements()
    return [
        now
        for now in (step / 10 for step in range(int(for_s * 10)))
        if announcements.due({ONE}, now, in_doubt=in_doubt)
    ]


def test_an_address_is_announced_in_a_burst_and_then_again_and_again() -> None:
    times = announced(30, in_doubt=False)

    assert times[: len(BURST_S)] == list(BURST_S)
    rests = [after - before for before, after in itertools.pairwise(times[4:])]
    assert rests
    assert all(abs(rest - SLOW_S) < 0.01 for rest in rests)


def test_while_another_may_announce_it_is_said_every_second() -> None:
    times = announced(10, in_doubt=True)

    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps) <= QUICK_S + 0.11


def test_doubt_that_comes_later_is_acted_on_within_a_second() -> None:
    announcements = Announcements()
    for step in range(50):
        announcements.due({ONE}, step / 10, in_doubt=False)

    assert any(announcements.due({ONE}, 5 + step / 10, in_doubt=True) for step in range(11))


def test_an_address_that_was_lost_is_announced_anew_when_it_comes_back() -> None:
    announcements = Announcements()
    announcements.due({ONE, TWO}, 0.0, in_doubt=False)
    assert announcements.due({TWO}, 0.1, in_doubt=False) == []

    assert announcements.due({ONE, TWO}, 0.15, in_doubt=False) == [ONE]


def test_another_word_is_corrected_soon_but_not_faster_than_the_link_bears() -> None:
    announcements = Announcements()
    for step in range(40):
        announcements.due({ONE}, step / 10, in_doubt=False)
    announcements.hurry(ONE, 4.0)
    assert announcements.due({ONE}, 4.0, in_doubt=False) == [ONE]
    announcements.hurry(ONE, 4.1)

    assert announcements.due({ONE}, 4.1, in_doubt=False) == []
    assert announcements.due({ONE}, 4.0 + HURRY_S, in_doubt=False) == [ONE]


def test_what_is_not_ours_is_not_hurried() -> None:
    announcements = Announcements()
    announcements.hurry(ONE, 0.0)

    assert announcements.due((), 1.0, in_doubt=True) == []


def test_the_lower_gives_way_for_as_long_as_the_higher_is_heard() -> None:
    contest = Contest()

    assert contest.hear(ONE, HIGH, LOW, 0.0)
    assert contest.lost(YIELD_S - 0.1) == {ONE}
    assert contest.hear(ONE, HIGH, LOW, 2.0)
    assert contest.lost(2.0 + YIELD_S - 0.1) == {ONE}
    assert contest.lost(2.0 + YIELD_S) == frozenset()


def test_the_higher_does_not_give_way() -> None:
    contest = Contest()

    assert not contest.hear(ONE, LOW, HIGH, 0.0)
    assert contest.lost(0.0) == frozenset()


def test_who_announced_what_of_ours_is_told_for_a_while() -> None:
    contest = Contest()
    contest.hear(ONE, LOW, HIGH, 0.0)

    assert contest.rivals(1.0) == {ONE: LOW}
    assert contest.rivals(SLOW_S + 1) == {}


def test_between_two_announcements_in_doubt_a_yield_does_not_end() -> None:
    assert YIELD_S > 2 * QUICK_S
