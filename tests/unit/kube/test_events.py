import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kube.client import Client
from kube.events import BURST, FORGET_S, REFILL_S, REPEAT_S, About, Recorder, Severity, Told
from tests.kube_api import FakeAPI, until

EVENTS = "/api/v1/events"
POD = About(kind="Pod", name="web-0", namespace="shop", uid="u-1")
FULL = Told(about=POD, reason="NoFreeAddress", message="no free address in 10.0.0.0/24")


class Scene:
    def __init__(self, api: FakeAPI) -> None:
        self.api = api
        self.now = 1000.0
        self.client = Client(api.access)
        self.recorder = Recorder(
            self.client, host="node-1", clock=lambda: self.now, now=lambda: f"at {self.now:g}"
        )

    def events(self) -> list[dict[str, Any]]:
        return list(self.api.objects.get(EVENTS, {}).values())

    async def wrote(self, times: int) -> None:
        await until(lambda: len(self.writes()) >= times)

    def writes(self) -> list[str]:
        return [asked.method for asked in self.api.asked]

    async def tell(self, *told: Told) -> None:
        for one in told:
            self.recorder.tell(one)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def played(scene: Callable[[Scene], Awaitable[None]]) -> None:
    async def play() -> None:
        async with FakeAPI() as api, asyncio.TaskGroup() as tasks:
            at = Scene(api)
            running = tasks.create_task(at.recorder.run())
            await asyncio.sleep(0)
            await scene(at)
            running.cancel()
            at.client.close()

    asyncio.run(play())


def test_an_event_names_the_pod_and_what_happened() -> None:
    async def scene(at: Scene) -> None:
        await at.tell(FULL)
        await at.wrote(1)

        (event,) = at.events()
        assert event["metadata"]["namespace"] == "shop"
        assert event["involvedObject"] == {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": "shop",
            "name": "web-0",
            "uid": "u-1",
        }
        assert (event["reason"], event["type"]) == ("NoFreeAddress", Severity.WARNING)
        assert event["source"] == {"component": "isthmus", "host": "node-1"}

    played(scene)


def test_the_same_again_is_counted_and_written_now_and_then() -> None:
    async def scene(at: Scene) -> None:
        await at.tell(FULL)
        await at.wrote(1)
        await at.tell(*[FULL] * 20)
        at.now += REPEAT_S + 1
        await at.tell(FULL)
        await at.wrote(2)
        await until(lambda: at.events()[0]["count"] == 22)

        assert at.writes() == ["POST", "PATCH"]
        assert at.events()[0]["lastTimestamp"] == "at 1031"
        assert at.recorder.dropped == 0

    played(scene)


def test_after_a_long_while_it_is_another_event() -> None:
    async def scene(at: Scene) -> None:
        await at.tell(FULL)
        await at.wrote(1)
        at.now += FORGET_S + 1
        await at.tell(FULL)
        await at.wrote(2)

        assert at.writes() == ["POST", "POST"]

    played(scene)


def test_an_event_that_the_server_forgot_is_written_anew() -> None:
    async def scene(at: Scene) -> None:
        await at.tell(FULL)
        await at.wrote(1)
        await until(lambda: bool(at.events()))
        at.api.delete(EVENTS, f"shop/{at.events()[0]['metadata']['name']}")
        at.now += REPEAT_S + 1
        await at.tell(FULL)
        await at.wrote(3)

        assert at.writes() == ["POST", "PATCH", "POST"]

    played(scene)


def test_more_than_the_rate_is_dropped_and_later_there_is_room_again() -> None:
    async def scene(at: Scene) -> None:
        many = [Told(about=POD, reason="R", message=str(number)) for number in range(BURST + 5)]
        await at.tell(*many)
        await at.wrote(BURST)
        dropped = at.recorder.dropped
        at.now += REFILL_S + 0.1
        await at.tell(FULL)
        await at.wrote(BURST + 1)

        assert dropped == 5
        assert len(at.writes()) == BURST + 1

    played(scene)


def test_a_server_that_is_away_costs_the_event_and_nothing_else() -> None:
    async def scene(at: Scene) -> None:
        await at.api.stop()
        await at.tell(FULL)
        await until(lambda: at.recorder.dropped == 1)
        await at.api.start()
        await at.tell(FULL)
        await at.wrote(1)
        await until(lambda: bool(at.events()))

        assert at.events()[0]["count"] == 2

    played(scene)


def test_without_anybody_who_writes_nothing_is_kept() -> None:
    async def check() -> None:
        async with FakeAPI() as api:
            recorder = Scene(api).recorder
            recorder.tell(FULL)

            assert recorder.dropped == 0

    asyncio.run(check())
