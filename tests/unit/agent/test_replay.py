"""Deletions that waited: done in their order, once, and left alone while they fail."""

import os

import pytest

from agent.reconciler import Reconciler
from agent.replay import Patience
from ipam.leases import State
from tests.unit.cni.fakes import World


def test_spooled_deletions_are_done_at_start_in_their_order(
    world: World, reconciler: Reconciler
) -> None:
    world.made()
    world.clock.advance(1)
    world.node.spool.add(world.request("DEL", world.conf()))
    world.node.spool.add(world.request("DEL", world.conf(), container_id="never-added"))
    world.node.spool.add(world.request("DEL", b"no configuration"))

    reconciler.start()

    assert world.leases.records() == []
    assert world.node.spool.waiting() == 0


@pytest.mark.parametrize(
    "conf",
    [
        b"{}",
        b'{"cniVersion": "1.1.0", "type": "isthmus"}',
        b'{"cniVersion": "1.1.0", "name": "no name", "type": "isthmus"}',
        b'{"cniVersion": "9.0.0", "name": "shop", "type": "isthmus"}',
        b'{"cniVersion": "1.1.0", "name": "shop", "type": "isthmus", "ipam": {"type": "a/b"}}',
        b'{"cniVersion": "1.1.0", "name": "shop", "type": "isthmus", "ipam": 7}',
    ],
)
def test_a_spooled_deletion_of_an_invalid_configuration_is_dropped_with_a_warning(
    world: World, reconciler: Reconciler, conf: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    world.node.spool.add(world.request("DEL", conf))

    done = reconciler.replay()

    assert (done, world.node.spool.waiting()) == (0, 0)
    assert caplog.messages == ["deletion names nobody"]


def test_an_old_spooled_deletion_spares_a_newer_attachment(
    world: World, reconciler: Reconciler
) -> None:
    world.node.spool.add(world.request("DEL", world.conf(), started_ns=1))
    world.made(started_ns=world.clock.ns)
    world.node.spool.add(world.request("DEL", world.conf(), started_ns=2))

    done = reconciler.replay()

    assert done == 1
    assert world.record().state is State.HELD


def test_a_deletion_that_cannot_be_done_stays(world: World, reconciler: Reconciler) -> None:
    world.made()
    world.clock.advance(1)
    world.node.spool.add(world.request("DEL", world.conf()))
    world.kernel.broken, world.kernel.before = "detach", True

    first, at_once = reconciler.replay(), reconciler.replay()
    world.clock.advance(2)

    assert (first, at_once, world.node.spool.waiting()) == (0, 0, 1)
    assert (reconciler.replay(), world.node.spool.waiting()) == (1, 0)


def test_what_killed_launchers_left_half_written_goes(world: World, reconciler: Reconciler) -> None:
    spool = world.node.spool.directory
    spool.mkdir()
    old, fresh = spool / ".tmp-1-1", spool / ".tmp-2-2"
    for path in (old, fresh):
        path.touch()
    os.utime(old, (0, 0))

    reconciler.round()

    assert list(spool.iterdir()) == [fresh]


def test_what_fails_is_left_alone_for_longer_each_time_up_to_a_minute() -> None:
    now = 0
    patience = Patience(lambda: now)
    waits = [patience.lose("x") for _ in range(8)]

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert (patience.is_over("x"), patience.is_over("y")) == (False, True)
    now = 60_000_000_000
    assert patience.is_over("x")
