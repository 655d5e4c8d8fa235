"""What is told at the ports that kube-proxy would have."""

import asyncio
import json
import socket
from datetime import UTC, datetime

import pytest

from agent.service_metrics import ServiceMetrics
from agent.service_pages import ServicePages
from proxy.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakeServices:
    metrics = ServiceMetrics()
    well_at = NOW

    def __init__(self, complaint: str = "", *, leaving: bool = False) -> None:
        self.complaint, self.leaving = complaint, leaving

    def unhealthy(self) -> str:
        return self.complaint

    def is_leaving(self) -> bool:
        return self.leaving


def pages(services: FakeServices, settings: Settings | None = None) -> ServicePages:
    return ServicePages(services, settings or Settings(), lambda: NOW)


@pytest.mark.parametrize(
    ("complaint", "leaving", "healthz", "livez"),
    [("", False, 200, 200), ("", True, 503, 200), ("hangs", False, 503, 503)],
)
def test_health_is_of_the_node_and_life_of_the_proxy(
    complaint: str, leaving: bool, healthz: int, livez: int
) -> None:
    tested = pages(FakeServices(complaint, leaving=leaving))

    assert (tested.health("/healthz").status, tested.health("/livez").status) == (healthz, livez)
    body = json.loads(tested.health("/healthz").body)
    assert body["nodeEligible"] is not leaving
    assert body["lastUpdated"] == "2026-01-01T00:00:00+00:00"
    assert tested.health("/else").status == 404


def test_mode_metrics_and_health_are_at_the_other_port() -> None:
    tested = pages(FakeServices())

    assert tested.other("/proxyMode").body == b"nftables"
    assert b"kubeproxy_sync_proxy_rules_duration_seconds" in tested.other("/metrics").body
    assert tested.other("/healthz").status == 200
    assert tested.other("/").status == 404


def test_both_ports_are_served_where_configured() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = Settings(healthz_address="", metrics_address=f"127.0.0.1:{port}")

    async def main() -> bytes:
        task = asyncio.ensure_future(pages(FakeServices(), settings).run())
        await asyncio.sleep(0)
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0)
        writer.write(b"GET /proxyMode HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        task.cancel()
        return answer

    assert asyncio.run(main()).endswith(b"nftables")
