"""The part of the store that a node of a cluster has; its contract is in test_sqlite."""

import sqlite3
from pathlib import Path

from ipam.sqlite import MIGRATIONS, open_store
from ipam.sqlite_cluster import POOLS, TABLES, formers, holdings, pools, rows
from ipam.store import Own, Put, Snapshot, Stick, Tabulate
from tests.unit.ipam.contract import DB0, ONE, OWN, POOL, ROW


def test_a_file_from_before_clusters_knows_of_none(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.db"
    old = open_store(path, migrations=MIGRATIONS[:1])
    old._db.execute("PRAGMA user_version")
    old.close()

    store = open_store(path)
    found = store.load()
    store.close()

    assert MIGRATIONS[1:3] == (TABLES, POOLS)
    assert found == Snapshot()


def test_all_of_it_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.db"
    store = open_store(path)
    store.commit([Put(ONE), Own(OWN), Stick((DB0,)), Tabulate((ROW,), pools=(POOL,))])
    store.close()

    again = open_store(path)
    found = again.load()
    again.close()

    assert found == Snapshot(
        records=(ONE,), holdings=OWN, formers=(DB0,), rows=(ROW,), pools=(POOL,)
    )


def test_tables_without_rows_are_nothing() -> None:
    db = sqlite3.connect(":memory:")
    for statement in TABLES + POOLS:
        db.execute(statement)

    assert (holdings(db), formers(db), rows(db), pools(db)) == (None, (), (), ())
    db.close()
