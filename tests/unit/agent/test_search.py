"""What is recorded of namespaces that were looked into, and when such a record has ended."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from agent.search import Search, has_ended
from cni.spec import of
from dataplane.survey import Surveyed
from ipam.errors import StoreUnavailable
from ipam.leases import Attachment, Record

FIRST, SECOND, THIRD = (ip_interface(f"10.89.0.{n}/24") for n in (2, 3, 4))
BLUE = Surveyed("/run/netns/blue", 11, {"eth0": (FIRST, SECOND), "eth1": (THIRD,)})
SAME = Surveyed("/proc/123/ns/net", 12, {"eth0": (FIRST,)})


def recorded(*there: Surveyed, held: str = "10.0.0.1") -> list[Record]:
    search = Search(survey=lambda: list(there))
    return search.records([ip_address(held)], boot_id="b", now_ns=7)


def test_each_interface_is_recorded_with_the_addresses_that_nobody_holds() -> None:
    eth0, eth1 = recorded(BLUE, held="10.89.0.3")

    assert eth0.who == Attachment("found", "blue-11", "eth0")
    assert (eth0.addresses, eth1.addresses) == ((FIRST,), (THIRD,))
    assert (eth0.sandbox, eth0.netns_cookie) == ("/run/netns/blue", 11)
    assert (eth0.boot_id, eth0.started_ns) == ("b", 7)
    assert not of(eth0).link


def test_what_two_namespaces_have_is_recorded_once() -> None:
    assert [record.who.container_id for record in recorded(SAME, BLUE)] == [
        "pid-123-12",
        "blue-11",
        "blue-11",
    ]
    assert [record.addresses for record in recorded(SAME, BLUE)] == [(FIRST,), (SECOND,), (THIRD,)]


@pytest.mark.parametrize(
    ("name", "container_id"), [("a b:c", "a-b-c-5"), ("-x", "x-5"), ("…", "netns-5")]
)
def test_the_name_of_a_namespace_is_made_a_container_id(name: str, container_id: str) -> None:
    (record,) = recorded(Surveyed(f"/run/netns/{name}", 5, {"eth0": (FIRST,)}))

    assert record.who.container_id == container_id


def test_a_record_ends_with_its_namespace_and_all_that_have_its_address() -> None:
    record = recorded(BLUE)[0]
    moved = replace(BLUE, path="/proc/9/ns/net", interfaces={})

    assert not has_ended(record, [moved])
    assert not has_ended(record, [SAME])
    assert has_ended(record, [replace(SAME, interfaces={"eth0": (THIRD,)})])
    assert has_ended(record, [])


def test_a_search_is_owed_until_it_was_made(tmp_path: Path) -> None:
    search = Search(tmp_path / "lost")
    at_first = search.owed
    search.owe()
    after_a_crash = Search(tmp_path / "lost").owed
    search.end()

    assert (at_first, after_a_crash, search.owed) == (False, True, False)


def test_a_loss_that_cannot_be_noted_lets_no_new_store_begin(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        Search(tmp_path / "gone" / "lost").owe()


def test_without_a_note_nothing_is_owed() -> None:
    search = Search()
    search.owe()
    search.end()

    assert not search.owed


def test_what_is_found_before_the_first_store_is_another_plugins(tmp_path: Path) -> None:
    search = Search(tmp_path / "lost", lambda: [BLUE])
    search.owe(is_first=True)
    first = search.records([], boot_id="b", now_ns=1)
    search.owe()
    lost = search.records([], boot_id="b", now_ns=1)

    assert [of(record).former for record in first] == [True] * len(first)
    assert not any(of(record).former for record in lost)
