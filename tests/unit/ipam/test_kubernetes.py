"""Which Nodes drain and which are fenced; and by whom, when, and how often."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from ipam.calls import Drain, Drained
from ipam.cluster import NODE_UID, Config, Node, NodeState, Settings
from ipam.kubernetes import OUT_OF_SERVICE, KubeNode, NodeWatch, plan
from ipam.refusals import Forbidden
from kube.client import Client
from tests.kube_api import NODES, FakeAPI, until

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT = NOON.isoformat(timespec="seconds")
NODE = Node(name="a", uid="s", epoch=1, boot_id="b", labels={NODE_UID: "u-1"})
DRAINED = replace(NODE, state=NodeState.DRAINING, drained_by="Kubernetes: Node u-1 deleted")
FENCED = replace(NODE, state=NodeState.FENCED)
THERE, OFF = KubeNode("u-1", False), KubeNode("u-1", True)
GONE = f"Kubernetes: Node u-1 deleted, seen at {AT}"
DRAIN = Drain(node="a", by=GONE)
FENCE = Drain(node="a", fenced=True, by=GONE)
FENCE_OFF = Drain(node="a", fenced=True, by=f"Kubernetes: {OUT_OF_SERVICE} at {AT}")


def steps(node: Node, there: KubeNode | None, *, fences: bool = False) -> list[Drain]:
    known = {"a": there} if there else {}
    settings = Settings(node_deletion_fences=fences)
    return [step.asked for step in plan({"a": node}, known, settings, AT)]


@pytest.mark.parametrize(
    ("node", "there", "fences", "wanted"),
    [
        (NODE, THERE, False, []),
        (NODE, None, False, [DRAIN]),
        (NODE, KubeNode("u-2", False), False, [DRAIN]),
        (NODE, None, True, [DRAIN, FENCE]),
        (DRAINED, None, False, []),
        (DRAINED, None, True, [FENCE]),
        (FENCED, None, True, []),
        (NODE, OFF, False, [FENCE_OFF]),
        (DRAINED, OFF, False, [FENCE_OFF]),
        (FENCED, OFF, False, []),
        (DRAINED, THERE, False, [Drain(node="a", undo=True)]),
        (replace(DRAINED, drained_by="isthmus:admin:eva"), THERE, False, []),
        (replace(NODE, labels={}), None, True, []),
    ],
)
def test_what_there_is_says_what_is_to_be_done(
    node: Node, there: KubeNode | None, fences: bool, wanted: list[Drain]
) -> None:
    assert steps(node, there, fences=fences) == wanted


@dataclass
class Decisions:
    """Does as the authority would, or refuses."""

    nodes: dict[str, Node] = field(default_factory=lambda: {"a": NODE})
    asked: list[Drain] = field(default_factory=list)
    refusal: Exception | None = None
    settings: Settings = field(default_factory=Settings)

    async def drain(self, asked: Drain) -> Drained:
        self.asked.append(asked)
        if self.refusal:
            raise self.refusal
        state = NodeState.FENCED if asked.fenced else NodeState.DRAINING
        if asked.undo:
            state = NodeState.ACTIVE
        self.nodes["a"] = replace(self.nodes["a"], state=state, drained_by=asked.by)
        return Drained(state=state, blocks=())

    def view(self) -> Any:
        return SimpleNamespace(nodes=self.nodes, config=Config(settings=self.settings))


@dataclass
class Scene:
    api: FakeAPI
    decisions: Decisions
    watch: NodeWatch

    async def sees(self, holds: Callable[[dict[str, KubeNode]], bool]) -> None:
        await until(lambda: holds(self.watch.reflector.objects))


def played(scene: Callable[[Scene], Awaitable[None]]) -> None:
    async def play() -> None:
        async with FakeAPI() as api, asyncio.TaskGroup() as tasks:
            api.put(NODES, {"metadata": {"name": "a", "uid": "u-1"}})
            client = Client(api.access)
            decisions = Decisions()
            watch = NodeWatch(client, decisions, decisions.view, random=Random(1), now=lambda: NOON)
            running = tasks.create_task(watch.reflector.run())
            try:
                await until(lambda: bool(watch.reflector.objects))
                await scene(Scene(api, decisions, watch))
            finally:
                running.cancel()
                client.close()

    asyncio.run(play())


def test_a_deleted_node_drains_and_one_that_is_back_does_not() -> None:
    async def scene(at: Scene) -> None:
        at.api.delete(NODES, "a")
        await at.sees(lambda there: not there)
        await at.watch.tick()
        await at.watch.tick()
        assert at.decisions.asked == [DRAIN]
        at.api.put(NODES, {"metadata": {"name": "a", "uid": "u-1"}})
        await at.sees(bool)
        await at.watch.tick()

        assert at.decisions.nodes["a"].state is NodeState.ACTIVE

    played(scene)


def test_the_taint_fences_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(at: Scene) -> None:
        taint = {"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
        tainted = {"metadata": {"name": "a", "uid": "u-1"}, "spec": {"taints": [taint]}}
        at.api.put(NODES, tainted)
        await at.sees(lambda there: there["a"].out_of_service)
        await at.watch.tick()
        await at.watch.tick()

        assert at.decisions.asked == [FENCE_OFF]
        assert "node fenced" in caplog.text

    played(scene)


def test_a_node_that_is_alive_is_not_fenced_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(at: Scene) -> None:
        at.decisions.refusal = Forbidden("node a is seen alive")
        at.api.delete(NODES, "a")
        await at.sees(lambda there: not there)
        for _ in range(3):
            await at.watch.tick()

        assert len(at.decisions.asked) == 3
        assert caplog.text.count("not fenced or drained yet") == 1

    played(scene)


def test_an_absence_that_the_copy_alone_has_is_not_acted_on() -> None:
    async def scene(at: Scene) -> None:
        # As for a Node that came after a watch went quiet.
        at.decisions.nodes["a"] = replace(NODE, labels={NODE_UID: "u-2"})
        at.api.objects[NODES]["a"]["metadata"]["uid"] = "u-2"
        await at.watch.tick()

        assert at.decisions.asked == []

    played(scene)


@pytest.mark.parametrize("away", ["server", "store"])
def test_while_somebody_is_away_nothing_is_done(away: str) -> None:
    async def scene(at: Scene) -> None:
        at.decisions.nodes["a"] = replace(NODE, labels={NODE_UID: "u-2"})
        if away == "server":
            await at.api.stop()
            await until(lambda: bool(at.watch.reflector.trouble))
        else:
            at.watch._view = lambda: None
        await at.watch.tick()
        if away == "server":
            await at.api.start()

        assert at.decisions.asked == []

    played(scene)


def test_it_acts_by_itself_as_soon_as_it_hears() -> None:
    async def scene(at: Scene) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(at.watch.run())
            await until(at.watch.reflector.synced.is_set)
            at.api.delete(NODES, "a")
            await until(lambda: at.decisions.asked == [DRAIN])
            running.cancel()

    played(scene)
