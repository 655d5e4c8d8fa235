"""The metrics page, read as Prometheus reads it."""

import threading
from dataclasses import replace
from ipaddress import ip_network

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agent.metrics import Readings, Requests, Rounds, families
from ipam.allocator import Counters
from ipam.ledger import Usage
from ipam.ranges import Range, RangeSet

RANGES = RangeSet((Range.of(ip_network("10.9.0.0/28")),))


class Collector:
    def __init__(self, read: Readings) -> None:
        self.read = read

    def collect(self) -> object:
        return families(self.read)


def page(read: Readings) -> dict[str, float]:
    """Every sample by its name and labels."""
    registry = CollectorRegistry()
    registry.register(Collector(read))  # type: ignore[arg-type]
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def readings(requests: Requests | None = None) -> Readings:
    return Readings(
        requests=requests or Requests(),
        counters=Counters(given=1, reused=2, cooling_reused=3, exhausted=4, store_failures=5),
        usage=[Usage(ranges=RANGES, size=13, held=6, idle=5, cooling=4)],
        rounds=Rounds(rounds=10, adopted=11, ended=12, removed=13, repaired=14, failed=15),
        attachments=20,
        in_work=21,
        queued=22,
        spooled=23,
        ready=True,
    )


def test_everything_that_is_counted_is_on_the_page() -> None:
    found = page(readings())

    assert {name: value for name, value in found.items() if "request_seconds" not in name} == {
        "isthmus_ipam_given_total": 1,
        "isthmus_ipam_reused_total": 2,
        "isthmus_ipam_cooling_reused_total": 3,
        "isthmus_ipam_exhausted_total": 4,
        "isthmus_store_failures_total": 5,
        "isthmus_reconcile_rounds_total": 10,
        "isthmus_reconcile_adopted_total": 11,
        "isthmus_reconcile_ended_total": 12,
        "isthmus_reconcile_removed_total": 13,
        "isthmus_reconcile_repaired_total": 14,
        "isthmus_reconcile_failed_total": 15,
        "isthmus_attachments": 20,
        "isthmus_requests_in_work": 21,
        "isthmus_requests_queued": 22,
        "isthmus_spooled_deletions": 23,
        "isthmus_ready": 1,
        "isthmus_ipam_addresses ranges=10.9.0.0/28 state=size": 13,
        "isthmus_ipam_addresses ranges=10.9.0.0/28 state=held": 6,
        "isthmus_ipam_addresses ranges=10.9.0.0/28 state=cooling": 4,
    }


def test_who_answers_for_what_is_on_the_page_of_a_node_that_announces() -> None:
    announcing = {
        "addresses": ["192.0.2.1", "2001:db8::1"],
        "bids": 4,
        "hears": ["b", "c"],
        "silent": ["d"],
        "absent": [],
        "is_many": True,
        "rivals": {"192.0.2.1": "02:00:00:00:00:09"},
        "taken": 5,
        "given_up": 3,
        "refused": {"said before": 7},
    }

    found = page(replace(readings(), announcing=announcing))

    assert {name: value for name, value in found.items() if "announc" in name} == {
        "isthmus_announced address=192.0.2.1": 1,
        "isthmus_announced address=2001:db8::1": 1,
        "isthmus_announcing_nodes state=heard": 2,
        "isthmus_announcing_nodes state=silent": 1,
        "isthmus_announcing_nodes state=absent": 0,
        "isthmus_announcing_bids": 4,
        "isthmus_announcing_majority": 1,
        "isthmus_announcing_rivals": 1,
        "isthmus_announcing_taken_total": 5,
        "isthmus_announcing_given_up_total": 3,
        "isthmus_announcing_refused_heartbeats_total reason=said before": 7,
    }
    assert page(replace(readings(), announcing={})) == page(readings())  # it begins


def test_requests_are_counted_by_verb_and_outcome() -> None:
    requests = Requests()
    for verb, code in (("ADD", "0"), ("ADD", "0"), ("ADD", "11"), ("DEL", "0")):
        requests.count(verb, code, 0.003)

    found = page(readings(requests))

    assert found["isthmus_cni_requests_total code=0 verb=ADD"] == 2
    assert found["isthmus_cni_requests_total code=11 verb=ADD"] == 1
    assert found["isthmus_cni_requests_total code=0 verb=DEL"] == 1


def test_times_are_in_buckets_that_add_up() -> None:
    requests = Requests()
    for seconds in (0.001, 0.0015, 0.3, 99.0):
        requests.count("ADD", "0", seconds)

    found = page(readings(requests))

    def bucket(bound: str) -> float:
        return found[f"isthmus_cni_request_seconds_bucket le={bound} verb=ADD"]

    assert [bucket(bound) for bound in ("0.001", "0.002", "0.2", "0.5", "20.0", "+Inf")] == [
        1,
        2,
        2,
        3,
        3,
        4,
    ]
    assert found["isthmus_cni_request_seconds_count verb=ADD"] == 4
    assert round(found["isthmus_cni_request_seconds_sum verb=ADD"], 4) == 99.3025


def test_threads_that_count_at_once_lose_nothing() -> None:
    requests = Requests()
    threads = [
        threading.Thread(target=lambda: [requests.count("ADD", "0", 0.001) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert requests.ended["ADD", "0"] == 800
    assert sum(requests.seconds["ADD"]) == 800


def test_a_node_of_a_cluster_shows_its_part_in_it() -> None:
    cluster = {
        "connected": True,
        "frozen": "why",
        "epoch": 3,
        "confirmed": False,
        "mirror_waiting": 4,
        "mirror_lag_s": 0.5,
        "table": 6,
        "registrations": 7,
        "claims": 8,
        "refusals": 9,
        "failures": 10,
        "blocks": [{"state": "active"}, {"state": "active"}, {"state": "lost"}],
    }

    found = page(replace(readings(), cluster=cluster))

    assert {name: value for name, value in found.items() if "_cluster_" in name} == {
        "isthmus_cluster_connected": 1,
        "isthmus_cluster_frozen": 1,
        "isthmus_cluster_epoch": 3,
        "isthmus_cluster_confirmed": 0,
        "isthmus_cluster_mirror_waiting": 4,
        "isthmus_cluster_mirror_lag_seconds": 0.5,
        "isthmus_cluster_table_rows": 6,
        "isthmus_cluster_registrations_total": 7,
        "isthmus_cluster_claims_total": 8,
        "isthmus_cluster_refusals_total": 9,
        "isthmus_cluster_failures_total": 10,
        "isthmus_cluster_blocks state=active": 2,
        "isthmus_cluster_blocks state=draining": 0,
        "isthmus_cluster_blocks state=returning": 0,
        "isthmus_cluster_blocks state=lost": 1,
    }


def test_a_node_that_routes_shows_its_routes() -> None:
    routing = {
        "direct": 4,
        "tunnelled": 6,
        "problems": ("one",),
        "mtu": 1450,
        "changes": 3,
        "failures": 2,
    }
    found = page(replace(readings(), mesh={"routing": routing}))

    assert {name: value for name, value in found.items() if "_rout" in name} == {
        "isthmus_routes way=direct": 4,
        "isthmus_routes way=tunnelled": 6,
        "isthmus_routing_problems": 1,
        "isthmus_routing_mtu": 1450,
        "isthmus_routing_changes_total": 3,
        "isthmus_routing_failures_total": 2,
    }
    assert not any("_rout" in name for name in page(replace(readings(), mesh={"routing": None})))
