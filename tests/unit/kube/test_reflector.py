import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from kube.client import Client
from kube.objects import Meta, Node
from kube.reflector import Reflector, Selection, key_of
from tests.kube_api import NODES, FakeAPI, until

Copy = Reflector[Node, str]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kube.reflector.SHORTEST_PAUSE_S", 0.02)


def zone(node: Node) -> str:
    return (node.metadata.labels or {}).get("zone", "")


def named(name: str, zone: str = "") -> dict[str, object]:
    return {"metadata": {"name": name, "labels": {"zone": zone}}}


class Following:
    """A reflector of nodes over *api*, and what it told."""

    def __init__(self, api: FakeAPI) -> None:
        self.api = api
        self.news: list[tuple[str, str | None]] = []
        self._moved = asyncio.Event()
        self.client = Client(api.access)
        self.copy: Copy = Reflector(
            self.client,
            Selection(path=NODES, kind=Node, keep=zone),
            random=Random(1),
            changed=self._changed,
        )

    def _changed(self, key: str, kept: str | None) -> None:
        self.news.append((key, kept))
        self._moved.set()

    async def until(self, *news: tuple[str, str | None]) -> None:
        while not set(news) <= set(self.news):
            self._moved.clear()
            await self._moved.wait()


def follow(scene: Callable[[FakeAPI, Following], Awaitable[None]]) -> None:
    """Play *scene* beside a reflector that runs."""

    async def play() -> None:
        async with FakeAPI() as api, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            api.put(NODES, named("a", "east"))
            following = Following(api)
            running = tasks.create_task(following.copy.run())
            await following.copy.synced.wait()
            await scene(api, following)
            running.cancel()
            following.client.close()

    asyncio.run(play())


async def watched(api: FakeAPI, times: int) -> None:
    await until(lambda: api.count("GET", NODES, watch=True) >= times)


def test_what_changes_is_told_once() -> None:
    async def scene(api: FakeAPI, following: Following) -> None:
        api.put(NODES, named("b"))
        api.put(NODES, {**named("b"), "status": {"conditions": []}})
        api.put(NODES, named("a", "west"))
        api.delete(NODES, "b")
        await following.until(("b", None))

        assert following.news == [("a", "east"), ("b", ""), ("a", "west"), ("b", None)]
        assert following.copy.objects == {"a": "west"}

    follow(scene)


def test_a_watch_that_is_cut_goes_on_where_it_was() -> None:
    async def scene(api: FakeAPI, following: Following) -> None:
        await watched(api, 1)
        api.cut()
        api.put(NODES, named("b"))
        await following.until(("b", ""))

        assert following.copy.tally.lists == 1
        assert following.copy.tally.failures == 1
        assert following.copy.trouble == ""

    follow(scene)


def test_a_bookmark_is_where_the_next_watch_begins() -> None:
    async def scene(api: FakeAPI, following: Following) -> None:
        await watched(api, 1)
        api.bookmark(NODES)
        mark = api.revision
        await until(lambda: following.copy.revision == str(mark))
        api.cut()
        await watched(api, 2)

        assert [a.params["resourceVersion"] for a in api.asked if a.is_watch][-1] == str(mark)

    follow(scene)


def test_after_410_all_is_listed_anew_and_what_went_meanwhile_is_told() -> None:
    async def scene(api: FakeAPI, following: Following) -> None:
        await watched(api, 1)
        api.cut()
        api.delete(NODES, "a")
        api.put(NODES, named("b"))
        api.forget()
        await following.until(("a", None), ("b", ""))

        assert following.copy.tally.lists == 2
        assert following.copy.objects == {"b": ""}

    follow(scene)


def test_a_server_that_was_away_is_followed_again_and_meanwhile_nothing_is_forgotten() -> None:
    async def scene(api: FakeAPI, following: Following) -> None:
        await watched(api, 1)
        await api.stop()
        await until(lambda: bool(following.copy.trouble))
        away = dict(following.copy.objects)
        await api.start()
        api.put(NODES, named("b"))
        await following.until(("b", ""))

        assert away == {"a": "east"}
        assert following.copy.tally.lists == 1

    follow(scene)


def test_an_event_that_cannot_be_read_is_trouble_and_no_end() -> None:
    async def scene(api: FakeAPI, following: Following) -> None:
        await watched(api, 1)
        api.say(NODES, {"type": "NEWS", "object": {}})
        await until(lambda: bool(following.copy.trouble))

        assert "NEWS" in following.copy.trouble

    follow(scene)


def test_an_error_in_a_watch_is_an_error_and_not_an_object() -> None:
    async def scene(api: FakeAPI, following: Following) -> None:
        await watched(api, 1)
        api.say(NODES, {"type": "ERROR", "object": {"code": 500, "message": "etcd is away"}})
        await until(lambda: bool(following.copy.trouble))

        assert "etcd is away" in following.copy.trouble
        assert following.copy.objects == {"a": "east"}

    follow(scene)


def test_the_pauses_of_failures_grow_and_differ() -> None:
    async def play() -> None:
        waits: list[float] = []

        class Rolls(Random):
            def random(self) -> float:
                waits.append(0.0)
                return 0.5

        async with FakeAPI(trouble=lambda asked: 503) as api, asyncio.TaskGroup() as tasks:
            client = Client(api.access)
            copy: Copy = Reflector(
                client, Selection(path=NODES, kind=Node, keep=zone), random=Rolls()
            )
            running = tasks.create_task(copy.run())
            await until(lambda: copy.tally.failures >= 2)
            running.cancel()
            client.close()

        assert len(waits) == 2
        assert not copy.synced.is_set()

    asyncio.run(play())


def test_a_key_is_the_name_with_the_namespace_if_it_has_one() -> None:
    assert key_of(Meta(name="a")) == "a"
    assert key_of(Meta(name="a", namespace="b")) == "b/a"


def test_who_acts_on_the_copy_does_so_once_it_is_whole_and_after_what_is_new() -> None:
    async def play() -> None:
        seen: list[list[str]] = []

        async with FakeAPI() as api, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            api.put(NODES, named("a"))
            client = Client(api.access)
            selection = Selection(path=NODES, kind=Node, keep=zone)
            copy: Copy = Reflector(client, selection, random=Random(1))

            async def tick() -> None:
                seen.append(sorted(copy.objects))

            driving = tasks.create_task(copy.drive(tick, every_s=3600))
            await until(lambda: bool(seen))
            await watched(api, 1)
            api.put(NODES, named("b"))
            await until(lambda: seen[-1] == ["a", "b"])
            driving.cancel()
            client.close()

        assert seen[0] == ["a"]

    asyncio.run(play())
