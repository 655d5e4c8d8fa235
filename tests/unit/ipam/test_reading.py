"""The store read beside its agent, and after it."""

import sqlite3
from ipaddress import ip_interface
from pathlib import Path

import pytest

from ipam.errors import StoreDamaged, StoreUnavailable
from ipam.leases import Attachment, Record
from ipam.reading import read_records, verify
from ipam.sqlite import MIGRATIONS, open_store
from ipam.store import Put

RECORD = Record(
    who=Attachment("isthmus", "c1", "eth0"),
    boot_id="b",
    started_ns=1,
    sandbox="/run/netns/c1",
    netns_cookie=2**63 + 1,
    addresses=(ip_interface("10.66.0.2/16"),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = open_store(tmp_path / "isthmus.db")
    store.commit([Put(RECORD)])
    store.close()
    return tmp_path / "isthmus.db"


def test_records_are_read_after_the_agent_has_gone(path: Path) -> None:
    assert read_records(path) == (RECORD,)


def test_records_are_read_while_the_agent_has_the_store_open(path: Path) -> None:
    store = open_store(path)

    found = read_records(path)

    store.close()
    assert found == (RECORD,)


def test_what_a_killed_agent_left_in_the_log_is_read(path: Path, tmp_path: Path) -> None:
    other = RECORD.who.__class__("isthmus", "c2", "eth0")
    store = open_store(path)
    store.commit([Put(Record(who=other, boot_id="b", started_ns=2, sandbox="", netns_cookie=0))])
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal"):
        (copy / f"isthmus.db{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    store.close()

    found = read_records(copy / "isthmus.db")

    assert {record.who for record in found} == {RECORD.who, other}


def test_a_sound_store_verifies(path: Path) -> None:
    assert verify(path) == []


def test_an_address_without_attachment_is_a_problem(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO address VALUES (99, 0, x'0A420009', 16)")
    db.close()

    assert verify(path) == [f"{path}: 1 addresses belong to no attachment"]


def test_a_file_of_another_program_is_not_taken_for_a_store(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()

    with pytest.raises(StoreDamaged, match="not a store of isthmus"):
        read_records(foreign)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"x" * 5000)

    with pytest.raises(StoreUnavailable, match=r"junk\.db"):
        read_records(junk)

    assert len(verify(junk)) == 1


def test_a_store_of_a_later_schema_is_read_where_it_says_that_it_may_be(path: Path) -> None:
    own = len(MIGRATIONS) + 1
    open_store(path, migrations=(*MIGRATIONS, ("CREATE TABLE later (x)",))).close()
    found = read_records(path)
    change = ("CREATE TABLE other (x)", f"UPDATE readable SET since = {own + 1}")
    open_store(path, migrations=(*MIGRATIONS, ("CREATE TABLE later (x)",), change)).close()

    assert found == (RECORD,)
    with pytest.raises(StoreDamaged, match=f"schema version {own + 1}, this program reads"):
        read_records(path)
