"""Pauses grow with jitter; waiting ends with the event or with time."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from agent.talk import LONGEST_PAUSE_S, SHORTEST_PAUSE_S, Pause, done, wait
from tests.unit.agent.talks import Site, made_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made_site(tmp_path) as site:
        yield site


def test_each_pause_is_longer_up_to_a_limit_and_no_two_nodes_agree() -> None:
    one, two = Pause(Random(1)), Pause(Random(2))
    pauses = [one.longer() for _ in range(20)]

    assert SHORTEST_PAUSE_S / 2 <= pauses[0] < 1.5 * SHORTEST_PAUSE_S
    assert pauses[0] != two.longer()
    assert LONGEST_PAUSE_S / 2 <= max(pauses) < 1.5 * LONGEST_PAUSE_S
    assert one.is_grown
    one.reset()
    assert not one.is_grown
    assert one.longer() < 1.5 * SHORTEST_PAUSE_S


def test_a_pause_can_be_kept_shorter_and_has_a_least() -> None:
    pause = Pause(Random(1), longest_s=2.0)
    pauses = [pause.longer() for _ in range(20)]

    assert 1.0 <= max(pauses) < 3.0
    assert 0 < pause.least() < SHORTEST_PAUSE_S


def test_waiting_ends_with_the_event_or_without_it() -> None:
    async def scene() -> None:
        event = asyncio.Event()
        await wait(event, 0.001)
        assert not event.is_set()
        event.set()
        await wait(event, 3600)

    asyncio.run(scene())


def test_every_call_says_whose_it_is(site: Site) -> None:
    async def scene() -> None:
        await done(site.talk.blocks.begin())

        assert site.talk.me() == {"node": "n1", "uid": "u1", "epoch": 0}
        assert site.talk.used(()) == {}

    asyncio.run(scene())
