"""ADD and DEL of a node whose blocks come from etcd: with etcd there, stopped and gone."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import hosts
from attachments import NEWEST, p50, p99
from cluster import Cluster, cluster
from figures import Figure, Table
from hosts import BenchError, Plugin, Runs

_NODE = "bench"
# A block has room for all pods at once, so that no further one is asked for while etcd is away.
_POOL = ("ipam", "pools", "create", "four", "10.80.0.0/16", "--block-length", "24")
_SETTLED_S = 3.0
_WITHIN_S = 30.0


def measure(table: Table, work: Path, *, quick: bool) -> None:
    """Fill *table*; etcd's three states, and the reference, take turns in each round."""
    rounds, count = (3, 20) if quick else (8, 64)
    with ExitStack() as undo:
        host = undo.enter_context(hosts.host("outage"))
        made = undo.enter_context(cluster(work / "outage", namespace=host))
        made.admin(*_POOL)
        agent = undo.enter_context(hosts.agent(host, work / "agent", _settings(made)))
        blocks, ranges = (
            hosts.isthmus(agent, families=families, mode="routed") for families in (0, 1)
        )
        other = undo.enter_context(hosts.host("ptp"))
        ptp = hosts.reference(NEWEST, other, work / "ptp", "ptp with host-local 1.9.1", kind="ptp")
        _until_served(blocks)
        for plugin in (ranges, ptp):
            plugin.run("ADD", "DEL", count=2)
        turns: dict[str, tuple[Callable[[], None], Plugin]] = {
            "isthmus, etcd up": (lambda: None, blocks),
            "isthmus, etcd stopped": (lambda: made.etcd.signal(signal.SIGSTOP), blocks),
            "isthmus, etcd gone": (lambda: _kill(made), blocks),
            "isthmus, ranges of its own": (lambda: _begin_again(made), ranges),
            ptp.name: (lambda: None, ptp),
        }
        found: dict[str, list[Runs]] = {name: [] for name in turns}
        for _ in range(rounds):
            for name, (arrange, plugin) in turns.items():
                arrange()
                time.sleep(_SETTLED_S)  # whoever would notice has noticed
                found[name].append(plugin.run("ADD", "DEL", count=count))
    for what, of in (("ADD p50", p50("ADD")), ("ADD p99", p99("ADD")), ("DEL p50", p50("DEL"))):
        figures = {name: Figure(tuple(map(of, runs))) for name, runs in found.items()}
        ours = figures["isthmus, etcd up"]
        for name, figure in figures.items():
            promise = "as with etcd up" if "stopped" in name or "gone" in name else ""
            compared = ours if name == ptp.name else None
            table.add(what, name, figure, ours=compared, promise=promise)


def _settings(made: Cluster) -> str:
    files = made.authority.node(_NODE)
    return (
        f'\n[ipamd]\nendpoints = ["{made.endpoints[0]}"]\nnode = "{_NODE}"\nca = "{files.ca}"\n'
        f'certificate = "{files.certificate}"\nkey = "{files.key}"\naddresses = ["192.0.2.2"]\n'
    )


def _until_served(plugin: Plugin) -> None:
    """The agent claims its block by itself.  Raises BenchError."""
    until = time.monotonic() + _WITHIN_S
    while True:
        try:
            plugin.run("ADD", "DEL", count=2)
            return
        except BenchError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def _kill(made: Cluster) -> None:
    made.etcd.signal(signal.SIGCONT)
    made.etcd.kill()


def _begin_again(made: Cluster) -> None:
    """With the data it had."""
    made.etcd.start()
