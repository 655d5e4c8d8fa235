"""Whose connections end; packets are in tests/kernel."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest

from agent import departures
from agent.departures import Departures
from dataplane.errors import NetlinkError
from dataplane.flows import Flows
from dataplane.nft.objects import Protocol
from kube.client import Client
from proxy.model import ServiceName
from proxy.stale_flows import Departed
from tests.kube_api import PODS, FakeAPI, until
from tests.service_objects import pod

WEB = ServiceName("shop", "web")


def gone(number: int) -> Departed:
    address = ip_address(f"10.244.1.{number}")
    flows = Flows(4, ip_address("10.96.0.1"), Protocol.TCP, 80, address)
    return Departed(WEB, f"web-{number}", address, (flows,))


class Tracked:
    """Stands for conntrack; *leading*: where connections are."""

    def __init__(self, *leading: Departed) -> None:
        self.leading = {each for one in leading for each in one.flows}
        self.failures: list[NetlinkError] = []
        self.looks = 0

    def find(self, which: Collection[Flows]) -> set[Flows]:
        self.looks += 1
        if self.failures:
            raise self.failures.pop()
        return self.leading & set(which)

    def forget(self, which: Collection[Flows]) -> None:
        self.leading -= set(which)


def run(
    conntrack: Tracked, play: Callable[[FakeAPI, Departures], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        async with FakeAPI() as api:
            client = Client(api.access)
            running = Departures(client, conntrack, Random(1))
            task = asyncio.ensure_future(running.run())
            await asyncio.sleep(0)
            try:
                await play(api, running)
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                client.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "SHORTEST_PAUSE_S", 0.01)
    monkeypatch.setattr(departures, "LONGEST_PAUSE_S", 0.02)


def test_nobody_is_asked_about_pods_that_nobody_is_connected_to() -> None:
    conntrack = Tracked()

    async def play(api: FakeAPI, at: Departures) -> None:
        at.note([gone(1)])
        await until(lambda: conntrack.looks == 1)
        assert api.asked == []

    run(conntrack, play)


def test_what_lives_is_asked_for_again_and_ends_with_its_pod() -> None:
    conntrack = Tracked(gone(1), gone(2))

    async def play(api: FakeAPI, at: Departures) -> None:
        api.put(PODS, pod("10.244.1.2", name="web-2"))
        at.note([gone(1), gone(2)])
        await until(lambda: conntrack.leading == set(gone(2).flows))
        api.delete(PODS, "shop/web-2")
        await until(lambda: not conntrack.leading)

    run(conntrack, play)


def test_a_pod_of_the_name_with_another_address_is_another() -> None:
    conntrack = Tracked(gone(1))

    async def play(api: FakeAPI, at: Departures) -> None:
        api.put(PODS, pod("10.244.1.9", name="web-1"))
        at.note([gone(1)])
        await until(lambda: not conntrack.leading)

    run(conntrack, play)


@pytest.mark.parametrize("namespace", ["shop", "elsewhere"])
def test_of_whom_only_the_address_is_known_any_pod_that_has_it_counts(namespace: str) -> None:
    nameless = gone(1)._replace(pod="")
    conntrack = Tracked(nameless)

    async def play(api: FakeAPI, at: Departures) -> None:
        api.put(PODS, pod("10.244.1.1", name="whoever", namespace=namespace))
        at.note([nameless])
        await until(lambda: conntrack.looks > 2)
        assert conntrack.leading == set(nameless.flows)
        api.put(PODS, pod("10.244.1.1", name="whoever", namespace=namespace, phase="Succeeded"))
        await until(lambda: not conntrack.leading)

    run(conntrack, play)


def test_by_its_second_address_a_pod_is_found_among_those_of_the_service() -> None:
    nameless = gone(1)._replace(pod="")
    conntrack = Tracked(nameless)
    both = pod("fd00::1", name="web-1")
    both["status"]["podIPs"].append({"ip": "10.244.1.1"})

    async def play(api: FakeAPI, at: Departures) -> None:
        api.put(PODS, both)
        at.note([nameless])
        await until(lambda: conntrack.looks > 2)
        assert conntrack.leading == set(nameless.flows)
        api.delete(PODS, "shop/web-1")
        await until(lambda: not conntrack.leading)

    run(conntrack, play)


def test_while_nobody_can_say_nothing_ends() -> None:
    conntrack = Tracked(gone(1))

    async def play(api: FakeAPI, at: Departures) -> None:
        api.trouble = lambda asked: 500
        at.note([gone(1)])
        await until(lambda: len(api.asked) > 2)
        assert conntrack.leading == set(gone(1).flows)
        api.trouble = lambda asked: 0
        await until(lambda: not conntrack.leading)

    run(conntrack, play)


def test_a_list_of_flows_that_fails_is_repeated() -> None:
    conntrack = Tracked(gone(1))
    conntrack.failures = [NetlinkError(4, "conntrack")]

    async def play(api: FakeAPI, at: Departures) -> None:
        at.note([gone(1)])
        await until(lambda: not conntrack.leading)

    run(conntrack, play)
