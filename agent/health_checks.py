"""Health-check node ports: whether a load balancer should send a Service's traffic to this node.

For Services of external policy Local; as kube-proxy answers: 200 where the node has a ready
endpoint and serves Services, else 503.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.small_pages import Page, serve
from proxy.model import ServiceName
from proxy.reconciler import Wanted

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """*local*: how many ready endpoints the Service has on this node."""

    service: ServiceName
    local: int


def check_of(wanted: Wanted, node: str) -> Check:
    local = {
        each.address
        for members in wanted.endpoints.values()
        for each in members
        if each.is_ready and each.node == node
    }
    return Check(wanted.service.name, len(local))


class HealthChecks:
    """One port for each Service that has one; within an event loop."""

    def __init__(self, is_healthy: Callable[[], bool]) -> None:
        self._is_healthy = is_healthy
        self._checks: Mapping[int, Check] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self.troubles: dict[int, str] = {}

    async def settle(self, checks: Mapping[int, Check]) -> None:
        """Answer for exactly these; a port that somebody else has is in `troubles`."""
        self._checks = checks
        for port in self._servers.keys() - checks.keys():
            self._servers.pop(port).close()
        self.troubles = {port: why for port, why in self.troubles.items() if port in checks}
        for port in checks.keys() - self._servers.keys():
            try:
                self._servers[port] = await serve(None, port, lambda _, at=port: self.page(at))  # type: ignore[misc]
            except OSError as exc:
                if port not in self.troubles:
                    log.error(
                        "health check cannot be served",
                        extra={"service": str(checks[port].service), "error": str(exc)},
                    )
                self.troubles[port] = str(exc)
            else:
                self.troubles.pop(port, None)

    def page(self, port: int) -> Page:
        check = self._checks.get(port)
        if check is None:
            return Page(404, b"")
        is_healthy = self._is_healthy()
        body = {
            "service": {"namespace": check.service.namespace, "name": check.service.name},
            "localEndpoints": check.local,
            "serviceProxyHealthy": is_healthy,
        }
        return Page(
            200 if check.local and is_healthy else 503,
            json.dumps(body).encode(),
            "application/json",
            {"X-Load-Balancing-Endpoint-Weight": str(check.local)},
        )

    def close(self) -> None:
        for each in self._servers.values():
            each.close()
        self._servers.clear()
