"""What is dropped, and that nothing is left where nothing is lost."""

from collections.abc import Collection
from ipaddress import ip_network

import pytest

from agent.barrier import BRIDGED, ROUTED, Barrier, elements
from dataplane.errors import DataplaneError
from dataplane.nft.objects import Element, Family

FOUR, SIX = ip_network("10.1.0.0/26"), ip_network("fd00::/122")


class FakeTable:
    def __init__(self) -> None:
        self.found: frozenset[Element] | None = None
        self.did: list[str] = []
        self.broken = False

    def observe(self) -> frozenset[Element] | None:
        return self.found

    def replace(self, elements: Collection[Element]) -> None:
        if self.broken:
            raise DataplaneError("no nft")
        self.did.append("replace")
        self.found = frozenset(elements)

    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None:
        self.did.append("apply")
        self.found = (self.found or frozenset()) - set(delete) | set(add)

    def remove(self) -> None:
        self.did.append("remove")
        self.found = None


@pytest.fixture
def tables() -> dict[Family, FakeTable]:
    return {Family.INET: FakeTable(), Family.BRIDGE: FakeTable()}


def words(table: FakeTable) -> list[str]:
    return sorted(map(str, table.found or ()))


def test_sets_follow_what_is_lost(tables: dict[Family, FakeTable]) -> None:
    barrier, table = Barrier(tables), tables[Family.INET]
    barrier.enforce([FOUR])
    first = words(table)
    barrier.enforce([SIX])
    second = words(table)
    barrier.enforce([SIX])
    barrier.enforce([])

    assert first == ["lost4 { 10.1.0.0/26 . 10.1.0.0/26 }"]
    assert second == ["lost6 { fd00::/122 . fd00::/122 }"]
    assert table.did == ["replace", "apply", "remove"]
    assert tables[Family.BRIDGE].did == table.did


def test_one_table_that_cannot_be_made_does_not_keep_the_other(
    tables: dict[Family, FakeTable],
) -> None:
    tables[Family.INET].broken = True

    with pytest.raises(DataplaneError, match="no nft"):
        Barrier(tables).enforce([FOUR])
    assert words(tables[Family.BRIDGE]) == ["lost4 { 10.1.0.0/26 . 10.1.0.0/26 }"]


def test_packets_are_looked_at_before_translation_and_again_on_leaving() -> None:
    script = ROUTED.script(elements(Family.INET, [FOUR]))

    assert "hook prerouting priority raw" in script
    assert "hook postrouting priority 0" in script
    assert script.count("drop") == 8
    assert BRIDGED.script().startswith("add table bridge isthmus-lost\n")
