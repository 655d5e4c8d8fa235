"""Which pods' addresses are remembered, and what of it is written."""

from ipaddress import ip_network

import pytest

from ipam import formers as module
from ipam.formers import Formers
from ipam.holdings import OwnBlock
from ipam.leases import Record
from ipam.store import Stick
from tests.unit.ipam.cases import record, who

BLOCKS = (OwnBlock(cidr=ip_network("10.1.0.0/29"), pool="p", epoch=1, revision=1),)


def of(number: int, address: str) -> Record:
    return record(who(number), address)


def pod(one: Record) -> str:
    return f"pod-{one.who.container_id}"


def addresses(formers: Formers, number: int) -> list[str]:
    return [str(ip) for ip in formers.of(pod(of(number, "10.1.0.1/29")), BLOCKS)]


def test_a_pod_has_the_addresses_that_it_had_last() -> None:
    formers = Formers((), pod)
    formers.note(of(1, "10.1.0.1/29"))
    formers.note(of(1, "10.1.0.2/29"))

    assert addresses(formers, 1) == ["10.1.0.2"]
    assert addresses(formers, 2) == []


def test_who_is_no_pod_or_in_no_block_is_not_remembered() -> None:
    formers, nameless = Formers((), pod), Formers((), lambda record: "")
    for some in (formers, nameless):
        some.note(of(1, "10.9.0.1/29" if some is formers else "10.1.0.1/29"))
        some.digest(BLOCKS)

        assert some.unsaved() == ()


def test_those_that_came_longest_ago_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMERS", 2)
    formers = Formers((), pod)
    for number in (1, 2, 1, 3):
        formers.note(of(number, f"10.1.0.{number}/29"))
    formers.digest(BLOCKS)
    (written,) = formers.unsaved()

    assert [bool(addresses(formers, number)) for number in (1, 2, 3)] == [True, False, True]
    assert len(written.formers) == 2
    assert written.forgotten == (pod(of(2, "10.1.0.2/29")),)
    assert formers.unsaved() == ()


def test_another_life_goes_on_where_the_last_one_was() -> None:
    formers = Formers((), pod)
    for number in (1, 2):
        formers.note(of(number, f"10.1.0.{number}/29"))
    formers.digest(BLOCKS)
    (written,) = formers.unsaved()
    again = Formers(written.formers, pod)
    again.rewrite(())

    assert addresses(again, 2) == ["10.1.0.2"]
    (all_of_it,) = again.unsaved()
    assert set(all_of_it.formers) == set(written.formers)


def test_what_a_store_has_and_we_do_not_is_taken_from_it() -> None:
    formers = Formers((), pod)
    formers.note(of(1, "10.1.0.1/29"))
    formers.digest(BLOCKS)
    (written,) = formers.unsaved()
    empty = Formers((), pod)
    empty.rewrite(written.formers)

    assert empty.unsaved() == (Stick((), (written.formers[0].pod,)),)
