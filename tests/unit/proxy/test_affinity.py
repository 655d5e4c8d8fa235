"""What elements of sticky Services need of a table beside themselves."""

from ipaddress import ip_address

import pytest

from dataplane.nft.objects import Protocol, element
from proxy.affinity import Affinity
from proxy.tables import MAPS, NUMBERS, affinity_map
from tests.unit.dataplane.nft.fake import FakeTable

CLIENT, SERVICE, POD, OTHER = map(
    ip_address, ("192.0.2.9", "10.96.0.20", "10.244.1.7", "10.244.1.8")
)
WEB = (SERVICE, Protocol.TCP, 80)
NODEPORT = (Protocol.TCP, 30080)


@pytest.fixture
def table() -> FakeTable:
    made = FakeTable()
    made.replace([])
    return made


def test_a_chain_is_made_once_for_each_timeout(table: FakeTable) -> None:
    affinity = Affinity(table, 4)
    coming = [
        element(MAPS[4].affinity_of, WEB, ("timeout-600",)),
        element(MAPS[4].nodeport_affinity_of, NODEPORT, ("nodeport-timeout-600",)),
    ]

    affinity.prepare(coming)
    affinity.prepare(coming)

    assert table.added == {"forget", "overflow", "timeout-600", "nodeport-timeout-600"}


def test_what_there_was_no_room_for_is_counted(table: FakeTable) -> None:
    table.counted = {"overflow": 3}

    assert Affinity(table, 4).overflown() == 3


def test_where_nothing_is_sticky_nothing_is_asked(table: FakeTable) -> None:
    Affinity(table, 4).prepare([element(MAPS[4].services, WEB, (NUMBERS["pick-1"],))])

    assert table.added == set()


def test_clients_of_what_is_gone_are_forgotten_and_no_others(table: FakeTable) -> None:
    memory = affinity_map(4)
    gone = element(memory, (CLIENT, *WEB), (POD, 8080))
    stays = element(memory, (OTHER, *WEB), (OTHER, 8080))
    by_node = element(memory, (CLIENT, ip_address("172.18.0.2"), *NODEPORT), (POD, 8080))
    table.apply(add=[gone, stays, by_node])

    Affinity(table, 4).forget([element(MAPS[4].affinity_valid, (*WEB, POD, 8080))])
    assert table.elements == {stays, by_node}

    Affinity(table, 4).forget([element(MAPS[4].nodeport_affinity_valid, (*NODEPORT, POD, 8080))])
    assert table.elements == {stays}
