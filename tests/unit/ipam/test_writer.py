"""Group commit: one transaction for all that waited, each caller told of its own fate."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from ipam.errors import Conflict, StoreUnavailable
from ipam.store import Change, Delete, MemoryStore, Put
from ipam.writer import Writer
from tests.unit.ipam.cases import WAIT_S, FragileStore, record, who


def ignore(error: Exception | None) -> None:
    pass


@pytest.fixture
def store() -> FragileStore:
    return FragileStore()


@pytest.fixture
def writer(store: FragileStore) -> Iterator[Writer]:
    writer = Writer(store, batch=4)
    yield writer
    store.go.set()
    writer.close()


def put(number: int, address: str) -> Sequence[Change]:
    return [Put(record(who(number), address))]


def test_done_future_means_a_stored_record(writer: Writer, store: FragileStore) -> None:
    writer.submit(put(1, "10.0.0.2/24"), ignore).result(WAIT_S)

    assert store.load().records == (record(who(1), "10.0.0.2/24"),)


def test_what_queued_during_a_commit_is_one_batch_of_bounded_size(
    writer: Writer, store: FragileStore
) -> None:
    store.go.clear()
    first = writer.submit(put(1, "10.0.0.1/24"), ignore)
    assert store.started.wait(WAIT_S)
    others = [writer.submit(put(n, f"10.0.0.{n}/24"), ignore) for n in range(2, 8)]
    store.go.set()

    for future in (first, *others):
        future.result(WAIT_S)

    assert store.batches == [1, 4, 2]


def test_settle_runs_in_order_and_before_its_future_is_done(
    writer: Writer, store: FragileStore
) -> None:
    seen: list[tuple[int, bool]] = []
    futures = []

    def note(number: int) -> Callable[[Exception | None], None]:
        return lambda error: seen.append((number, futures[number].done()))

    store.go.clear()
    for number in range(3):
        futures.append(writer.submit([Delete(who(number))], note(number)))
    store.go.set()
    futures[-1].result(WAIT_S)

    assert seen == [(0, False), (1, False), (2, False)]


def test_one_bad_change_does_not_fail_the_others(writer: Writer, store: FragileStore) -> None:
    store.go.clear()
    first = writer.submit(put(1, "10.0.0.1/24"), ignore)
    assert store.started.wait(WAIT_S)
    good = writer.submit(put(2, "10.0.0.2/24"), ignore)
    bad = writer.submit(put(3, "10.0.0.1/24"), ignore)
    late = writer.submit(put(4, "10.0.0.4/24"), ignore)
    store.go.set()

    assert isinstance(bad.exception(WAIT_S), Conflict)
    assert [future.exception(WAIT_S) for future in (first, good, late)] == [None] * 3
    assert writer.failure == ""


def test_dead_disk_fails_the_whole_batch_and_is_told_until_it_works(
    writer: Writer, store: FragileStore
) -> None:
    store.full = True
    store.go.clear()
    failed = [writer.submit(put(n, f"10.0.0.{n}/24"), ignore) for n in range(1, 5)]
    store.go.set()

    for future in failed:
        with pytest.raises(StoreUnavailable, match="disk full"):
            future.result(WAIT_S)
    assert writer.failure == "disk full"
    assert store.attempts <= 2

    store.full = False
    writer.submit(put(2, "10.0.0.2/24"), ignore).result(WAIT_S)

    assert (writer.failure, writer.doubtful) == ("", True)


def test_mending_finds_out_that_the_disk_works_again_and_changes_what_is_on_it(
    writer: Writer, store: FragileStore
) -> None:
    store.full = True
    writer.submit(put(1, "10.0.0.1/24"), ignore).exception(WAIT_S)
    writer.mend(lambda found: put(2, "10.0.0.2/24"))
    writer.run(lambda _: None).result(WAIT_S)
    assert (writer.failure, writer.doubtful) == ("disk full", True)

    store.full = False
    writer.mend(lambda found: put(2, "10.0.0.2/24"))
    writer.run(lambda _: None).result(WAIT_S)

    assert (writer.failure, writer.doubtful) == ("", False)
    assert [record.who for record in store.load().records] == [who(2)]


class BuggyStore(MemoryStore):
    def commit(self, changes: object) -> None:
        raise ZeroDivisionError


def test_thread_survives_a_bug_in_the_store_and_in_settle() -> None:
    writer = Writer(BuggyStore())

    def explode(error: Exception | None) -> None:
        raise LookupError

    first = writer.submit([Delete(who(1))], ignore).exception(WAIT_S)
    second = writer.submit([Delete(who(1))], explode).exception(WAIT_S)
    writer.close()

    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, LookupError)


def test_run_sees_all_that_was_submitted_before(writer: Writer, store: FragileStore) -> None:
    writer.submit(put(1, "10.0.0.2/24"), ignore)

    assert writer.run(lambda inner: len(inner.load().records)).result(WAIT_S) == 1
    with pytest.raises(ZeroDivisionError):
        writer.run(lambda inner: 1 / 0).result(WAIT_S)


def test_close_commits_what_is_queued_and_refuses_more(store: FragileStore) -> None:
    writer = Writer(store)
    store.go.clear()
    futures = [writer.submit(put(n, f"10.0.0.{n}/24"), ignore) for n in range(1, 4)]
    store.go.set()
    writer.close()
    writer.close()

    assert [future.exception(0) for future in futures] == [None] * 3
    with pytest.raises(StoreUnavailable, match="closed"):
        writer.submit([Delete(who(1))], ignore)
    with pytest.raises(StoreUnavailable, match="closed"):
        writer.run(lambda _: None)


def test_next_store_is_opened_after_the_old_one_closed_and_filled_before_it_is_used(
    writer: Writer, store: FragileStore
) -> None:
    fresh = FragileStore()
    writer.submit(put(1, "10.0.0.2/24"), ignore)

    def open_next() -> FragileStore:
        assert store.closed
        return fresh

    writer.replace(open_next, lambda found: put(1, "10.0.0.2/24")).result(WAIT_S)
    writer.submit(put(2, "10.0.0.3/24"), ignore).result(WAIT_S)

    assert len(fresh.load().records) == 2
    assert len(store.load().records) == 1


def test_failed_replacement_leaves_no_store_until_one_succeeds(writer: Writer) -> None:
    full, fresh = FragileStore(), FragileStore()
    full.full = True

    failed = writer.replace(lambda: full, lambda found: put(1, "10.0.0.2/24"))

    with pytest.raises(StoreUnavailable, match="disk full"):
        failed.result(WAIT_S)
    with pytest.raises(StoreUnavailable, match="disk full"):
        writer.submit(put(2, "10.0.0.3/24"), ignore).result(WAIT_S)
    assert full.closed

    writer.replace(lambda: fresh, lambda found: put(1, "10.0.0.2/24")).result(WAIT_S)

    assert (writer.failure, len(fresh.load().records)) == ("", 1)
