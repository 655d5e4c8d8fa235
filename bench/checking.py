"""What an operator asks of a cluster of a thousand nodes: is all well, and take these out of it."""

import json
import time
from pathlib import Path

from agent_needs import resident
from claims import NODES, make_pools
from cluster import Cluster, cluster
from crowd import crowd
from figures import Figure, Table
from hosts import BenchError

LEASES = 30
_WITHIN_S = 120.0


def measure(table: Table, work: Path, *, quick: bool) -> None:
    """Fill *table*.  Every node has a stream, two blocks, and leases that it also mirrored."""
    names = [f"node-{number}" for number in range(NODES)]
    with cluster(work / "checking") as made:
        make_pools(made)
        with crowd(made, names) as nodes:
            nodes.ask("begin", watching=True)
            nodes.ask("lease", each=LEASES)
            pid = made.ipamds[0].pid
            before, used = resident(pid), made.processor()
            # Not of this machine's own agent, where there is one.
            elsewhere = ("--socket", str(work / "none"), "--store", str(work / "none"))
            checks = [_timed(made, "check", *elsewhere) for _ in range(1 if quick else 5)]
            used = (made.processor() - used) / len(checks)
            most = resident(pid, most=True)
            drains = [_timed(made, "drain", f"node-{n}") for n in range(1 if quick else 5)]
            pool = _drain_pool(made)
    who = f"{NODES:,} nodes, {NODES * LEASES:,} leases"
    table.add("isthmus ipam check, nothing wrong", who, Figure(tuple(checks), "s"))
    table.add("… processor of ipamd", who, Figure((used,), "s"))
    table.add("… ipamd resident before", who, Figure((before,), "MB"))
    table.add("… ipamd resident, most", who, Figure((most,), "MB"))
    table.add("isthmus ipam drain NODE", who, Figure(tuple(drains), "s"))
    table.add("a pool drains, every node told", who, Figure((pool,), "s"))


def _timed(made: Cluster, *words: str) -> float:
    began = time.monotonic()
    made.admin("ipam", *words)
    return time.monotonic() - began


def _drain_pool(made: Cluster) -> float:
    """Seconds from the word of an operator until each block of the pool is draining."""
    began = time.monotonic()
    made.admin("ipam", "pools", "set", "four", "--state", "draining")
    while True:
        rows = json.loads(made.admin("ipam", "blocks", "--pool", "four", "--json"))
        if all(row["state"] == "draining" for row in rows):
            return time.monotonic() - began
        if time.monotonic() > began + _WITHIN_S:
            raise BenchError(f"{len(rows)} blocks do not all drain within {_WITHIN_S:g} s")
        time.sleep(0.2)
