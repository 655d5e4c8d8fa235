"""The table as it was streamed, what of it is written, and what is remembered besides."""

from dataclasses import replace
from ipaddress import ip_network

from ipam.calls import PoolRow, Update
from ipam.store import Snapshot, Tabulate
from ipam.table import Table
from tests.unit.ipam.contract import ROW

OTHER = replace(ROW, cidr=ip_network("10.1.0.8/29"))
POOL = PoolRow(name="p", cidr=ip_network("10.0.0.0/16"), masquerade=False)


def test_changes_go_over_what_there_was_and_a_whole_table_in_its_place() -> None:
    table = Table(Snapshot(rows=(ROW,)))
    before = table.rows
    table.streamed(Update(revision=1, rows=(OTHER,), gone=(ROW.cidr,)))
    changed = table.rows
    table.streamed(Update(revision=2, whole=True, rows=(ROW,)))

    assert before == {ROW.cidr: ROW}
    assert changed == {OTHER.cidr: OTHER}
    assert table.rows == {ROW.cidr: ROW}


def test_what_whole_tables_lack_is_remembered_as_it_was_last_until_they_are_trusted() -> None:
    table = Table(Snapshot())
    table.streamed(Update(revision=1, whole=True, rows=(ROW, OTHER)))
    table.streamed(Update(revision=2, whole=True, rows=(replace(ROW, node="m"),)))
    table.streamed(Update(revision=3, whole=True))
    lost = table.remembered
    table.trust()

    assert set(lost) == {replace(ROW, node="m"), OTHER}
    assert table.remembered == ()


def test_pools_stay_until_others_are_streamed() -> None:
    table = Table(Snapshot())
    table.streamed(Update(revision=1, with_pools=True, pools=(POOL,)))
    table.streamed(Update(revision=2, whole=True))

    assert table.pools == (POOL,)


def test_what_changed_is_written_once() -> None:
    table = Table(Snapshot(rows=(ROW,)))
    table.streamed(Update(revision=1, whole=True, rows=(OTHER,), with_pools=True, pools=(POOL,)))

    assert table.unsaved() == (Tabulate((OTHER,), (ROW.cidr,), (POOL,)),)
    assert table.unsaved() == ()


def test_a_store_that_is_written_anew_gets_all_of_it() -> None:
    table = Table(Snapshot(rows=(ROW,), pools=(POOL,)))
    table.rewrite(Snapshot(rows=(OTHER,)))

    assert table.unsaved() == (Tabulate((ROW,), (OTHER.cidr,), (POOL,)),)
