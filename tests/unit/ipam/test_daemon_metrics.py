"""The metrics page of ipamd."""

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest

from ipam.authority import Counts
from ipam.daemon_metrics import Collector

COUNTS = Counts(
    claims=3,
    conflicts=1,
    transactions=5,
    refused=2,
    second_boots=1,
    streams=7,
    nodes=8,
    blocks=9,
    free={"b": 10, "a": 11},
    oldest_unheard_s=1.5,
    frozen=False,
    forgetful=False,
    synced=True,
)


def page(counts: Counts) -> list[str]:
    registry = CollectorRegistry()
    registry.register(Collector(lambda: counts))  # type: ignore[arg-type]
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_every_count_is_on_the_page() -> None:
    assert page(COUNTS) == [
        "isthmus_ipamd_claims_total 3.0",
        "isthmus_ipamd_conflicts_total 1.0",
        "isthmus_ipamd_transactions_total 5.0",
        "isthmus_ipamd_refused_total 2.0",
        "isthmus_ipamd_second_boots_total 1.0",
        "isthmus_ipamd_streams 7.0",
        "isthmus_ipamd_nodes 8.0",
        "isthmus_ipamd_blocks 9.0",
        "isthmus_ipamd_oldest_unheard_seconds 1.5",
        "isthmus_ipamd_frozen 0.0",
        "isthmus_ipamd_forgetful 0.0",
        "isthmus_ipamd_synced 1.0",
        'isthmus_ipamd_free_blocks{pool="a"} 11.0',
        'isthmus_ipamd_free_blocks{pool="b"} 10.0',
    ]


def test_a_frozen_replica_says_so() -> None:
    assert "isthmus_ipamd_frozen 1.0" in page(replace(COUNTS, frozen=True))


def test_a_replica_that_cannot_remember_says_so() -> None:
    assert "isthmus_ipamd_forgetful 1.0" in page(replace(COUNTS, forgetful=True))
