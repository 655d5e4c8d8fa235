"""What a load balancer is told of a Service on this node."""

import asyncio
import json
import socket
from ipaddress import ip_address

from agent.health_checks import Check, HealthChecks, check_of
from dataplane.nft.objects import Protocol
from proxy.model import Endpoint, Service, ServiceName
from proxy.reconciler import Wanted

WEB = ServiceName("shop", "web")


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


async def status(port: int) -> tuple[int, dict[str, object]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


def test_ready_endpoints_of_this_node_count_once_each() -> None:
    def endpoint(address: str, node: str = "here", *, is_ready: bool = True) -> Endpoint:
        return Endpoint(address=ip_address(address), port=1, node=node, is_ready=is_ready)

    members = (
        endpoint("10.244.1.1"),
        endpoint("10.244.1.2", "there"),
        endpoint("10.244.1.3", is_ready=False),
    )
    both = {("a", Protocol.TCP): members, ("b", Protocol.TCP): members}

    assert check_of(Wanted(Service(name=WEB, ports=(), cluster_ips=()), both), "here") == Check(
        WEB, 1
    )


def test_a_node_without_endpoints_or_without_services_is_to_get_no_traffic() -> None:
    healthy = [True]

    async def main() -> list[int]:
        checks, port = HealthChecks(lambda: healthy[0]), free_port()
        found = []
        for local, is_healthy in ((2, True), (0, True), (2, False)):
            healthy[0] = is_healthy
            await checks.settle({port: Check(WEB, local)})
            code, body = await status(port)
            found.append(code)
            assert body == {
                "service": {"namespace": "shop", "name": "web"},
                "localEndpoints": local,
                "serviceProxyHealthy": is_healthy,
            }
        checks.close()
        return found

    assert asyncio.run(main()) == [200, 503, 503]


def test_a_port_is_open_as_long_as_a_service_has_it() -> None:
    async def main() -> bool:
        checks, port = HealthChecks(lambda: True), free_port()
        await checks.settle({port: Check(WEB, 1)})
        await checks.settle({})
        try:
            await status(port)
        except ConnectionRefusedError:
            return True
        return False

    assert asyncio.run(main())


def test_a_port_that_somebody_else_has_is_told_until_it_is_free() -> None:
    async def main() -> tuple[list[int], list[int]]:
        checks = HealthChecks(lambda: True)
        with socket.create_server(("", 0)) as taken:
            port = taken.getsockname()[1]
            await checks.settle({port: Check(WEB, 1)})
            before = list(checks.troubles)
        await checks.settle({port: Check(WEB, 1)})
        after = list(checks.troubles)
        checks.close()
        return [each - port for each in before], after

    assert asyncio.run(main()) == ([0], [])
