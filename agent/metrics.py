"""The metrics page: what the agent counts anyway, in Prometheus' text form.

A collector reads the numbers when the page is asked for, so the ADD path counts nothing twice.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipam.allocator import Counters
from ipam.ledger import Usage

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 20.0)


@dataclass(slots=True)
class Requests:
    """How many requests ended how, and how long they took; thread-safe."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: dict[str, list[int]] = field(default_factory=dict)
    total_s: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, verb: str, outcome: str, seconds: float) -> None:
        """One request of *verb* with *outcome*, an error code or 0."""
        with self._lock:
            self.ended[verb, outcome] += 1
            self.total_s[verb] += seconds  # type: ignore[assignment]
            buckets = self.seconds.setdefault(verb, [0] * (len(_BUCKETS) + 1))
            buckets[sum(seconds > bound for bound in _BUCKETS)] += 1


@dataclass(slots=True)
class Rounds:
    """What reconciliation did, summed up."""

    rounds: int = 0
    adopted: int = 0
    ended: int = 0
    removed: int = 0
    repaired: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Everything the page shows, read at once."""

    requests: Requests
    counters: Counters
    usage: Sequence[Usage]
    rounds: Rounds
    attachments: int
    in_work: int
    queued: int
    spooled: int
    ready: bool
    cluster: Mapping[str, Any] | None = None
    mesh: Mapping[str, Any] | None = None
    announcing: Mapping[str, Any] | None = None


def families(read: Readings) -> Iterator[object]:
    """The metric families of one reading (prometheus_client's collector protocol)."""
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    requests = CounterMetricFamily(
        "isthmus_cni_requests",
        "CNI requests ended, by verb and error code",
        labels=["verb", "code"],
    )
    for (verb, code), number in sorted(read.requests.ended.items()):
        requests.add_metric([verb, code], number)
    yield requests
    latency = HistogramMetricFamily(
        "isthmus_cni_request_seconds", "Time from frame to answer", labels=["verb"]
    )
    for verb, counts in sorted(read.requests.seconds.items()):
        running, buckets = 0, []
        for bound, number in zip((*map(str, _BUCKETS), "+Inf"), counts, strict=True):
            running += number
            buckets.append((bound, running))
        latency.add_metric([verb], buckets, sum_value=read.requests.total_s[verb])
    yield latency
    for name, text, value in _counters(read):
        yield CounterMetricFamily(name, text, value=value)
    for name, text, value in _gauges(read):
        yield GaugeMetricFamily(name, text, value=value)
    addresses = GaugeMetricFamily(
        "isthmus_ipam_addresses", "Addresses of a range set, by state", labels=["ranges", "state"]
    )
    for usage in read.usage:
        for state in ("size", "held", "cooling"):
            addresses.add_metric([str(usage.ranges), state], getattr(usage, state))
    yield addresses
    yield from _cluster(read.cluster)
    yield from _routing((read.mesh or {}).get("routing"))
    yield from _announcing(read.announcing)


def _cluster(cluster: Mapping[str, Any] | None) -> Iterator[object]:
    """What only a node of a cluster has, see agent.cluster."""
    if cluster is None:
        return
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for name, text, value in (
        ("connected", "Whether the cluster's table is streamed", cluster["connected"]),
        ("frozen", "Whether claims are frozen", bool(cluster["frozen"])),
        ("epoch", "The node's epoch", cluster["epoch"]),
        ("confirmed", "Whether the epoch was confirmed in this boot", cluster["confirmed"]),
        ("mirror_waiting", "Changes of leases not mirrored yet", cluster["mirror_waiting"]),
        ("mirror_lag_seconds", "Age of the oldest of them", cluster["mirror_lag_s"]),
        ("table_rows", "Rows of the cluster's table", cluster["table"]),
    ):
        yield GaugeMetricFamily(f"isthmus_cluster_{name}", text, value=value)
    for name, text in (
        ("registrations", "Registrations that ipamd answered"),
        ("claims", "Claims that got blocks"),
        ("refusals", "Claims that ipamd refused"),
        ("failures", "Calls that failed"),
    ):
        yield CounterMetricFamily(f"isthmus_cluster_{name}", text, value=cluster[name])
    states = Counter(block["state"] for block in cluster["blocks"])
    blocks = GaugeMetricFamily("isthmus_cluster_blocks", "Own blocks, by state", labels=["state"])
    for state in ("active", "draining", "returning", "lost"):
        blocks.add_metric([state], states[state])
    yield blocks


def _routing(routing: Mapping[str, Any] | None) -> Iterator[object]:
    """Where this node routes to other nodes' pods, see routing.reconciler.State."""
    if routing is None:
        return
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    routes = GaugeMetricFamily("isthmus_routes", "Routes to other nodes' blocks", labels=["way"])
    for way in ("direct", "tunnelled"):
        routes.add_metric([way], routing[way])
    yield routes
    faults = len(routing["problems"])
    yield GaugeMetricFamily("isthmus_routing_problems", "Routes not as they should be", faults)
    yield GaugeMetricFamily("isthmus_routing_mtu", "What pods may send at once", routing["mtu"])
    for name, text in (
        ("changes", "Rounds that changed routes"),
        ("failures", "Rounds to be tried again"),
    ):
        yield CounterMetricFamily(f"isthmus_routing_{name}", text, value=routing[name])


def _announcing(announcing: Mapping[str, Any] | None) -> Iterator[object]:
    """For which addresses of Services this node answers, see agent.announcing."""
    if not announcing:
        return
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    announced = GaugeMetricFamily(
        "isthmus_announced", "Addresses of Services that this node answers for", labels=["address"]
    )
    for address in announcing["addresses"]:
        announced.add_metric([address], 1)
    yield announced
    nodes = GaugeMetricFamily(
        "isthmus_announcing_nodes",
        "Other nodes: heard in both directions, silent, or there without announcing",
        labels=["state"],
    )
    for state, names in (("heard", "hears"), ("silent", "silent"), ("absent", "absent")):
        nodes.add_metric([state], len(announcing[names]))
    yield nodes
    for name, text, value in (
        ("bids", "Addresses that this node could answer for", announcing["bids"]),
        ("majority", "Whether enough nodes are heard to answer", announcing["is_many"]),
        ("rivals", "Addresses that a stranger announces", len(announcing["rivals"])),
    ):
        yield GaugeMetricFamily(f"isthmus_announcing_{name}", text, value=value)
    for name, text in (
        ("taken", "Addresses that this node began to answer for"),
        ("given_up", "Addresses that this node left to others"),
    ):
        yield CounterMetricFamily(f"isthmus_announcing_{name}", text, value=announcing[name])
    refused = CounterMetricFamily(
        "isthmus_announcing_refused_heartbeats", "Datagrams that proved nothing", labels=["reason"]
    )
    for reason, number in sorted(announcing["refused"].items()):
        refused.add_metric([reason], number)
    yield refused


def _counters(read: Readings) -> Iterator[tuple[str, str, int]]:
    counters, rounds = read.counters, read.rounds
    yield "isthmus_ipam_given", "Addresses given", counters.given
    yield "isthmus_ipam_reused", "Addresses given that had a holder before", counters.reused
    yield (
        "isthmus_ipam_cooling_reused",
        "Addresses given before their cool-down ended, for want of others",
        counters.cooling_reused,
    )
    yield "isthmus_ipam_exhausted", "ADDs refused for want of an address", counters.exhausted
    yield "isthmus_store_failures", "Writes that the store refused", counters.store_failures
    yield "isthmus_reconcile_rounds", "Comparisons of kernel and store", rounds.rounds
    yield "isthmus_reconcile_ended", "Dead attachments ended", rounds.ended
    yield "isthmus_reconcile_removed", "Links of nobody removed", rounds.removed
    yield "isthmus_reconcile_adopted", "Attachments rebuilt from their links", rounds.adopted
    yield "isthmus_reconcile_repaired", "Objects found changed and put right", rounds.repaired
    yield "isthmus_reconcile_failed", "Steps to be tried again", rounds.failed


def _gauges(read: Readings) -> Iterator[tuple[str, str, int]]:
    yield "isthmus_attachments", "Attachments held", read.attachments
    yield "isthmus_requests_in_work", "Requests being worked on", read.in_work
    yield "isthmus_requests_queued", "Requests waiting for their turn", read.queued
    yield "isthmus_spooled_deletions", "Deletions waiting in the spool", read.spooled
    yield "isthmus_ready", "Whether an ADD can be served", int(read.ready)
