"""What is measured of Services, under the names that kube-proxy gave it: dashboards know them."""

import time
from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SYNC = tuple(0.001 * 2**power for power in range(15))
_PROGRAMMING = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_LONGEST_S = 3600.0  # what was triggered longer ago was not waited for by anybody


class ServiceMetrics:
    """From any thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._sync = Histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "From the beginning of a round to the kernel's acknowledgement",
            buckets=_SYNC,
            registry=registry,
        )
        self._programming = Histogram(
            "kubeproxy_network_programming_duration_seconds",
            "From a change of endpoints to the kernel's acknowledgement",
            buckets=_PROGRAMMING,
            registry=registry,
        )
        self._synced_at = Gauge(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When a round ended well last",
            registry=registry,
        )
        self._service_changes = Counter(
            "kubeproxy_sync_proxy_rules_service_changes",
            "Changes of Services",
            registry=registry,
        )
        self._endpoint_changes = Counter(
            "kubeproxy_sync_proxy_rules_endpoint_changes",
            "Changes of EndpointSlices",
            registry=registry,
        )
        self._failures = Counter(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures",
            "Rounds that the kernel refused something in",
            registry=registry,
        )
        self._mended = Counter(
            "isthmus_services_mended", "Elements found otherwise than planned", registry=registry
        )
        self._overflown = Counter(
            "isthmus_services_affinity_overflown",
            "Connections not remembered for session affinity: too many clients are",
            registry=registry,
        )
        self._overflown_before = 0
        self.services = Gauge("isthmus_services", "Services translated", registry=registry)
        self.refused = Gauge(
            "isthmus_services_refused", "Services that the kernel refuses", registry=registry
        )

    def heard(self, services: int, slices: int) -> None:
        self._service_changes.inc(services)
        self._endpoint_changes.inc(slices)

    def round(self, seconds: float, *, well: bool, mended: int = 0) -> None:
        self._sync.observe(seconds)
        self._mended.inc(mended)
        if well:
            self._synced_at.set(time.time())
        else:
            self._failures.inc()

    def overflown(self, number: int) -> int:
        """The kernel's count, which begins anew with a table; returns by how much it grew."""
        before, self._overflown_before = self._overflown_before, number
        grown = number - before if number >= before else number
        self._overflown.inc(grown)
        return grown

    def programmed(self, triggered: Iterable[str]) -> None:
        """Changes that began at these times (RFC 3339) are in the kernel now."""
        now = time.time()
        for text in triggered:
            try:
                seconds = now - datetime.fromisoformat(text).timestamp()
            except ValueError:
                continue
            if 0 <= seconds < _LONGEST_S:
                self._programming.observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self._registry)
