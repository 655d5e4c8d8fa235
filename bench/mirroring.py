"""How far etcd is behind the nodes' leases: in steady state, and after etcd was away."""

import time
import urllib.error
import urllib.request
from pathlib import Path

from claims import make_pools
from cluster import Cluster, cluster
from crowd import PROCESSES, Crowd, crowd
from figures import Figure, Table, quantile
from observer import Observer

NODES = 50
LEASES = 10_000
_LENGTHS = ("24", "120")  # a block has room for all of a node's
_STEADY_RATE = 100
_OUTAGE_S = 60.0
_WITHIN_S = 120.0


def measure(table: Table, work: Path, *, quick: bool) -> None:
    """Fill *table*.  In the outage every lease is exchanged for another."""
    outage_s = 15.0 if quick else _OUTAGE_S
    names = [f"node-{number}" for number in range(NODES)]
    with cluster(work / "mirroring") as made:
        make_pools(made, lengths=_LENGTHS)
        with (
            crowd(made, names, "agents.py") as agents,
            Observer(made.etcd_url, "lease/") as etcd,
        ):
            first = agents.ask("begin", each=LEASES // NODES)
            _add(table, "the first mirror of all", _lags(first, etcd))
            leases = 500 if quick else 3_000
            steady = agents.ask("churn", leases=leases // PROCESSES, rate=_STEADY_RATE / PROCESSES)
            _add(table, f"{_STEADY_RATE} exchanged a second", _lags(steady, etcd), "1 s")
            back, changes = _outage(made, agents, outage_s)
            arrived = etcd.times(len(changes), within_s=_WITHIN_S)
    before = [arrived[key] - back for key, at in changes.items() if at < back]
    who = f"{len(before):,} changes in {outage_s:g} s"
    table.add("mirrored after an outage, all", who, Figure((max(before),), "s"), promise="5 s")
    middle = Figure((quantile(before, 0.5),), "s")
    table.add("mirrored after an outage, half", who, middle)


def _outage(made: Cluster, agents: Crowd, outage_s: float) -> tuple[float, dict[str, float]]:
    """When etcd was back, and what was changed when."""
    made.etcd.kill()
    began = time.monotonic()
    agents.tell("churn", leases=LEASES // PROCESSES, rate=LEASES / PROCESSES / outage_s)
    time.sleep(max(0, began + outage_s - time.monotonic()))
    made.etcd.start()
    while not _is_healthy(made.etcd_url):
        time.sleep(0.02)
    back = time.monotonic()
    return back, _merged(agents.answers())


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as page:
            return b'"true"' in page.read()
    except (urllib.error.URLError, OSError):
        return False


def _lags(answers: list[dict[str, dict[str, float]]], etcd: Observer) -> list[float]:
    changes = _merged(answers)
    arrived = etcd.times(len(changes), within_s=_WITHIN_S)
    return [arrived[key] - at for key, at in changes.items()]


def _merged(answers: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    return {key: at for answer in answers for key, at in answer["changes"].items()}


def _add(table: Table, who: str, lags: list[float], promise: str = "") -> None:
    for part in (0.5, 0.99, 1):
        figure = Figure((quantile(lags, part),), "s")
        table.add(f"mirror lag p{part * 100:g}, {LEASES:,} leases", who, figure, promise=promise)
