"""How long an address takes: choosing it, making it durable, and 32 callers at a time.

    PYTHONPATH=. python bench/leases.py [DIRECTORY]

DIRECTORY should lie on the disk that will hold the leases (default: the current one).  Two ways
to commit run interleaved, each beside 0.6 ms of waiting that stands for an ADD's netlink work:
the writer's thread, and "the first caller commits for all who wait".
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from ipam.allocator import Allocator
from ipam.leases import Attachment, Record, Wanted
from ipam.ranges import Range, RangeSet
from ipam.sqlite import SQLiteStore, open_store
from ipam.store import Delete, Put
from ipam.writer import Writer

NETLINK_S = 0.0006
WANTED = Wanted(
    range_sets=(RangeSet((Range.of("10.0.0.0/16"),)), RangeSet((Range.of("fd00::/64"),)))
)
SPEC = '{"pad":"' + "x" * 300 + '"}'

Commit = Callable[[Put], Callable[[], None]]


def who(number: int) -> Attachment:
    return Attachment("bench", f"{number:064x}", "eth0")


def record(number: int, leases: Allocator | None = None) -> Record:
    chosen = leases.reserve(who(number), WANTED) if leases is not None else ()
    return Record(
        who=who(number),
        boot_id="5f4e8bd6-0000-4000-8000-000000000001",
        started_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        sandbox="/run/netns/cni-00000000-0000-4000-8000-000000000001",
        netns_cookie=number,
        addresses=tuple(lease.address for lease in chosen),
        spec=SPEC,
    )


class Leader:
    """The alternative: whoever comes first when nobody commits does so for all who wait."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store, self._lock, self._disk = store, Lock(), Lock()
        self._waiting: list[tuple[Put, Future[None]]] = []

    def __call__(self, change: Put) -> Callable[[], None]:
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((change, future))

        def wait() -> None:
            while not future.done():
                with self._disk:
                    with self._lock:
                        batch, self._waiting = self._waiting, []
                    if batch:
                        self._store.commit([each for each, _ in batch])
                    for _, each in batch:
                        each.set_result(None)

        return wait


def by_writer(writer: Writer) -> Commit:
    def commit(change: Put) -> Callable[[], None]:
        return writer.submit([change], lambda error: None).result

    return commit


def one(commit: Commit, number: int) -> float:
    began = time.perf_counter()
    wait = commit(Put(record(number)))
    time.sleep(NETLINK_S)
    wait()
    return (time.perf_counter() - began) * 1000


def compare(directory: Path) -> None:
    stores = [open_store(directory / name) for name in ("thread.db", "leader.db")]
    writer = Writer(stores[0])
    ways = {"writer thread": by_writer(writer), "leader": Leader(stores[1])}
    single: dict[str, list[float]] = {name: [] for name in ways}
    parallel: dict[str, list[float]] = {name: [] for name in ways}
    with ThreadPoolExecutor(32) as workers:
        for turn in range(10):
            for name, commit in ways.items():
                numbers = range(1000 * turn, 1000 * turn + 100)
                single[name] += [one(commit, number) for number in numbers]
                began = time.perf_counter()
                list(workers.map(lambda n, c=commit: one(c, n), range(500, 500 + 64)))
                parallel[name].append((time.perf_counter() - began) * 1000)
    for name in ways:
        print(f"{name:14} one at a time {spread(single[name])}", end="   ")
        print(f"64 by 32 in all {spread(parallel[name])}")
    writer.close()
    stores[1].close()


def spread(times: list[float]) -> str:
    parts = statistics.quantiles(times, n=20)
    return f"p50 {statistics.median(times):6.3f} ms [{parts[0]:.3f}-{parts[-1]:.3f}]"


def allocate(directory: Path) -> None:
    leases = Allocator(
        open_store(directory / "leases.db"),
        boot_id="5f4e8bd6-0000-4000-8000-000000000001",
        now=lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )
    chosen, durable = [], []
    for number in range(1000):
        began = time.perf_counter()
        held = record(number, leases)
        middle = time.perf_counter()
        leases.hold(held).result()
        chosen.append((middle - began) * 1000)
        durable.append((time.perf_counter() - began) * 1000)
    print(f"choose two addresses {spread(chosen)}, and make them durable {spread(durable)}")
    began = time.perf_counter()
    for future in [leases.hold(record(number, leases)) for number in range(1000, 10000)]:
        future.result()
    print(f"9,000 leases queued at once: {9000 / (time.perf_counter() - began):,.0f} a second")
    leases.close()
    began = time.perf_counter()
    store = open_store(directory / "leases.db")
    opened = time.perf_counter()
    leases = Allocator(store, boot_id="", now=lambda: 0)
    print(
        f"10,000 leases: opened and checked in {(opened - began) * 1000:.0f} ms,"
        f" loaded in {(time.perf_counter() - opened) * 1000:.0f} ms"
    )
    leases.close()


def statements(directory: Path) -> None:
    """Time the transaction alone: processor time, and all of it."""
    store = open_store(directory / "statements.db")
    records = [record(number) for number in range(1000)]
    wall, cpu = time.perf_counter(), time.thread_time()
    for each in records:
        store.commit([Put(each)])
        store.commit([Delete(each.who)])
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    print(f"a commit in this thread: {wall / 2:.3f} ms, of which processor {cpu / 2:.3f} ms")
    store.close()


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else ".") as name:
        directory = Path(name)
        allocate(directory)
        statements(directory)
        compare(directory)


if __name__ == "__main__":
    main()
