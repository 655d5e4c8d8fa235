"""The durable store: one SQLite file in WAL mode, synced at every commit.

    attachment   one row a record, keyed (network, container_id, ifname)
    address      the addresses of each attachment in order; UNIQUE, so no bug gives one twice
    released     the history: who cools down, and since when
    node, block, former, table_row, pool    of a node of a cluster: ipam.sqlite_cluster
    readable     which former programs can go on with the file

The file is recognised by its application_id, its schema version is user_version.  A new one is
made under another name and renamed into place, so a file without our schema is never a crash of
ours, and an empty one is damage.  Before a commit is acknowledged the files must still be the
ones that were opened: a deleted file goes on taking writes that nobody will ever read.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any

from ipam import sqlite_cluster
from ipam.errors import Conflict, StoreDamaged, StoreUnavailable
from ipam.leases import Attachment, Record, State
from ipam.store import (
    Change,
    Delete,
    Forget,
    Own,
    Put,
    Released,
    Remember,
    Snapshot,
    Stick,
    Tabulate,
)
from net.address import IPAddress, IPInterface

APPLICATION_ID = 0x69737468  # "isth"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE attachment (
            id INTEGER PRIMARY KEY, network TEXT NOT NULL, container_id TEXT NOT NULL,
            ifname TEXT NOT NULL, boot_id TEXT NOT NULL, started_ns INTEGER NOT NULL,
            sandbox BLOB NOT NULL, netns_cookie BLOB NOT NULL, state TEXT NOT NULL,
            reserved_ns INTEGER NOT NULL, spec TEXT NOT NULL,
            UNIQUE (network, container_id, ifname)
        )""",
        """CREATE TABLE address (
            attachment INTEGER NOT NULL REFERENCES attachment ON DELETE CASCADE,
            position INTEGER NOT NULL, address BLOB NOT NULL UNIQUE, prefix INTEGER NOT NULL,
            PRIMARY KEY (attachment, position)
        ) WITHOUT ROWID""",
        """CREATE TABLE released (
            address BLOB PRIMARY KEY, boot_id TEXT NOT NULL, released_ns INTEGER NOT NULL
        ) WITHOUT ROWID""",
    ),
    sqlite_cluster.TABLES,
    sqlite_cluster.POOLS,
    (
        "CREATE TABLE readable (since INTEGER NOT NULL)",
        "INSERT INTO readable VALUES (4)",
    ),
)
"""What brings a file from each schema version to the next; version 0 is an empty file.

A program that knows version *since* of the table `readable` goes on with any newer file, so that a
node can go back to it.  A migration that only makes tables leaves that as it is; one of which a
former program must not know too little puts its own version there.
"""

_SUFFIXES = ("", "-wal", "-shm")
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_COLUMNS = (
    "network, container_id, ifname, boot_id, started_ns, sandbox, netns_cookie, state,"
    " reserved_ns, spec"
)
_PUT = f"""INSERT INTO attachment ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (network, container_id, ifname) DO UPDATE SET boot_id = excluded.boot_id,
        started_ns = excluded.started_ns, sandbox = excluded.sandbox,
        netns_cookie = excluded.netns_cookie, state = excluded.state,
        reserved_ns = excluded.reserved_ns, spec = excluded.spec
    RETURNING id"""


class SQLiteStore:
    """Implements ipam.store.Store; made by `open_store`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._db = connection
        self._identity = self._observe()

    def load(self) -> Snapshot:
        with _mapped(self._path):
            addresses: dict[int, list[IPInterface]] = {}
            for key, packed, prefix in self._db.execute(
                "SELECT attachment, address, prefix FROM address ORDER BY attachment, position"
            ):
                addresses.setdefault(key, []).append(_interface(packed, prefix))
            records = tuple(
                _record(row, tuple(addresses.get(row[0], ())))
                for row in self._db.execute(f"SELECT id, {_COLUMNS} FROM attachment")
            )
            history = tuple(
                Released(_address(packed), boot_id, released_ns)
                for packed, boot_id, released_ns in self._db.execute("SELECT * FROM released")
            )
            return Snapshot(
                records,
                history,
                sqlite_cluster.holdings(self._db),
                sqlite_cluster.formers(self._db),
                sqlite_cluster.rows(self._db),
                sqlite_cluster.pools(self._db),
            )

    def commit(self, changes: Iterable[Change]) -> None:
        with self._transaction():
            for change in changes:
                match change:
                    case Put(record):
                        self._put(record)
                    case Delete(who):
                        self._db.execute(
                            "DELETE FROM attachment"
                            " WHERE network = ? AND container_id = ? AND ifname = ?",
                            (who.network, who.container_id, who.ifname),
                        )
                    case Remember(released):
                        self._db.executemany(
                            "INSERT OR REPLACE INTO released VALUES (?, ?, ?)",
                            [
                                (one.address.packed, one.boot_id, one.released_ns)
                                for one in released
                            ],
                        )
                    case Forget(addresses):
                        self._forget(addresses)
                    case Own() | Stick() | Tabulate():
                        sqlite_cluster.write(self._db, change)

    def probe(self) -> None:
        with self._transaction():
            # Setting it to what it is writes a page all the same.
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def close(self) -> None:
        self._db.close()

    def _put(self, record: Record) -> None:
        who = record.who
        row = self._db.execute(
            _PUT,
            (
                who.network,
                who.container_id,
                who.ifname,
                record.boot_id,
                record.started_ns,
                # A path is bytes, not always UTF-8.
                os.fsencode(record.sandbox),
                # Unsigned of 64 bits, which SQLite's integers are not.
                record.netns_cookie.to_bytes(8, "big"),
                record.state.value,
                record.reserved_ns,
                record.spec,
            ),
        ).fetchall()
        key = row[0][0]
        self._db.execute("DELETE FROM address WHERE attachment = ?", (key,))
        self._db.executemany(
            "INSERT INTO address VALUES (?, ?, ?, ?)",
            [
                (key, position, one.ip.packed, one.network.prefixlen)
                for position, one in enumerate(record.addresses)
            ],
        )
        self._forget([one.ip for one in record.addresses])

    def _forget(self, addresses: Sequence[IPAddress]) -> None:
        self._db.executemany(
            "DELETE FROM released WHERE address = ?", [(one.packed,) for one in addresses]
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _mapped(self._path):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        if self._observe() != self._identity:
            raise StoreDamaged(f"{self._path} was deleted or replaced while in use")

    def _observe(self) -> tuple[object, ...]:
        found: list[object] = []
        for suffix in ("", "-wal"):
            try:
                status = os.stat(f"{self._path}{suffix}")
            except OSError as exc:
                found.append(exc.errno)
            else:
                found.append((status.st_dev, status.st_ino))
        return tuple(found)


def open_store(path: Path, *, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> SQLiteStore:
    """Open the file at *path*, made anew if there is none, and bring its schema up to date.

    Raises StoreDamaged when what is there must be set aside first, else StoreUnavailable: also
    for a schema too new for *migrations*, which is no damage and is left as it is.
    """
    with _mapped(path):
        if not path.exists():
            _create(path, migrations)
        elif path.stat().st_size == 0:
            raise StoreDamaged(f"{path} is empty: what was in it is lost")
        db = _connect(path)
        try:
            _recognise(path, db, known=len(migrations))
            _migrate(db, migrations)
            # A lock that cannot be had, or a file system that takes no writes, shows now.
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
            return SQLiteStore(path, db)
        except BaseException:
            db.close()
            raise


def set_aside(path: Path) -> Path:
    """Rename the damaged file at *path*, with its log, to `<name>.damaged-<n>`; say to which.

    What is not there is not renamed.  Raises StoreUnavailable.
    """
    number = 1
    while any(Path(f"{path}.damaged-{number}{suffix}").exists() for suffix in _SUFFIXES):
        number += 1
    aside = Path(f"{path}.damaged-{number}")
    with _mapped(path):
        for suffix in _SUFFIXES:
            if os.path.lexists(f"{path}{suffix}"):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        _sync_directory(path.parent)
    return aside


def start_over(path: Path) -> SQLiteStore:
    """Set aside whatever is at *path* and open a new store there.  Raises StoreUnavailable."""
    set_aside(path)
    return open_store(path)


def _create(path: Path, migrations: Sequence[Sequence[str]]) -> None:
    if strays := [suffix for suffix in _SUFFIXES if os.path.lexists(f"{path}{suffix}")]:
        # SQLite would replay the log of a lost file into the new one.
        raise StoreDamaged(f"{path} is gone but {path}{strays[0]} is still there")
    fresh = Path(f"{path}.new")
    for suffix in ("", "-journal"):
        Path(f"{fresh}{suffix}").unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    db = _connect(fresh)
    try:
        db.execute("PRAGMA synchronous = FULL")
        _migrate(db, migrations)
    finally:
        db.close()
    os.rename(fresh, path)
    _sync_directory(path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=2.0,
        isolation_level=None,
        check_same_thread=False,
    )


def _recognise(path: Path, db: sqlite3.Connection, *, known: int) -> None:
    found = _pragma(db, "application_id")
    if found != APPLICATION_ID:
        raise StoreDamaged(
            f"{path} is an SQLite file of another program (application_id {found:#x})"
        )
    version = _pragma(db, "user_version")
    if version > known and readable_since(db, version) > known:
        raise StoreUnavailable(
            f"{path} has schema version {version}; this program knows up to {known}"
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    # After a checkpoint the log is cut to this; it is checkpointed each 1,000 pages.
    db.execute("PRAGMA journal_size_limit = 4194304")
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreDamaged(f"{path} is corrupt: {verdict}")


def _migrate(db: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    version = _pragma(db, "user_version")
    if version >= len(migrations):
        return
    db.execute("BEGIN IMMEDIATE")
    for statements in migrations[version:]:
        for statement in statements:
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(migrations)}")
    db.execute("COMMIT")


def readable_since(db: sqlite3.Connection, version: int) -> int:
    """The schema version that a program has to know for a file of *version*, which is later."""
    try:
        return int(db.execute("SELECT since FROM readable").fetchone()[0])
    except (sqlite3.OperationalError, TypeError):  # no such table, no row
        return version


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours, at this one place."""
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_CONSTRAINT:
            raise Conflict(f"{path}: {exc}") from exc
        if code in _DAMAGED:
            raise StoreDamaged(f"{path} is not usable: {exc}") from exc
        raise StoreUnavailable(f"{path}: {exc}") from exc
    except UnicodeDecodeError as exc:  # SQLite's words quote a schema that is none any more
        raise StoreDamaged(f"{path} is not usable: its schema is no text") from exc
    except OSError as exc:
        raise StoreUnavailable(f"{path}: {exc.strerror or exc}") from exc


def _address(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _interface(packed: bytes, prefix: int) -> IPInterface:
    if len(packed) == 4:
        return IPv4Interface((packed, prefix))
    return IPv6Interface((packed, prefix))


def _record(row: tuple[Any, ...], addresses: tuple[IPInterface, ...]) -> Record:
    _, *key, boot_id, started_ns, sandbox, cookie, state, reserved_ns, spec = row
    return Record(
        who=Attachment(*key),
        boot_id=boot_id,
        started_ns=started_ns,
        sandbox=os.fsdecode(sandbox),
        netns_cookie=int.from_bytes(cookie, "big"),
        state=State(state),
        addresses=addresses,
        spec=spec,
        reserved_ns=reserved_ns,
    )
