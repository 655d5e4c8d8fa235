"""Who answers for an address on a link, as a client there sees it, when nodes and links fail."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from agent.announcing import Announcing, Seams
from agent.bids import Bids
from announcement.settings import Settings
from kube.objects import ASSIGNED
from net.address import IPAddress
from tests.certificates import Authority
from tests.kernel.announcing_site import FOUR, SIX, site
from tests.kernel.conftest import Namespace
from tests.kernel.service_site import NODE, pod_address
from tests.kernel.service_site import site as service_site
from tests.kernel.test_service_agent import Running, run
from tests.service_objects import service, slice_

pytestmark = pytest.mark.kernel

Make = Callable[[str], Namespace]
BALANCED = {4: "192.0.2.77", 6: "2001:db8::77"}


@pytest.mark.parametrize("address", [FOUR, SIX])
def test_one_node_answers_and_after_its_death_another(
    namespaces: Make, tmp_path: Path, address: IPAddress
) -> None:
    with site(namespaces, tmp_path, "a", "b", "c") as at:
        first = at.until_right(address)
        at.until_reached(address, first)
        at.signal(first, signal.SIGKILL)
        second = at.until_right(address, first)

        at.until_reached(address, second)
        at.start(first)
        assert at.until_right(address) == first


def test_who_ends_in_order_hands_over(namespaces: Make, tmp_path: Path) -> None:
    with site(namespaces, tmp_path, "a", "b", "c") as at:
        first = at.until_right(FOUR)
        at.signal(first, signal.SIGTERM)

        assert at.until_right(FOUR, first) != first


def test_who_was_stopped_does_not_answer_beside_who_took_over(
    namespaces: Make, tmp_path: Path
) -> None:
    with site(namespaces, tmp_path, "a", "b") as at:
        first = at.until_right(FOUR)
        at.signal(first, signal.SIGSTOP)
        at.until_right(FOUR, first)
        at.signal(first, signal.SIGCONT)

        assert len(at.answering(FOUR)) <= 1
        at.until_right(FOUR)


def test_who_is_cut_off_from_most_is_silent_though_clients_reach_it(
    namespaces: Make, tmp_path: Path
) -> None:
    with site(namespaces, tmp_path, "a", "b", "c") as at:
        first = at.until_right(FOUR)
        others = set(at.nodes) - {first}
        for other in others:
            at.cut_link(first, other)
        at.until_right(FOUR, first)
        for other in others:
            at.heal_link(first, other)

        assert at.until_right(FOUR) == first


@pytest.mark.parametrize("address", [FOUR, SIX])
def test_of_two_whose_heartbeats_do_not_pass_one_gives_way_on_the_link(
    namespaces: Make, tmp_path: Path, address: IPAddress
) -> None:
    with site(namespaces, tmp_path, "a", "b") as at:
        at.until_right(address)
        at.switch.cut(at.nodes["a"].host, at.nodes["b"].host)
        highest = max(at.nodes, key=lambda name: at.nodes[name].mac)

        assert at.until_answered_by(lambda found: found == {highest}, address)


def test_two_that_nothing_connects_both_answer_until_it_does(
    namespaces: Make, tmp_path: Path
) -> None:
    with site(namespaces, tmp_path, "a", "b") as at:
        at.until_right(FOUR)
        at.cut_link("a", "b")
        both = at.until_answered_by(lambda found: found == {"a", "b"}, FOUR)
        at.heal_link("a", "b")

        assert at.until_right(FOUR) in both


def test_a_link_that_was_down_is_answered_on_again(namespaces: Make, tmp_path: Path) -> None:
    with site(namespaces, tmp_path, "a") as at:
        at.until_right(FOUR)
        at.nodes["a"].namespace.run("ip", "link", "set", "uplink", "down")
        at.until_answered_by(lambda found: not found, FOUR)
        at.nodes["a"].namespace.run("ip", "link", "set", "uplink", "up")

        assert at.until_right(FOUR) == "a"


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_on_the_link_reaches_a_service_also_while_the_api_server_is_away(
    namespaces: Make, tmp_path: Path, version: int
) -> None:
    address = BALANCED[version]
    with service_site(namespaces) as here:
        # The address is on the client's link; at the node it is nobody's.
        here.outside.run("ip", f"-{version}", "route", "add", address, "dev", "eth0")
        bids = Bids("here")
        seams = Seams(
            name="here",
            peers=lambda: {"here": (ip_address(NODE[version]),)},
            own=lambda: [ip_address(NODE[version])],
            unfit=lambda: "",
            files=Authority(tmp_path).node("here"),
            clock=time.monotonic,
        )

        async def reached(at: Running) -> None:
            end = time.monotonic() + 20
            while set(found := await asyncio.to_thread(ask, at)) != {"p1"}:
                assert time.monotonic() < end, found

        def ask(at: Running) -> Counter[str]:
            return at.site.answers(here.outside, address, 80)

        async def play(at: Running) -> None:
            at.services.follow(bids.told)
            async with asyncio.TaskGroup() as tasks:
                announcing = tasks.create_task(Announcing(Settings(), bids, seams).run())
                at.put(balanced(version), slice_("web", pod_address("p1", version)))
                await reached(at)
                await at.api.stop()
                here.outside.run("ip", "neigh", "flush", "dev", "eth0")
                await reached(at)
                announcing.cancel()

        run(here, play)


def balanced(version: int) -> dict[str, Any]:
    """A Service as it is once it has an address."""
    made = service("web", {4: "10.96.0.20", 6: "fd00:96::20"}[version], type="LoadBalancer")
    ingress = [{"ip": BALANCED[version], "ipMode": "VIP"}]
    condition = {"type": ASSIGNED, "status": "True"}
    made["status"] = {"loadBalancer": {"ingress": ingress}, "conditions": [condition]}
    return made
