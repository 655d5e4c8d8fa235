import asyncio
from ipaddress import ip_network

import pytest

from agent.own_node import NOT_READY, Duty, carry_out, condition, first_blocks, is_wording, plan
from ipam.holdings import OwnBlock, OwnState
from kube.client import Client
from kube.objects import Condition, Node, NodeSpec, NodeStatus, Taint
from tests.kube_api import NODES, FakeAPI

TAINT = Taint(key=NOT_READY, effect="NoSchedule")
WELL, ILL = condition(""), condition("ipamd was never reached")


def block(cidr: str, revision: int, state: OwnState = OwnState.ACTIVE, **more: bool) -> OwnBlock:
    return OwnBlock(
        cidr=ip_network(cidr), pool="p", epoch=1, revision=revision, state=state, **more
    )


def node(
    *conditions: Condition, cidrs: tuple[str, ...] = (), taints: tuple[Taint, ...] = ()
) -> Node:
    return Node(
        spec=NodeSpec(pod_cidrs=cidrs or None, taints=taints),
        status=NodeStatus(conditions=conditions),
    )


BLOCKS = (block("10.0.1.0/24", 9), block("10.0.0.0/24", 5), block("fd00::/120", 5))


@pytest.mark.parametrize(
    ("there", "unready", "wanted"),
    [
        (node(), "", Duty(("10.0.0.0/24", "fd00::/120"), WELL)),
        (node(WELL, cidrs=("10.0.0.0/24",)), "", Duty()),
        (node(WELL, cidrs=("10.9.0.0/24",)), "", Duty()),
        (node(WELL, cidrs=("a",), taints=(TAINT,)), "", Duty(is_tainted=True)),
        (node(WELL, cidrs=("a",), taints=(TAINT,)), "ipamd was never reached", Duty((), ILL)),
        (node(ILL, cidrs=("a",)), "ipamd was never reached", Duty()),
        (node(ILL, cidrs=("a",)), "", Duty((), WELL)),
        (node(WELL, cidrs=("a",), taints=(Taint(key="other"),)), "", Duty()),
    ],
)
def test_what_is_not_as_it_should_be_is_written(there: Node, unready: str, wanted: Duty) -> None:
    duty = plan(there, unready=unready, blocks=BLOCKS)

    assert duty == wanted
    assert bool(duty) == (wanted != Duty())


def test_the_condition_is_kubernetes_own_and_says_why() -> None:
    assert (WELL.type, WELL.status) == ("NetworkUnavailable", "False")
    assert (ILL.status, ILL.message) == ("True", "ipamd was never reached")


@pytest.mark.parametrize(
    ("there", "duty", "wording"),
    [
        (node(ILL), Duty((), condition("etcd is away")), True),
        (node(ILL), Duty((), WELL), False),
        (node(), Duty((), ILL), False),
        (node(ILL), Duty(("a",), condition("etcd is away")), False),
        (node(ILL), Duty(), False),
    ],
)
def test_another_reason_for_the_same_is_a_matter_of_words(
    there: Node, duty: Duty, wording: bool
) -> None:
    assert is_wording(there, duty) is wording


def test_a_block_that_is_going_or_lost_or_of_a_named_pool_is_no_pod_cidr() -> None:
    assert first_blocks(()) == ()
    assert first_blocks(
        (
            block("10.0.0.0/24", 1, OwnState.LOST),
            block("10.0.1.0/24", 2, OwnState.DRAINING),
            block("10.0.2.0/24", 3, default=False),
            block("10.0.3.0/24", 4),
        )
    ) == ("10.0.3.0/24",)


def test_the_taint_goes_last() -> None:
    async def play() -> None:
        async with FakeAPI() as api:
            taint = {"key": NOT_READY, "effect": "NoSchedule"}
            api.put(NODES, {"metadata": {"name": "a"}, "spec": {"taints": [taint]}})
            client = Client(api.access)
            before = await client.get(f"{NODES}/a", Node)
            duty = plan(before, unready="", blocks=BLOCKS)
            after = await carry_out(client, before, duty, at="2026-01-01T00:00:00Z")
            client.close()

            assert after.spec.pod_cidrs == ("10.0.0.0/24", "fd00::/120")
            assert not plan(after, unready="", blocks=BLOCKS)
            assert "taints" in api.asked[-1].body["spec"]

    asyncio.run(play())


@pytest.mark.parametrize(
    ("families", "cidrs"),
    [((4,), ("10.0.0.0/24",)), ((4, 6), ()), (None, ()), ((), ("10.0.0.0/24",))],
)
def test_pod_cidrs_wait_for_a_block_of_each_family_since_they_cannot_be_changed(
    families: tuple[int, ...] | None, cidrs: tuple[str, ...]
) -> None:
    duty = plan(node(), unready="", blocks=BLOCKS[:2], families=families)

    assert duty == Duty(cidrs, WELL)
