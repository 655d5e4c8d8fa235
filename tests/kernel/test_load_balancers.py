"""Who answers for an address on a link, as a client there sees it, when nodes and links fail."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from net.address import IPAddress
from tests.kernel.announcing_site import FOUR, SIX, site
from tests.kernel.conftest import Namespace

pytestmark = pytest.mark.kernel

Make = Callable[[str], Namespace]


@pytest.mark.parametrize("address", [FOUR, SIX])
def test_one_node_answers_and_after_its_death_another(
    namespaces: Make, tmp_path: Path, address: IPAddress
) -> None:
    with site(namespaces, tmp_path, "a", "b", "c") as at:
        first = at.until_right(address)
        assert at.reached(address) == first
        at.signal(first, signal.SIGKILL)
        second = at.until_right(address, first)

        # The client was told: it has not asked since.
        assert at.reached(address) == second
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

        assert len(at.answering(FOUR)) == 1
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
