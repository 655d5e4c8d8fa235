#!/usr/bin/env python3
"""What translating Services takes, by isthmus and by kube-proxy, on the same API objects.

    bench/services.py [PART...]        planner, cold, memory, paths; all of them
                                       QUICK=1 for a short run; ROUNDS=N

A real kube-apiserver with a real etcd; whoever translates is a real process, and takes turns with
the others within each round.  The answer is a table, as docs/specification.md has it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import hosts  # noqa: E402
from figures import Figure, Table, paired, quantile  # noqa: E402
from hosts import BenchError  # noqa: E402
from report import report  # noqa: E402
from service_proxies import IPTABLES, ISTHMUS, NFTABLES, Proxy  # noqa: E402
from service_site import PORT, TARGET, Site, cluster_ip, pod, site  # noqa: E402

from tests.kernel.sockets import inside  # noqa: E402

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = int(os.environ.get("ROUNDS") or (2 if QUICK else 6))
SIZES = (100, 400) if QUICK else (1_000, 5_000, 10_000, 30_000)
LARGEST_OF_KUBE_PROXY = 5_000
LIMIT_S = 180.0
CHANGES = 5 if QUICK else 25
_NAMES = (ISTHMUS, NFTABLES, IPTABLES)


def planner(table: Table, work: Path) -> None:
    """The agent's own code, without a network: processor time, and one change among many."""
    for number in (100,) if QUICK else (10_000, 30_000):
        runs = [_own("cold", number, 2) for _ in range(ROUNDS)]
        for what, promise in (
            ("heard", ""),
            ("planned", ""),
            ("handed", {10_000: "0.3 s", 30_000: "1 s"}.get(number, "")),
        ):
            figure = Figure(tuple(run[what] for run in runs), "s")
            table.add(f"{number:,} Services, {what}", "processor time", figure, promise=promise)
        both = Figure(tuple(run["planned"] + run["handed"] for run in runs), "s")
        promise = {10_000: "1 s", 30_000: "3 s"}.get(number, "")
        table.add(f"{number:,} Services, planned and handed", "processor time", both,
                  promise=promise)  # fmt: skip
    count = 50 if QUICK else 1000
    for number in (10, 100) if QUICK else (10, 1_000, 10_000, 30_000):
        found = _own("changes", number, count)
        processor = found.pop("processor")
        for part, promise in ((0.5, "1 ms"), (0.99, "3 ms")):
            for kind, times in found.items():
                table.add(f"an endpoint {kind}, p{part * 100:g}", f"among {number:,} Services",
                          Figure((quantile(times, part),)), promise=promise)  # fmt: skip
        table.add("a change, processor time, p50", f"among {number:,} Services",
                  Figure((quantile(processor, 0.5),)), promise="flat")  # fmt: skip


def _own(*words: object) -> dict[str, object]:
    """The answer of bench/service_changes.py in a namespace of its own."""
    with hosts.namespace(f"{hosts.PREFIX}own"):
        done = subprocess.run(
            ["ip", "netns", "exec", f"{hosts.PREFIX}own", sys.executable,
             str(ROOT / "bench/service_changes.py"), *map(str, words)],
            capture_output=True, text=True, check=False,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        )  # fmt: skip
    if done.returncode:
        raise BenchError(done.stderr.strip())
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def cold(table: Table, work: Path) -> None:
    """From the start of a process until every Service answers; then one change after another."""
    with site(work / "cold", _NAMES) as made:
        proxies = [Proxy(made, name) for name in _NAMES]
        try:
            endpoints = 200 if QUICK else 5_000
            made.alone(endpoints)
            _start_cold(table, proxies, f"one Service of {endpoints:,} endpoints", ROUNDS)
            made.empty()
            for size in SIZES:
                made.grow(size)
                is_fair = size <= LARGEST_OF_KUBE_PROXY
                rounds = ROUNDS if is_fair else 1
                here = proxies if is_fair else proxies[1:]
                _start_cold(table, here, f"{size:,} Services of 2 endpoints", rounds)
                if not is_fair:
                    _start_cold(table, proxies[:1], f"{size:,} Services of 2 endpoints", ROUNDS)
                if size in (SIZES[0], SIZES[-1]):
                    _change(table, made, proxies if is_fair else [proxies[0], proxies[2]])
        finally:
            for each in proxies:
                each.stop()


def _start_cold(table: Table, proxies: Sequence[Proxy], what: str, rounds: int) -> None:
    wall: dict[str, list[float]] = {each.title: [] for each in proxies}
    processor: dict[str, list[float]] = {each.title: [] for each in proxies}
    for _ in range(rounds):
        for each in proxies:
            try:
                took = each.cold(LIMIT_S)
            except BenchError as exc:
                sys.stderr.write(f"{exc}\n")
                continue
            finally:
                each.clean()
            wall[each.title].append(took[0])
            processor[each.title].append(took[1])
    for kind, found in (("from process start", wall), ("… processor time", processor)):
        ours = Figure(tuple(found.get("isthmus") or (0.0,)), "s")
        for who, times in found.items():
            if not times:
                table.rows.append((f"{what}, {kind}", who, f"not within {LIMIT_S:.0f} s", "", ""))
                continue
            figure = Figure(tuple(times), "s")
            beside = ""
            if who != "isthmus" and len(times) == len(ours.rounds):
                beside = paired(figure, ours)
            table.add(f"{what}, {kind}", who, figure, beside=beside)


def _change(table: Table, made: Site, proxies: Sequence[Proxy]) -> None:
    """One endpoint in place of another, until a new connection is led to it; nobody else works."""
    for each in proxies:
        each.clean()
        each.start()
        try:
            each.wait(LIMIT_S)
            _changes_of(table, made, each)
        finally:
            each.clean()


def _changes_of(table: Table, made: Site, proxy: Proxy) -> None:
    endpoints = (100_000, 100_001)
    made.lead(0, endpoints[0])
    _until_led(proxy, endpoints[0])
    time.sleep(2)
    before = proxy.syncs()
    requests, sent = made.metric("apiserver_request_total"), proxy.node.traffic()
    used, times = proxy.processor(), []
    for attempt in range(1, CHANGES + 1):
        begun = time.monotonic()
        made.lead(0, endpoints[attempt % 2])
        _until_led(proxy, endpoints[attempt % 2])
        times.append((time.monotonic() - begun) * 1000)
        time.sleep(1.2)  # kube-proxy rests for a second after each
    after = proxy.syncs()
    # Ours are one each, and that which read the metrics before.
    requests = made.metric("apiserver_request_total") - requests - CHANGES - 1
    among = f"a change among {made.count:,} Services"
    table.add(f"{among}, from the call to a connection", proxy.title, Figure(tuple(times)))
    mean = (after[0] - before[0]) / max(1, after[1] - before[1])
    table.add("… its own round, mean", proxy.title, Figure((mean,)))
    each = (proxy.processor() - used) * 1000 / CHANGES
    table.add("… processor time, and what passes meanwhile", proxy.title, Figure((each,)))
    table.add("… requests to the API server", proxy.title, Figure((requests / CHANGES,), ""))
    size = (proxy.node.traffic() - sent) / CHANGES / 1000
    table.add("… bytes from and to it", proxy.title, Figure((size,), "kB"))


def _until_led(proxy: Proxy, endpoint: int) -> None:
    """Until a connection to Service 0 comes to *endpoint*."""
    import socket

    wanted, until = socket.inet_aton(pod(endpoint)), time.monotonic() + 60
    with inside(proxy.node.client):
        while time.monotonic() < until:
            with socket.socket() as client:
                client.settimeout(1)
                try:
                    client.connect((cluster_ip(0), PORT))
                    client.sendall(b"c")
                    if client.recv(4) == wanted:
                        return
                except OSError:
                    continue
    raise BenchError(f"{proxy.title}: nobody was led to {pod(endpoint)}")


def paths(table: Table, work: Path) -> None:
    """Connections and throughput through a Service, beside none; rules stay, nobody works."""
    with site(work / "paths", _NAMES) as made:
        proxies = [Proxy(made, name) for name in _NAMES]
        try:
            for size in (1, *SIZES[:2], SIZES[-1]):
                made.grow(size)
                here = []
                for each in proxies:
                    if each.name == NFTABLES and size > LARGEST_OF_KUBE_PROXY:
                        continue
                    each.clean()
                    each.start()
                    each.wait(LIMIT_S)
                    each.stop()
                    here.append(each)
                _connect(table, here, size)
        finally:
            for each in proxies:
                each.stop()


def _connect(table: Table, proxies: Sequence[Proxy], size: int) -> None:
    count, rounds = (300, 3) if QUICK else (3_000, 12)
    last = cluster_ip(size - 1)
    own = proxies[0].node
    ways: dict[str, Callable[[], tuple[float, ...]]] = {
        "to the pod": lambda: _all(own, pod(2 * size - 1), TARGET, count)
    }
    for each in proxies:
        ways[each.title] = lambda at=each.node: _all(at, last, PORT, count)  # type: ignore[misc]
    found: dict[str, list[tuple[float, ...]]] = {who: [] for who in ways}
    order, random = list(ways), Random(size)
    for _ in range(rounds):
        random.shuffle(order)
        for who in order:
            found[who].append(ways[who]())
    kinds = (("connections per second", ""), ("connect, p50", "us"), ("connect, p99", "us"),
             ("throughput", "Gbit/s"))  # fmt: skip
    for at, (kind, unit) in enumerate(kinds):
        ours = Figure(tuple(each[at] for each in found["isthmus"]), unit)
        for who, values in found.items():
            figure = Figure(tuple(each[at] for each in values), unit)
            pair = (figure, ours) if unit == "us" else (ours, figure)
            beside = "" if who == "isthmus" else paired(*pair)
            table.add(f"{kind}, {size:,} Services", who, figure, beside=beside)


def _all(node: object, address: str, port: int, count: int) -> tuple[float, ...]:
    from service_site import Node

    assert isinstance(node, Node)
    return (*node.rate(address, port, count), node.throughput(address, port, 0.5))


def memory(table: Table, work: Path) -> None:
    """What is resident with 10,000 Services of five endpoints each."""
    with site(work / "memory", (ISTHMUS, IPTABLES)) as made:
        number = 100 if QUICK else 10_000
        made.grow(number, 5)
        for name in (ISTHMUS, IPTABLES):
            proxy = Proxy(made, name)
            proxy.start()
            try:
                proxy.wait(LIMIT_S)
                time.sleep(5)
                figure = Figure((proxy.resident_mb(),), "MB")
                promise = "100 MB" if name == ISTHMUS else ""
                table.add(f"resident, {number:,} Services of 5 endpoints", proxy.title, figure,
                          promise=promise)  # fmt: skip
            finally:
                proxy.clean()


PARTS = {each.__name__: each for each in (planner, cold, memory, paths)}


def measure(table: Table, work: Path) -> None:
    for part in sys.argv[1:] or PARTS:
        PARTS[part](table, work)


if __name__ == "__main__":
    sys.exit(report(measure, ROOT / "build", comparison="Ratio, above 1 isthmus is better"))
