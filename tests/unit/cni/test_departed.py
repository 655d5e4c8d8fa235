"""Deletions that found nothing, remembered for the ADD that they came before."""

from cni.departed import Departed
from tests.unit.cni.fakes import WHO
from tests.unit.ipam.cases import SECOND


def test_only_an_older_add_is_too_late() -> None:
    departed = Departed()
    departed.note(WHO, 5, now_ns=9)

    assert [departed.since(WHO, started) for started in (4, 5, 6)] == [True, False, False]


def test_the_latest_deletion_counts_in_whatever_order_they_come() -> None:
    departed = Departed()
    departed.note(WHO, 7, now_ns=9)
    departed.note(WHO, 5, now_ns=9)

    assert departed.since(WHO, 6)


def test_none_is_remembered_longer_than_an_add_can_wait() -> None:
    departed = Departed()
    departed.note(WHO, 5, now_ns=0)
    other = type(WHO)("shop", "c2", "eth0")
    departed.note(other, 5, now_ns=61 * SECOND)

    assert not departed.since(WHO, 4)
    assert departed.since(other, 4)
