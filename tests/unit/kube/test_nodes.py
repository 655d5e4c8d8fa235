import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kube import nodes
from kube.client import Client
from kube.errors import Conflict, Rejected
from kube.objects import Condition, Node
from tests.kube_api import NODES, FakeAPI

READY = {"type": "Ready", "status": "True"}
OURS = {"key": "node.isthmus.dev/agent-not-ready", "effect": "NoSchedule"}
OTHER = {"key": "other", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}


def on_a_node(scene: Callable[[FakeAPI, Client, Node], Awaitable[None]]) -> None:
    async def play() -> None:
        async with FakeAPI() as api:
            api.put(
                NODES,
                {
                    "metadata": {"name": "a"},
                    "spec": {"taints": [OURS, OTHER]},
                    "status": {"conditions": [READY]},
                },
            )
            client = Client(api.access)
            await scene(api, client, await client.get(f"{NODES}/a", Node))
            client.close()

    asyncio.run(play())


def test_the_first_blocks_become_the_pod_cidrs_of_a_node_that_has_none() -> None:
    async def scene(api: FakeAPI, client: Client, node: Node) -> None:
        changed = await nodes.set_pod_cidrs(client, node, ["10.0.0.0/24", "fd00::/64"])

        assert changed.spec.pod_cidrs == ("10.0.0.0/24", "fd00::/64")
        assert api.objects[NODES]["a"]["spec"]["podCIDR"] == "10.0.0.0/24"
        with pytest.raises(Rejected):
            await nodes.set_pod_cidrs(client, changed, ["10.0.1.0/24"])

    on_a_node(scene)


def test_our_taint_goes_and_another_stays_as_it_was() -> None:
    async def scene(api: FakeAPI, client: Client, node: Node) -> None:
        changed = await nodes.remove_taint(client, node, OURS["key"])

        assert api.objects[NODES]["a"]["spec"]["taints"] == [OTHER]
        last = await nodes.remove_taint(client, changed, "other")
        assert not last.spec.taints

    on_a_node(scene)


def test_a_taint_that_came_meanwhile_is_not_lost() -> None:
    async def scene(api: FakeAPI, client: Client, node: Node) -> None:
        api.put(NODES, {"metadata": {"name": "a"}, "spec": {"taints": [OURS, OTHER, OTHER]}})

        with pytest.raises(Conflict):
            await nodes.remove_taint(client, node, OURS["key"])

    on_a_node(scene)


def test_a_condition_says_since_when_it_holds() -> None:
    async def scene(api: FakeAPI, client: Client, node: Node) -> None:
        wanted = Condition(type=nodes.NETWORK_UNAVAILABLE, status="False", reason="R", message="M")
        first = await nodes.set_condition(client, node, wanted, at="2026-01-01T00:00:00Z")
        await nodes.set_condition(client, first, wanted, at="2026-01-02T00:00:00Z")

        assert api.objects[NODES]["a"]["status"]["conditions"] == [
            READY,
            {
                "type": "NetworkUnavailable",
                "status": "False",
                "reason": "R",
                "message": "M",
                "lastHeartbeatTime": "2026-01-02T00:00:00Z",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            },
        ]
        assert nodes.find_condition(first, "NetworkUnavailable") == wanted

    on_a_node(scene)
