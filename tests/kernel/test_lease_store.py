"""The lease store on a file system that is full, or takes no writes."""

import subprocess
import sys
from textwrap import dedent

import pytest

pytestmark = pytest.mark.kernel

PROLOGUE = dedent("""\
    import subprocess
    from pathlib import Path
    from ipam.errors import StoreUnavailable
    from ipam.sqlite import open_store
    from ipam.store import Put
    from tests.unit.ipam.cases import record, who

    disk = Path("/mnt")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "leases", disk], check=True)
    path = disk / "leases.db"

    def put(number):
        store.commit([Put(record(who(number), f"10.0.{number >> 8}.{number & 255}/16"))])
""")

FULL = dedent("""\
    store = open_store(path)
    (disk / "ballast").write_bytes(bytes(1 << 17))
    acknowledged = 0
    try:
        while True:
            put(acknowledged)
            acknowledged += 1
    except StoreUnavailable as exc:
        print(exc)
    for number in (acknowledged, acknowledged + 1):
        try:
            put(number)
            print("unexpected success")
        except StoreUnavailable:
            pass
    print(len(store.load().records) == acknowledged > 3)
    (disk / "ballast").unlink()
    put(acknowledged)
    store.close()
    again = open_store(path)
    print({one.who for one in again.load().records} == set(map(who, range(acknowledged + 1))))
""")

NO_ROOM_TO_CREATE = dedent("""\
    try:
        (disk / "ballast").write_bytes(bytes(1 << 20))
    except OSError:
        pass
    try:
        open_store(path)
    except StoreUnavailable as exc:
        print(exc)
    (disk / "ballast").unlink()
    store = open_store(path)
    put(1)
    print(len(store.load().records))
""")

READ_ONLY = dedent("""\
    store = open_store(path)
    put(1)
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        open_store(path)
    except StoreUnavailable as exc:
        print(exc)
""")


def run(script: str) -> list[str]:
    """Run *script* with a small disk at /mnt, in a mount namespace of its own."""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", PROLOGUE + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_full_disk_fails_commits_keeps_the_acknowledged_and_heals() -> None:
    reason, kept, healed = run(FULL)

    assert reason.startswith("/mnt/leases.db: ")
    assert "full" in reason
    assert (kept, healed) == ("True", "True")


def test_store_that_could_not_be_made_can_be_made_later() -> None:
    reason, records = run(NO_ROOM_TO_CREATE)

    assert "full" in reason or "No space" in reason
    assert records == "1"


def test_read_only_file_system_is_unavailable_by_name() -> None:
    (reason,) = run(READ_ONLY)

    assert reason.startswith("/mnt/leases.db")
    assert "readonly" in reason or "Read-only" in reason or "unable to open" in reason
