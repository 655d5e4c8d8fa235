"""Pages about Services where kube-proxy has them: load balancers, dashboards and tests ask there.

:10256  /healthz  200 while this node should be sent traffic, else 503; /livez the same, whether
                  or not the node is about to be removed
:10249  /proxyMode, /healthz, /metrics
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from agent.service_metrics import ServiceMetrics
from agent.small_pages import Answer, Page, serve
from proxy.settings import Settings

MODE = b"nftables"
RETRY_S = 10.0

log = logging.getLogger(__name__)


class Services(Protocol):
    @property
    def metrics(self) -> ServiceMetrics: ...
    @property
    def well_at(self) -> datetime | None: ...
    def unhealthy(self) -> str: ...
    def is_leaving(self) -> bool: ...


class ServicePages:
    """Both ports, for as long as `run` runs."""

    def __init__(
        self,
        services: Services,
        settings: Settings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._services, self._settings, self._now = services, settings, now

    async def run(self) -> None:
        """Serve until cancelled; a port that somebody else has is tried again."""
        places: Mapping[str, Answer] = {
            self._settings.healthz_address: self.health,
            self._settings.metrics_address: self.other,
        }
        async with asyncio.TaskGroup() as tasks:
            for place, answer in places.items():
                if place:
                    tasks.create_task(_serve(place, answer))

    def health(self, path: str) -> Page:
        """What is told at the port of health."""
        if path not in ("/healthz", "/livez"):
            return Page(404, b"/healthz or /livez\n")
        is_eligible = path == "/livez" or not self._services.is_leaving()
        complaint = self._services.unhealthy()
        well_at = self._services.well_at
        body: dict[str, object] = {
            "lastUpdated": well_at.isoformat() if well_at else None,
            "currentTime": self._now().isoformat(),
        }
        if path == "/healthz":
            body["nodeEligible"] = is_eligible
        if complaint:
            body["reason"] = complaint
        status = 503 if complaint or not is_eligible else 200
        return Page(status, json.dumps(body).encode(), "application/json")

    def other(self, path: str) -> Page:
        """What is told at the port of metrics."""
        match path:
            case "/proxyMode":
                return Page(200, MODE)
            case "/metrics":
                kind = "text/plain; version=0.0.4; charset=utf-8"
                return Page(200, self._services.metrics.page(), kind)
            case "/healthz":
                return Page(200, b"ok")
        return Page(404, b"/proxyMode, /healthz or /metrics\n")


async def _serve(place: str, answer: Answer) -> None:
    host, _, port = place.rpartition(":")
    told = ""
    while True:
        try:
            server = await serve(_everywhere(host), int(port), answer)
        except OSError as exc:
            if str(exc) != told:
                log.warning("page not served, will retry", extra={"at": place, "error": str(exc)})
            told = str(exc)
            await asyncio.sleep(RETRY_S)
            continue
        try:
            await server.serve_forever()
        finally:
            server.close()


def _everywhere(host: str) -> str | None:
    """Both families for either's word for every address; one alone may be off."""
    return None if host in ("[::]", "0.0.0.0", "*") else host.strip("[]")
