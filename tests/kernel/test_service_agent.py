"""From the API server's word to packets: what an agent makes of Services while they change."""

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from dataplane.conntrack import Conntrack
from tests.kernel.conftest import Namespace
from tests.kernel.service_running import (
    FAR,
    OTHER_IP,
    P1,
    P2,
    WEB_IP,
    Running,
    api_server,
    run,
    serving,
)
from tests.kernel.service_site import NODE, Site, pod_address, site
from tests.kernel.sockets import inside
from tests.kube_api import PODS, SERVICES, SLICES, until
from tests.service_objects import pod, service, slice_

pytestmark = pytest.mark.kernel


@pytest.fixture
def here(namespaces: Callable[[str], Namespace]) -> Iterator[Site]:
    with site(namespaces) as made:
        made.node.run("ip", "link", "set", "lo", "up")
        yield made


def test_services_come_scale_and_go_as_packets_see_it(here: Site) -> None:
    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP), slice_("web"))
        await at.until_answered({"ConnectionRefusedError"}, WEB_IP)
        at.put(slice_("web", P1))
        await at.until_answered({"p1"}, WEB_IP)
        at.put(slice_("web", P1, FAR))
        await at.until_answered({"p1", "far"}, WEB_IP)
        at.put(slice_("web", f"{P1}?", FAR))
        await at.until_answered({"far"}, WEB_IP)
        at.put(slice_("web", P2, suffix="b"))
        await at.until_answered({"p2", "far"}, WEB_IP)
        at.api.delete(SLICES, "shop/web-a")
        await at.until_answered({"p2"}, WEB_IP)
        at.api.delete(SERVICES, "shop/web")
        await at.until_answered({"TimeoutError"}, WEB_IP)

    run(here, play)


def test_node_ports_are_those_of_the_nodes_own_addresses(here: Site) -> None:
    ports = [{"name": "tcp", "protocol": "TCP", "port": 80, "nodePort": 30080}]

    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP, "fd00:96::20", type="NodePort", ports=ports),
               slice_("web", P1), slice_("web", pod_address("p1", 6), suffix="six"))  # fmt: skip
        for address in NODE.values():
            await at.until_answered({"p1"}, address, 30080)

    run(here, play)


def test_a_flushed_table_is_mended_at_once_and_a_service_in_trouble_is_named(here: Site) -> None:
    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP), slice_("web", P1, "10.96.3.3"))
        await at.until_answered({"p1"}, WEB_IP)

        here.node.run("nft", "delete", "table", "ip", "isthmus-services")
        await at.until_answered({"p1"}, WEB_IP)

        assert at.services.problems() == [
            "Service shop/web: endpoint 10.96.3.3: is an address of Services"
        ]
        (row,) = at.services.report("web")
        assert (row["programmed"], row["differing"]) == (True, [])

    run(here, play)


def test_what_is_explained_is_what_packets_find(here: Site) -> None:
    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP, sessionAffinity="ClientIP"), slice_("web", P1, f"{FAR}?"))
        await at.until_answered({"p1"}, WEB_IP)
        asked = {"source": P2, "address": WEB_IP, "port": 80, "protocol": "tcp"}

        found = at.services.explain(asked)
        other = at.services.explain({**asked, "port": 81})

        assert (found["fate"], found["source_is"], found["service"]) == (
            "translated", "pod", "shop/web",
        )  # fmt: skip
        assert found["programmed"]
        assert found["remembered"] == f"{P1}:8080"
        assert [(each["at"], each["why_not"]) for each in found["endpoints"]] == [
            (f"{P1}:8080", ""), (f"{FAR.partition('@')[0]}:8080", "not ready"),
        ]  # fmt: skip
        assert (other["fate"], other["endpoints"]) == ("refused", [])
        assert set(await at.answers(WEB_IP, 81)) == {"ConnectionRefusedError"}

    run(here, play)


def test_the_api_servers_own_service_keeps_its_last_endpoints(here: Site) -> None:
    async def play(at: Running) -> None:
        own = {"namespace": "default"}
        at.put(service("kubernetes", WEB_IP, **own), slice_("kubernetes", P1, **own))
        at.put(service("other", OTHER_IP), slice_("other", P1))
        await at.until_answered({"p1"}, WEB_IP)
        await at.until_answered({"p1"}, OTHER_IP)

        at.put(slice_("kubernetes", **own), slice_("other"))

        await at.until_answered({"ConnectionRefusedError"}, OTHER_IP)
        await at.until_answered({"p1"}, WEB_IP)

    run(here, play)


def test_what_happened_while_no_agent_ran_is_made_up_for(here: Site) -> None:
    async def main() -> None:
        async with api_server() as api:
            async with serving(here, api) as at:
                at.put(service("web", WEB_IP), slice_("web", P1))
                at.put(service("other", OTHER_IP), slice_("other", P1))
                await at.until_answered({"p1"}, WEB_IP)
            # Nobody serves, and what was programmed goes on.
            assert await at.answers(WEB_IP) == {"p1": 1}
            at.put(slice_("web", FAR))
            api.delete(SERVICES, "shop/other")
            async with serving(here, api) as at:
                await at.until_answered({"far"}, WEB_IP)
                await at.until_answered({"TimeoutError"}, OTHER_IP)

    asyncio.run(main())


def ask(sender: socket.socket, address: str) -> str:
    """Who answers a datagram of this very flow."""
    sender.settimeout(1.0)
    try:
        sender.sendto(b"?", (address, 80))
        return sender.recv(100).decode().partition(" ")[0]
    except OSError as exc:
        return type(exc).__name__


def test_a_flow_of_datagrams_moves_on_when_its_endpoint_leaves(here: Site) -> None:
    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP), slice_("web", P1))
        with inside(here.pods["p2"]):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            await at.until_answered({"p1"}, WEB_IP)
            assert await asyncio.to_thread(ask, sender, WEB_IP) == "p1"
            at.put(slice_("web", FAR))
            await at.until_answered({"far"}, WEB_IP)

            # The flow is forgotten after the rules are there; each datagram would keep it alive.
            async with asyncio.timeout(20):
                while (answer := await asyncio.to_thread(ask, sender, WEB_IP)) == "p1":
                    pass
            assert answer == "far"

    run(here, play)


def tcp_flows(here: Site) -> list[str]:
    """Where connections that are alive lead."""
    with inside(here.node), Conntrack() as conntrack:
        return [
            str(each.reply.source)
            for each in conntrack.entries(4)
            if each.original.protocol == 6
            and str(each.original.destination) == WEB_IP
            and not each.is_over
        ]


@pytest.fixture
def kept() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def connect(here: Site) -> socket.socket:
    """A client that never hangs up."""
    with inside(here.pods["p2"]):
        client = socket.create_connection((WEB_IP, 80), timeout=5)
    assert client.recv(100).startswith(b"p1 ")
    return client


@pytest.mark.parametrize("as_it_went", ["", "?", "!"])
@pytest.mark.parametrize("fate", ["lives on", "is deleted", "has ended"])
def test_a_connection_ends_when_its_address_is_no_pods_any_more(
    here: Site, kept: list[socket.socket], as_it_went: str, fate: str
) -> None:
    """However the endpoint went: ready, as one that a forced deletion takes, unready, ending."""

    async def play(at: Running) -> None:
        at.api.put(PODS, pod(P1))
        at.put(service("web", WEB_IP), slice_("web", P1))
        await at.until_answered({"p1"}, WEB_IP)
        kept.append(await asyncio.to_thread(connect, here))
        at.put(slice_("web", P1 + as_it_went, FAR))
        await at.until_answered({"p1", "far"} if not as_it_went else {"far"}, WEB_IP)
        assert P1 in tcp_flows(here)

        if fate == "is deleted":
            at.api.delete(PODS, f"shop/{P1}")
        if fate == "has ended":
            at.api.put(PODS, pod(P1, phase="Failed"))
        at.put(slice_("web", FAR))
        await at.until_answered({"far"}, WEB_IP)
        await until(lambda: at.api.count("GET", f"/api/v1/namespaces/shop/pods/{P1}") > 0)

        if fate != "lives on":
            await until(lambda: P1 not in tcp_flows(here))
        assert (P1 in tcp_flows(here)) is (fate == "lives on")

    run(here, play)


def test_a_connection_to_a_pod_that_left_ends_when_the_pod_does(
    here: Site, kept: list[socket.socket]
) -> None:
    async def play(at: Running) -> None:
        at.api.put(PODS, pod(P1))
        at.put(service("web", WEB_IP), slice_("web", P1))
        await at.until_answered({"p1"}, WEB_IP)
        kept.append(await asyncio.to_thread(connect, here))
        asked = f"/api/v1/namespaces/shop/pods/{P1}"
        at.put(slice_("web", FAR))
        await until(lambda: at.api.count("GET", asked) > 0)
        assert P1 in tcp_flows(here)

        at.api.delete(PODS, f"shop/{P1}")

        await until(lambda: P1 not in tcp_flows(here))
        assert at.api.count("GET", asked) > 1

    run(here, play)


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_connection_to_a_pod_that_left_while_no_agent_ran_ends_if_the_pod_did(
    here: Site, kept: list[socket.socket], is_gone: bool
) -> None:
    async def main() -> None:
        async with api_server() as api:
            async with serving(here, api) as at:
                api.put(PODS, pod(P1))
                at.put(service("web", WEB_IP), slice_("web", P1))
                await at.until_answered({"p1"}, WEB_IP)
            kept.append(await asyncio.to_thread(connect, here))
            at.put(slice_("web", FAR))
            if is_gone:
                api.delete(PODS, f"shop/{P1}")
            asked = len(api.asked)
            async with serving(here, api) as at:
                await at.until_answered({"far"}, WEB_IP)
                await until(lambda: any(
                    each.params.get("fieldSelector") == f"status.podIP={P1}"
                    for each in api.asked[asked:]))  # fmt: skip

                if is_gone:
                    await until(lambda: P1 not in tcp_flows(here))
                assert (P1 in tcp_flows(here)) is not is_gone

    asyncio.run(main())
