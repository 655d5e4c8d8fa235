"""The SQLite store: the contract of all stores, and what can be wrong with a file."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from ipam.allocator import Allocator
from ipam.errors import StoreDamaged, StoreUnavailable
from ipam.sqlite import MIGRATIONS, SQLiteStore, open_store, set_aside, start_over
from ipam.store import Delete, Put, Released, Remember
from tests.unit.ipam.cases import BOOT, WAIT_S, Clock, record, who
from tests.unit.ipam.contract import ONE, TWO, StoreContract, contents


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = open_store(path)
    yield store
    store.close()


class TestSQLiteStore(StoreContract):
    """The fixture above is the store."""


def filled(path: Path, count: int = 200) -> bytes:
    store = open_store(path)
    store.commit(Put(record(who(n), f"10.0.{n // 250}.{n % 250}/16")) for n in range(count))
    store.close()
    return path.read_bytes()


def test_records_and_history_are_there_after_reopening(path: Path) -> None:
    gone = Released(TWO.addresses[0].ip, BOOT, 7)
    store = open_store(path)
    store.commit([Put(ONE), Remember((gone,))])
    store.close()

    again = open_store(path)
    found = contents(again)
    again.close()

    assert found == ({ONE}, {gone})


def test_file_is_for_its_owner_alone_and_recognisable(path: Path, store: SQLiteStore) -> None:
    with sqlite3.connect(path) as db:
        found = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in (
            "application_id", "user_version", "journal_mode",
        )]  # fmt: skip
    db.close()

    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert path.stat().st_mode & 0o777 == 0o600
    assert found == [0x69737468, len(MIGRATIONS), "wal"]
    assert {each.name for each in path.parent.iterdir()} == {
        "leases.db", "leases.db-wal", "leases.db-shm",
    }  # fmt: skip


def test_older_schema_is_brought_up_to_date(path: Path) -> None:
    filled(path, 3)
    newer = (*MIGRATIONS, ("ALTER TABLE attachment ADD COLUMN note TEXT NOT NULL DEFAULT ''",))

    open_store(path, migrations=newer).close()

    with sqlite3.connect(path) as db:
        notes = db.execute("SELECT note FROM attachment").fetchall()
        version = db.execute("PRAGMA user_version").fetchone()
    db.close()
    assert (notes, version) == ([("",)] * 3, (len(MIGRATIONS) + 1,))


def test_failed_migration_leaves_the_file_as_it_was(path: Path) -> None:
    before = filled(path, 3)
    broken = (*MIGRATIONS, ("CREATE TABLE extra (x)", "INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(StoreUnavailable, match="nowhere"):
        open_store(path, migrations=broken)

    store = open_store(path)
    assert len(store.load().records) == 3
    store.close()
    assert path.read_bytes() == before


def test_newer_schema_is_no_damage_and_is_refused_with_both_versions(path: Path) -> None:
    filled(path)
    own = len(MIGRATIONS) + 1
    newer = (*MIGRATIONS, ("CREATE TABLE extra (x)", f"UPDATE readable SET since = {own}"))
    open_store(path, migrations=newer).close()
    before = path.read_bytes()

    known = len(MIGRATIONS)
    with pytest.raises(
        StoreUnavailable, match=rf"schema version {known + 1}; this program knows up to {known}"
    ) as caught:
        open_store(path)
    assert not isinstance(caught.value, StoreDamaged)
    assert path.read_bytes() == before


def test_a_former_program_goes_on_with_what_it_need_not_know(path: Path) -> None:
    filled(path, 3)
    newer = (*MIGRATIONS, ("CREATE TABLE extra (x)",), ("CREATE TABLE more (x)",))
    open_store(path, migrations=newer).close()

    former = open_store(path)
    former.commit([Put(record(who(9), "10.0.0.9/24"))])
    former.close()
    again = open_store(path, migrations=newer)

    assert len(again.load().records) == 4
    again.close()


def test_sqlite_file_of_another_program_is_refused_unchanged(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    db.close()
    before = path.read_bytes()

    with pytest.raises(StoreDamaged, match=r"of another program \(application_id 0x0\)"):
        open_store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda good: b"", "is empty: what was in it is lost"),
        (lambda good: b"not a database, but long enough to have a header" * 20, "not a database"),
        (lambda good: good[:100], "not a database|malformed|corrupt"),
        (lambda good: good[: len(good) // 2], "malformed|corrupt"),
        (lambda good: good[:4096] + b"\xa5" * (len(good) - 4096), "malformed|corrupt"),
        (lambda good: good[:8192] + bytes(4096) + good[12288:], "malformed|corrupt"),
        (lambda good: os.urandom(len(good)), "not a database"),
    ],
    ids=["empty", "text", "header", "half", "pages", "zeroes", "noise"],
)
def test_damaged_file_is_refused_by_name(path: Path, damage: object, message: str) -> None:
    path.write_bytes(damage(filled(path)))

    with pytest.raises(StoreDamaged, match=message) as caught:
        open_store(path)
    assert str(path) in str(caught.value)


def test_directory_that_is_missing_or_no_directory_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for path in (tmp_path / "missing" / "leases.db", tmp_path / "file" / "leases.db"):
        with pytest.raises(StoreUnavailable, match=r"leases\.db: No"):
            open_store(path)


def test_directory_in_place_of_the_file_is_unavailable(path: Path) -> None:
    path.mkdir()

    with pytest.raises(StoreUnavailable, match="unable to open"):
        open_store(path)


def test_file_system_that_takes_no_writes_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match=r"/proc/leases\.db"):
        open_store(Path("/proc/leases.db"))


def test_locked_file_is_unavailable(path: Path, store: SQLiteStore) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._db.execute("PRAGMA busy_timeout = 1")

    with pytest.raises(StoreUnavailable, match="locked"):
        store.commit([Put(ONE)])
    other.execute("ROLLBACK")
    other.close()
    store.commit([Put(ONE)])

    assert store.load().records == (ONE,)


def test_full_disk_fails_the_commit_and_leaves_what_was_there(store: SQLiteStore) -> None:
    store.commit([Put(ONE)])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreUnavailable, match="full"):
        store.commit(Put(record(who(n), f"10.1.{n // 250}.{n % 250}/16")) for n in range(999))
    assert store.load().records == (ONE,)

    store._db.execute("PRAGMA max_page_count = 1000000")
    store.commit([Put(TWO)])

    assert contents(store) == ({ONE, TWO}, set())


def test_corruption_found_at_work_is_damage_not_a_passing_failure(path: Path) -> None:
    size = len(filled(path, 2000))
    store = open_store(path)
    store._db.execute("PRAGMA cache_size = 0")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))

    with pytest.raises(StoreDamaged, match="malformed"):
        store.commit([Put(record(who(1), "10.9.0.2/16"))])
    store.close()


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_file_deleted_while_open_is_noticed_at_the_next_commit(
    path: Path, store: SQLiteStore, suffix: str
) -> None:
    Path(f"{path}{suffix}").unlink()

    with pytest.raises(StoreDamaged, match="was deleted or replaced while in use"):
        store.commit([Put(ONE)])


def test_log_without_its_file_is_refused_not_replayed(path: Path, store: SQLiteStore) -> None:
    store.commit([Put(ONE)])
    path.unlink()

    with pytest.raises(StoreDamaged, match=r"leases\.db is gone but .*leases\.db-wal is still"):
        open_store(path)

    aside = set_aside(path)
    fresh = open_store(path)
    assert fresh.load().records == ()
    fresh.close()
    assert Path(f"{aside}-wal").exists()


@pytest.mark.parametrize("suffixes", [("",), ("-wal",), ("", "-wal"), ("", "-wal", "-shm")])
def test_lost_file_is_replaced_while_the_allocator_runs(
    path: Path, suffixes: tuple[str, ...]
) -> None:
    leases = Allocator(open_store(path), boot_id=BOOT, now=Clock())
    leases.hold(ONE).result(WAIT_S)
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()
    with pytest.raises(StoreDamaged, match="deleted or replaced"):
        leases.hold(TWO).result(WAIT_S)
    assert leases.damaged

    leases.rewrite(lambda: start_over(path)).result(WAIT_S)
    leases.hold(TWO).result(WAIT_S)
    wrong = leases.check()
    assert not leases.damaged
    leases.close()
    store = open_store(path)
    found = contents(store)
    store.close()

    assert (wrong, found) == ([], ({ONE, TWO}, set()))


def test_setting_aside_never_overwrites(path: Path) -> None:
    for text in ("one", "two"):
        path.write_text(text)
        Path(f"{path}-wal").write_text(f"log of {text}")
        set_aside(path)
    Path(f"{path}-shm").write_text("three")

    assert set_aside(path) == Path(f"{path}.damaged-3")
    assert {each.name: each.read_text() for each in path.parent.iterdir()} == {
        "leases.db.damaged-1": "one",
        "leases.db.damaged-1-wal": "log of one",
        "leases.db.damaged-2": "two",
        "leases.db.damaged-2-wal": "log of two",
        "leases.db.damaged-3-shm": "three",
    }


def test_leftover_of_an_interrupted_creation_is_no_obstacle(path: Path) -> None:
    Path(f"{path}.new").write_text("half")
    Path(f"{path}.new-journal").write_text("a hot journal")

    open_store(path).close()

    assert [each.name for each in path.parent.iterdir()] == ["leases.db"]


def test_file_does_not_grow_over_ten_thousand_pairs(path: Path, store: SQLiteStore) -> None:
    store._db.execute("PRAGMA synchronous = OFF")
    sizes = []
    for turn in range(20):
        for n in range(500):
            serial = turn * 500 + n
            store.commit([Put(record(who(serial), f"10.0.{serial % 8}.{n % 250}/16"))])
            store.commit([Delete(who(serial))])
        sizes.append(sum(each.stat().st_size for each in path.parent.iterdir()))

    assert max(sizes[10:]) <= max(sizes[:10])
    assert max(sizes) < 6_000_000


LOAD = dedent("""\
    import sys
    from pathlib import Path
    from concurrent.futures import wait
    from ipam.sqlite import open_store
    from ipam.store import Delete, Put
    from ipam.writer import Writer
    from tests.unit.ipam.cases import record, who

    writer = Writer(open_store(Path(sys.argv[1])))
    for turn in range(100000):
        numbers = range(turn * 8, turn * 8 + 8)
        units = [[Put(record(who(n), f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/8"))] for n in numbers]
        if turn:
            units.append([Delete(who(turn * 8 - 8))])
        for future in [writer.submit(unit, lambda error: None) for unit in units]:
            future.result()
        print(turn, flush=True)
""")


def test_what_was_acknowledged_is_there_after_kill_9(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", LOAD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        for _ in range(60):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        acknowledged = 59 + len(child.stdout.read().split())
    child.wait()

    store = open_store(path)
    found = {one.who for one in store.load().records}
    store.close()

    assert found >= {who(n) for n in range(acknowledged * 8) if n % 8}
    assert not found & {who(turn * 8) for turn in range(acknowledged)}
