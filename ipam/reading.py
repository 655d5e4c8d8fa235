"""Read the store without its agent: nothing is changed, not even its schema brought up to date."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipam.errors import StoreDamaged, StoreUnavailable
from ipam.leases import Record
from ipam.sqlite import APPLICATION_ID, MIGRATIONS, SQLiteStore, readable_since


def read_records(path: Path) -> tuple[Record, ...]:
    """Every record in the file at *path*.  Raises StoreUnavailable, StoreDamaged."""
    with _opened(path) as connection:
        return SQLiteStore(path, connection).load().records


def verify(path: Path) -> list[str]:
    """What is wrong with the file at *path*, a line each.

    That no address has two holders is a constraint of its schema: a sound file cannot break it.
    """
    try:
        with _opened(path) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchall()
            orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
            SQLiteStore(path, connection).load()
    except StoreUnavailable as exc:
        return [str(exc)]
    problems = [f"{path}: {line}" for (line,) in found if line != "ok"]
    if orphans:
        problems.append(f"{path}: {len(orphans)} addresses belong to no attachment")
    return problems


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0, isolation_level=None
        )
        try:
            _recognise(path, connection)
            yield connection
        finally:
            connection.close()
    except (sqlite3.Error, ValueError) as exc:
        raise StoreUnavailable(f"{path} cannot be read: {exc}") from exc


def _recognise(path: Path, connection: sqlite3.Connection) -> None:
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    if identity != APPLICATION_ID:
        raise StoreDamaged(f"{path} is not a store of isthmus (application_id {identity:#x})")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    known = len(MIGRATIONS)
    if version < known or (version > known and readable_since(connection, version) > known):
        raise StoreDamaged(f"{path} has schema version {version}, this program reads {known}")
