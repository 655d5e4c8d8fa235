"""A node over a state directory: its lock, its store, and what makes it not ready."""

import os
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.wiring import StateLocked, Wired, lock_state, wire
from ipam.errors import StoreUnavailable
from ipam.leases import Attachment, Record, Wanted
from ipam.ranges import Range, RangeSet

WHO = Attachment("shop", "c1", "eth0")
TWO = Wanted(range_sets=(RangeSet((Range.of("10.9.0.0/30"),)),))


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return AgentConfig(state_dir=tmp_path / "state", socket=tmp_path / "agent.sock")


def hold(wired: Wired, boot_id: str = "") -> Record:
    (lease,) = wired.leases.reserve(WHO, TWO)
    record = Record(
        who=WHO,
        boot_id=boot_id or wired.node.boot_id,
        started_ns=7,
        sandbox="/n",
        netns_cookie=1,
        addresses=(lease.address,),
    )
    wired.leases.hold(record).result()
    return record


def test_a_new_node_has_a_private_directory_a_store_and_is_ready(config: AgentConfig) -> None:
    wired = wire(config)
    try:
        assert config.state_dir.stat().st_mode & 0o777 == 0o700
        assert config.database.exists()
        assert wired.node.ready() == ""
        assert wired.node.namespace.inode == os.stat("/proc/self/ns/net").st_ino
    finally:
        wired.close()


def test_what_was_held_is_held_again(config: AgentConfig) -> None:
    first = wire(config)
    record = hold(first)
    first.close()

    second = wire(config)
    found = second.leases.find(WHO)
    second.close()

    assert found == record
    assert record.addresses == (ip_interface("10.9.0.2/30"),)


def test_only_a_store_that_was_there_can_be_lost(config: AgentConfig) -> None:
    owed = []
    for is_lost in (False, False, True):
        if is_lost:
            config.database.unlink()
        wired = wire(config)
        owed.append(wired.reconciler.search.owed)
        wired.close()
    config.lost.unlink()
    config.database.write_bytes(b"")
    wired = wire(config)
    owed.append(wired.reconciler.search.owed)
    wired.close()

    assert owed == [False, False, True, True]


def test_two_cannot_work_on_one_directory(config: AgentConfig) -> None:
    first = wire(config)
    try:
        with pytest.raises(StateLocked) as caught:
            wire(config)
    finally:
        first.close()
    wire(config).close()

    assert str(caught.value) == (
        f"{config.lock} is locked: another isthmus agent or standalone program is at work"
    )


def test_a_store_that_cannot_be_opened_is_left_alone_and_nothing_promised(
    config: AgentConfig,
) -> None:
    config.state_dir.mkdir()
    config.database.mkdir()
    before = len(os.listdir("/proc/self/fd"))

    wired = wire(config)
    wired.mend_store()
    reason = wired.node.ready()
    with pytest.raises(StoreUnavailable):
        wired.leases.reserve(WHO, TWO)
    wired.close()

    assert reason.startswith("addresses cannot be made durable: ")
    assert str(config.database) in reason
    assert config.database.is_dir()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_that_was_left_alone_is_begun_with_once_it_opens(config: AgentConfig) -> None:
    first = wire(config)
    record = hold(first)
    first.close()
    away = config.database.with_name("away")
    config.database.rename(away)
    config.database.mkdir()

    wired = wire(config)
    at_first = wired.can_begin_anew()
    config.database.rmdir()
    away.rename(config.database)
    afterwards = wired.can_begin_anew()
    wired.mend_store()
    wired.close()
    again = wire(config)
    found = again.leases.find(WHO)
    again.close()

    assert (at_first, afterwards) == (False, True)
    assert found == record


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="Not a directory"):
        wire(AgentConfig(state_dir=tmp_path / "file" / "state"))


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 999])
def test_a_damaged_store_is_kept_aside_and_a_new_one_serves(
    config: AgentConfig, content: bytes
) -> None:
    config.state_dir.mkdir()
    config.database.write_bytes(content)

    wired = wire(config)
    ready = wired.node.ready()
    hold(wired)
    wired.close()

    aside = [path for path in config.state_dir.iterdir() if path.read_bytes() == content]
    assert ready == ""
    assert len(aside) == 1
    assert aside[0] != config.database


def test_a_store_that_went_is_written_anew_with_all_that_is_held(config: AgentConfig) -> None:
    wired = wire(config)
    record = hold(wired)
    for path in config.state_dir.glob("isthmus.db*"):
        path.unlink()
    wired.leases.expire()
    spoil(wired)

    wired.mend_store()
    degraded = wired.leases.degraded
    owed = wired.reconciler.search.owed
    wired.close()

    again = wire(config)
    found = again.leases.find(WHO)
    again.close()
    assert degraded == ""
    assert not owed  # nothing was forgotten
    assert found == record


def spoil(wired: Wired) -> None:
    """Let the store notice that its file has gone: by a write that it has to refuse."""
    try:
        wired.leases.hold(replace(hold_of(wired), started_ns=8)).result()
    except StoreUnavailable:
        wired.leases.hold(hold_of(wired))


def hold_of(wired: Wired) -> Record:
    found = wired.leases.find(WHO)
    assert found is not None

    return found


def test_a_store_that_works_is_left_alone(config: AgentConfig) -> None:
    wired = wire(config)
    before = config.database.stat().st_ino

    wired.mend_store()
    after = config.database.stat().st_ino
    wired.close()

    assert before == after


def test_a_node_whose_unusable_store_goes_gets_a_new_one(config: AgentConfig) -> None:
    config.state_dir.mkdir()
    config.database.mkdir()
    wired = wire(config)
    config.database.rmdir()

    wired.mend_store()
    ready = wired.node.ready()
    wired.close()

    # What the file told of is in no memory: only a search can tell what is free.
    assert "yet to be searched" in ready
    assert config.lost.exists()
    assert config.database.is_file()


def full(wired: Wired) -> str:
    hold(wired)
    return wired.node.ready()


@pytest.mark.parametrize(
    ("counts", "reason"), [(False, ""), (True, "no free address in 10.9.0.0/30")]
)
def test_a_full_range_counts_only_where_it_was_asked_for(
    config: AgentConfig, counts: bool, reason: str
) -> None:
    wired = wire(replace(config, status_counts_addresses=counts))
    found = full(wired)
    wired.close()

    assert found == reason


def test_a_lock_is_held_as_long_as_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = lock_state(path)
    with pytest.raises(StateLocked):
        lock_state(path)
    os.close(first)

    os.close(lock_state(path))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("was_here", [False, True])
def test_a_node_where_another_plugin_may_have_been_is_searched_once(
    config: AgentConfig, was_here: bool
) -> None:
    if was_here:
        wire(config).close()
    wired = wire(replace(config, host_local=config.state_dir / "networks"))
    owed, shared = wired.reconciler.search.owed, wired.node.host_local
    wired.close()

    assert owed is not was_here
    assert shared is not None
