from cni.journal import Journal
from tests.unit.cni.published import pod, who

A, B = pod("a", "10.1.0.2/24"), pod("b", "10.1.0.3/24")


def test_without_changes_what_is_stored_counts() -> None:
    journal = Journal()
    journal.begin()

    assert journal.end([A, B]) == [A, B]


def test_a_publication_during_the_reading_wins_over_what_was_read() -> None:
    newer = pod("a", "10.1.0.9/24")
    journal = Journal()
    journal.begin()
    journal.record(A.who, newer)
    journal.record(B.who, B)

    assert journal.end([A]) == [newer, B]


def test_an_older_publication_is_what_the_store_says() -> None:
    journal = Journal()
    journal.record(B.who, B)
    journal.begin()

    assert journal.end([A]) == [A]


def test_whoever_was_withdrawn_stays_so_while_the_record_lasts() -> None:
    journal = Journal()
    journal.record(A.who, None)
    for _ in range(2):
        journal.begin()
        assert journal.end([A, B]) == [B]


def test_publishing_again_ends_a_withdrawal() -> None:
    journal = Journal()
    journal.begin()
    journal.record(A.who, A)
    journal.record(A.who, None)
    during = journal.end([A])
    journal.record(A.who, A)
    journal.begin()

    assert during == []
    assert journal.end([A]) == [A]


def test_a_withdrawal_is_forgotten_with_the_record() -> None:
    journal = Journal()
    journal.record(A.who, None)
    journal.begin()
    journal.end([B])
    journal.begin()

    assert journal.end([A]) == [A]


def test_old_withdrawals_are_forgotten_before_they_fill_memory() -> None:
    journal = Journal()
    for number in range(1002):
        journal.record(who(str(number)), None)
    journal.begin()

    assert [each.who for each in journal.end([pod("0"), pod("1"), pod("2")])] == [
        who("0"),
        who("1"),
    ]
