"""How soon a thousand nodes hear of a block that one more has claimed."""

import time
from collections.abc import Sequence
from pathlib import Path

from agent_needs import resident
from claims import NODES, make_pools
from cluster import cluster
from crowd import Crowd, crowd
from figures import Figure, Table, quantile
from hosts import BenchError
from observer import Observer

_WITHIN_S = 10.0


def measure(table: Table, work: Path, *, quick: bool) -> None:
    """Fill *table*: claims one at a time, each told to all streams before the next."""
    names = [f"node-{number}" for number in range(NODES)]
    since_commit: list[list[float]] = []
    since_asked: list[float] = []
    with cluster(work / "fanout") as made:
        make_pools(made)
        with (
            crowd(made, names) as nodes,
            crowd(made, ["new-0"]) as new,
            Observer(made.etcd_url, "state/block/") as etcd,
        ):
            nodes.ask("begin", watching=True)
            new.ask("register")
            for attempt in range(5 if quick else 20):
                time.sleep(1)  # so that none waits for the former
                etcd.times(0, within_s=0)
                claim = new.ask("claim", attempt=attempt)[0]
                committed = min(etcd.times(2, within_s=_WITHIN_S).values())
                told = _told(nodes, claim["blocks"][0])
                since_commit.append([(one - committed) * 1000 for one in told])
                since_asked.append((quantile(told, 0.99) - claim["began"]) * 1000)
            memory = resident(made.ipamds[0].pid)
    who = f"{NODES:,} streams"
    for part in (0.5, 0.99, 1):
        figure = Figure(tuple(quantile(times, part) for times in since_commit))
        promise = "150 ms" if part == 0.99 else ""
        table.add(f"a block told, p{part * 100:g} from commit", who, figure, promise=promise)
    table.add("a block told, p99 from asked", who, Figure(tuple(since_asked)))
    table.add("ipamd resident then", who, Figure((memory,), "MB"), promise="200 MB")


def _told(nodes: Crowd, cidr: str) -> Sequence[float]:
    """When each stream was told of *cidr*.  Raises BenchError where some were not."""
    until = time.monotonic() + _WITHIN_S
    while True:
        times = [one for answer in nodes.ask("told", cidr=cidr) for one in answer["times"]]
        if len(times) == NODES:
            return times
        if time.monotonic() > until:
            raise BenchError(f"{len(times)} of {NODES} streams were told of {cidr}")
        time.sleep(0.05)
