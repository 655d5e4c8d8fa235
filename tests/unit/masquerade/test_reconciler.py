"""The table follows pools and settings, and keeps the last good state."""

from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest

from dataplane.errors import DataplaneError, NftError
from dataplane.nft.objects import Element
from ipam.calls import PoolRow
from masquerade.model import Told
from masquerade.plan import plan
from masquerade.reconciler import Reconciler
from masquerade.settings import Settings

POOL = PoolRow(name="four", cidr=ip_network("10.80.0.0/16"), masquerade=True)
TOLD, USUAL = Told(pools=(POOL,)), Settings()
OTHER = Settings(masquerade_link_local=True)


@dataclass
class FakeTable:
    held: frozenset[Element] | None = None
    did: list[str] = field(default_factory=list)
    broken: bool = False

    def observe(self) -> frozenset[Element] | None:
        self.did.append("observe")
        return self.held

    def replace(self, elements: Collection[Element]) -> None:
        self._do("replace")
        self.held = frozenset(elements)

    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None:
        self._do("apply")
        if self.held is None:
            raise NftError("no such table")
        self.held = (self.held - set(delete)) | set(add)

    def remove(self) -> None:
        self._do("remove")
        self.held = None

    def _do(self, what: str) -> None:
        self.did.append(what)
        if self.broken:
            raise DataplaneError(f"{what} failed")


def test_a_table_is_made_once_and_then_changed_by_elements() -> None:
    table = FakeTable()
    keeper = Reconciler(table)
    answers = [keeper.reconcile(TOLD, settings) for settings in (USUAL, USUAL, OTHER)]

    assert answers == [True, False, True]
    assert table.did == ["observe", "replace", "apply"]
    assert table.held == plan(TOLD, OTHER)
    assert keeper.changes == 2
    assert keeper.elements == len(plan(TOLD, OTHER))


def test_what_a_former_life_made_is_taken_up() -> None:
    table = FakeTable(held=plan(TOLD, USUAL))
    unchanged = Reconciler(table).reconcile(TOLD, USUAL)
    changed = Reconciler(table).reconcile(TOLD, OTHER)

    assert (unchanged, changed) == (False, True)
    assert "replace" not in table.did


def test_nothing_is_touched_before_pools_are_known() -> None:
    table = FakeTable(held=plan(TOLD, OTHER))

    assert not Reconciler(table).reconcile(Told(), USUAL)
    assert table.did == []


def test_a_table_that_somebody_flushed_is_made_anew() -> None:
    table = FakeTable()
    keeper = Reconciler(table)
    keeper.reconcile(TOLD, USUAL)
    table.held = None
    keeper.reconcile(TOLD, OTHER)
    seen = table.held
    table.held = None
    keeper.doubt()
    keeper.reconcile(TOLD, OTHER)

    assert seen == table.held == plan(TOLD, OTHER)


def test_a_failure_leaves_what_was_there_and_is_tried_again() -> None:
    table = FakeTable()
    keeper = Reconciler(table)
    keeper.reconcile(TOLD, USUAL)
    table.broken = True
    with pytest.raises(DataplaneError, match="apply failed"):
        keeper.reconcile(TOLD, OTHER)
    kept = table.held
    table.broken = False
    keeper.reconcile(TOLD, OTHER)

    assert kept == plan(TOLD, USUAL)
    assert table.held == plan(TOLD, OTHER)


def test_without_settings_the_table_goes_once() -> None:
    table = FakeTable(held=frozenset())
    keeper = Reconciler(table)
    keeper.reconcile(TOLD, USUAL)
    answers = [keeper.reconcile(TOLD, None) for _ in range(3)]
    keeper.reconcile(TOLD, USUAL)

    assert answers == [True, False, False]
    assert table.did.count("remove") == 1
    assert table.held == plan(TOLD, USUAL)
