"""What differs, in an order in which each part of it is a good state."""

from dataplane.nft.objects import Element
from proxy.changes import PER_TRANSACTION, Change, between, chunks, gathered
from proxy.model import ServiceName
from proxy.tables import MAPS

OF = MAPS[4].services


def element(key: int, data: int = 0) -> Element:
    return Element(OF, bytes([key]), data=bytes([data]))


def test_what_is_new_comes_before_what_is_other_and_that_before_what_is_gone() -> None:
    found = [element(1), element(2), element(3)]
    wanted = [element(2, 9), element(3), element(4)]

    assert list(between(found, wanted)) == [
        Change(None, element(4)),
        Change(element(2), element(2, 9)),
        Change(element(1), None),
    ]


def test_nothing_differs_between_equals() -> None:
    assert list(between([element(1)], [element(1)])) == []


def test_a_change_of_many_elements_goes_in_several_transactions_in_its_order() -> None:
    many = [Change(None, element(n % 256)) for n in range(2 * PER_TRANSACTION)]
    many += [Change(element(n % 256), element(n % 256)) for n in range(PER_TRANSACTION)]

    parts = list(chunks(many))

    assert [sum((c.delete is not None) + 1 for c in part) for part in parts] == (
        [PER_TRANSACTION] * 4
    )
    assert [each for part in parts for each in part] == many


def test_services_go_together_as_many_as_a_transaction_takes_each_as_a_whole() -> None:
    of = {ServiceName("x", str(n)): [Change(None, element(n))] * 80 for n in range(4)}

    parts = list(gathered(of))

    assert [len(part) for part in parts] == [2, 2]
    assert {name: each for part in parts for name, each in part.items()} == of
