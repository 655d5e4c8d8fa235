"""Names and numbers that dashboards of kube-proxy look for."""

from datetime import UTC, datetime, timedelta

from agent.service_metrics import ServiceMetrics


def test_rounds_changes_and_failures_are_counted_under_known_names() -> None:
    metrics = ServiceMetrics()

    metrics.heard(2, 3)
    metrics.round(0.004, well=True, mended=1)
    metrics.round(0.5, well=False)

    page = metrics.page().decode()
    assert "kubeproxy_sync_proxy_rules_duration_seconds_count 2.0" in page
    assert "kubeproxy_sync_proxy_rules_service_changes_total 2.0" in page
    assert "kubeproxy_sync_proxy_rules_endpoint_changes_total 3.0" in page
    assert "kubeproxy_sync_proxy_rules_nftables_sync_failures_total 1.0" in page
    assert "isthmus_services_mended_total 1.0" in page


def test_a_change_is_measured_from_when_it_began_unless_that_makes_no_sense() -> None:
    metrics, now = ServiceMetrics(), datetime.now(UTC)
    times = [now - timedelta(seconds=2), now - timedelta(days=2), now + timedelta(hours=1)]

    metrics.programmed([*(each.isoformat() for each in times), "yesterday"])

    page = metrics.page().decode()
    assert "kubeproxy_network_programming_duration_seconds_count 1.0" in page
    assert 'kubeproxy_network_programming_duration_seconds_bucket{le="1.0"} 0.0' in page


def test_an_overflow_is_counted_on_where_the_kernel_begins_anew() -> None:
    metrics = ServiceMetrics()

    assert [metrics.overflown(number) for number in (3, 3, 5, 2)] == [3, 0, 2, 2]
    assert "isthmus_services_affinity_overflown_total 7.0" in metrics.page().decode()
