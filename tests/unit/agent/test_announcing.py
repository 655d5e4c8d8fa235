"""Nodes on loopback that have no link to answer on, but decide as if they had."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from agent.announcing import EXCLUDED, Announcing, Seams, unfit
from agent.bids import Bids
from announcement.election import winner
from announcement.settings import Settings
from dataplane.neighbours import Claim, Question
from net.address import IPAddress
from tests.certificates import Authority
from tests.kube_api import until as within
from tests.unit.agent.test_bids import ONE, TWO, WEB, wanted
from tests.unit.agent.test_health_checks import free_port
from tests.unit.agent.test_heartbeats import PLACES

until = partial(within, within_s=90)  # a machine that is busy is slow to hear itself
HIGH, LOW = bytes.fromhex("020000000009"), bytes.fromhex("020000000001")


@dataclass
class Link:
    """Stands for a Responder."""

    mac: bytes = bytes.fromhex("020000000005")
    answered: list[IPAddress] = field(default_factory=list)

    def answer(self, question: Question) -> None:
        self.answered.append(question.address)


@dataclass
class Site:
    nodes: dict[str, Announcing] = field(default_factory=dict)
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)

    def mine(self, name: str) -> set[IPAddress]:
        return set(self.nodes[name]._mine)

    def is_shared_out(self, *names: str) -> bool:
        """Whether each address is exactly whose it should be."""
        return all(
            self.mine(name) == {one for one in (ONE, TWO) if winner(one, names) == name}
            for name in names
        )


def played(
    tmp_path: Path, scene: Callable[[Site], Awaitable[None]], *names: str, peers: Any = None
) -> None:
    authority, site = Authority(tmp_path), Site()

    async def play() -> None:
        port = free_port()
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                bids = Bids(name)
                bids.told(WEB, wanted(WEB))
                seams = Seams(
                    name=name,
                    peers=lambda: peers or {one: PLACES[one] for one in names},
                    own=lambda: (),
                    unfit=lambda name=name: site.unfit.get(name, ""),  # type: ignore[misc]
                    files=authority.node(name),
                    clock=time.monotonic,
                    host=str(PLACES[name][0]),
                )
                site.nodes[name] = Announcing(Settings(port=port), bids, seams)
                site.running[name] = tasks.create_task(site.nodes[name].run())
            await scene(site)
            for task in site.running.values():
                task.cancel()

    asyncio.run(play())


def test_a_node_alone_has_every_address(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        await until(lambda: site.is_shared_out("a"))
        await until(lambda: site.nodes["a"].describe().get("addresses") == [str(ONE), str(TWO)])

        assert site.nodes["a"].problems() == ["load balancers: no link has an address of this node"]

    played(tmp_path, scene, "a")


def test_nodes_share_addresses_out_and_who_leaves_is_replaced(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        await until(lambda: site.is_shared_out("a", "b", "c"))
        site.running["b"].cancel()
        await until(lambda: site.is_shared_out("a", "c"))

        assert site.mine("b") == set()
        # What others are told is a second old at most.
        told = site.nodes["a"].describe
        owners = {str(one): winner(one, ("a", "c")) for one in (ONE, TWO)}
        await until(lambda: told()["owners"] == owners)
        await until(lambda: told()["taken"] - told()["given_up"] == len(site.mine("a")))

    played(tmp_path, scene, "a", "b", "c")


def test_a_node_that_is_not_fit_leaves_its_addresses_to_others(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        await until(lambda: site.is_shared_out("a", "b"))
        site.unfit["a"] = "Services are not programmed yet"
        await until(lambda: site.mine("b") == {ONE, TWO})

        assert site.mine("a") == set()

    played(tmp_path, scene, "a", "b")


def test_a_node_that_hears_less_than_half_says_so_and_answers_for_nothing(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        node = site.nodes["a"]
        await until(lambda: any("hears less than half" in line for line in node.problems()))

        assert site.mine("a") == set()
        assert any("node d is not heard: 127.0.0.1 is node a" in one for one in node.problems())

    # Others that cannot be reached; where they are is somebody else.
    peers = {"a": PLACES["a"], "d": PLACES["a"], "e": PLACES["a"]}
    played(tmp_path, scene, "a", peers=peers)


def test_questions_are_answered_for_what_is_ours_alone(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        await until(lambda: site.is_shared_out("a"))
        link: Any = Link()
        for address in (ONE, ip_address("192.0.2.99")):
            site.nodes["a"]._asked(Question(address, None, HIGH), link)

        assert link.answered == [ONE]

    played(tmp_path, scene, "a")


def test_who_is_announced_by_a_stranger_of_a_higher_mac_is_left_to_it(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        node = site.nodes["a"]
        await until(lambda: site.is_shared_out("a"))
        link: Any = Link()
        node._asked(Claim(ONE, LOW), link)
        assert site.mine("a") == {ONE, TWO}
        node._asked(Claim(ONE, HIGH), link)
        assert site.mine("a") == {TWO}
        await until(lambda: any("is announced by 02:00" in line for line in node.problems()))
        await until(lambda: site.mine("a") == {ONE, TWO})  # it is heard no more

    played(tmp_path, scene, "a")


def test_a_look_that_fails_does_not_end_the_agent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(site: Site) -> None:
        broken: Any = None
        site.unfit = broken
        await until(lambda: "addresses of Services, will retry" in caplog.text)
        site.unfit = {}
        await until(lambda: site.is_shared_out("a"))

        assert not site.running["a"].done()

    played(tmp_path, scene, "a")


def test_a_node_is_unfit_when_it_leaves_is_excluded_or_does_not_translate() -> None:
    assert unfit("", is_leaving=False, labels={}) == ""
    assert unfit("not yet", is_leaving=False, labels={}) == "not yet"
    assert EXCLUDED in unfit("", is_leaving=False, labels={EXCLUDED: ""})
    assert "about to be removed" in unfit("", is_leaving=True, labels={})
