"""GC: what its list leaves out is ended, and no more than that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cni.locks import KeyLocks
from ipam.leases import Attachment
from tests.unit.cni.fakes import GREEN, NO_TRACE, WHO, Document, World
from tests.unit.cni.test_add import EVERYTHING

ETH0: Document = {"containerID": "c1", "ifname": "eth0"}
NET1: Document = {"containerID": "c1", "ifname": "net1"}
KEYS = ["cni.dev/valid-attachments", "cni.dev/attachments"]


class Awaited(KeyLocks):
    """Locks of which the first is had only after *meanwhile* has happened under it."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile = [meanwhile]

    @contextmanager
    def hold(self, who: Attachment, *, timeout: float = -1) -> Iterator[bool]:
        if self._meanwhile:
            self._meanwhile.pop()()
        with super().hold(who, timeout=timeout) as held:
            yield held


def held(world: World) -> list[str]:
    return sorted(str(record.who) for record in world.leases.records())


def two(world: World) -> None:
    world.made()
    world.made(ifname="net1")


@pytest.mark.parametrize("key", KEYS)
def test_whoever_is_not_in_the_list_is_ended(world: World, key: str) -> None:
    two(world)

    found = world.call("GC", world.conf(**{key: [ETH0]}))

    assert (found.status, found.document) == (0, None)
    assert held(world) == ["shop/c1/eth0"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("nobody", [[], None], ids=["empty", "null"])
def test_an_empty_list_ends_everybody(world: World, key: str, nobody: object) -> None:
    world.made(world.conf(**EVERYTHING))
    conf = world.conf()
    conf[key] = nobody

    found = world.call("GC", conf)

    assert found.status == 0
    assert held(world) == []
    assert world.traces() == NO_TRACE


def test_an_absent_list_proves_nothing(world: World) -> None:
    two(world)

    found = world.call("GC", world.conf())

    assert found.status == 0
    assert held(world) == ["shop/c1/eth0", "shop/c1/net1"]


def test_of_both_keys_the_newer_counts(world: World) -> None:
    two(world)

    world.call("GC", world.conf(**{KEYS[0]: [ETH0, NET1], KEYS[1]: []}))

    assert held(world) == ["shop/c1/eth0", "shop/c1/net1"]


def test_other_networks_are_out_of_reach(world: World) -> None:
    world.made()
    world.made(world.conf(name="other"), ifname="net1")

    world.call("GC", world.conf(**{KEYS[0]: []}))

    assert held(world) == ["other/c1/net1"]


def test_what_was_added_after_the_list_was_made_stays(world: World) -> None:
    early = world.clock.ns
    world.made()

    world.call("GC", world.conf(**{KEYS[0]: []}), started_ns=early)

    assert held(world) == ["shop/c1/eth0"]


def test_what_was_added_while_its_key_was_waited_for_stays(world: World) -> None:
    world.made()
    world.node = replace(world.node, locks=Awaited(lambda: world.made(netns=GREEN)))

    found = world.call("GC", world.conf(**{KEYS[0]: []}))

    assert found.status == 0
    assert world.record().sandbox == GREEN


def test_addresses_given_to_other_plugins_are_collected_too(world: World) -> None:
    world.made(program="isthmus-ipam")

    world.call("GC", world.conf(**{KEYS[0]: []}), program="isthmus-ipam")

    assert held(world) == []


def test_one_that_cannot_be_ended_does_not_keep_the_others(world: World) -> None:
    world.made()
    world.made(container_id="c2", netns=GREEN)
    world.kernel.broken, world.kernel.before = "detach", True

    found = world.call("GC", world.conf(**{KEYS[0]: []}))

    assert (found.code, found.msg) == (11, "not all could be cleaned")
    assert found.details == "shop/c1/eth0: detach refused"
    assert held(world) == ["shop/c1/eth0"]


def test_a_release_that_cannot_be_written_is_told(world: World) -> None:
    world.made()
    world.store.full = True

    found = world.call("GC", world.conf(**{KEYS[0]: []}))

    assert found.code == 11
    assert "shop/c1/eth0" in found.details
    assert world.record().who == WHO


@pytest.mark.parametrize(
    "entry", [{"containerID": "c1"}, {"ifname": "eth0"}, {"containerID": "", "ifname": "eth0"}]
)
def test_an_entry_that_names_nobody_is_refused_before_anything_ends(
    world: World, entry: Document
) -> None:
    world.made()

    found = world.call("GC", world.conf(**{KEYS[0]: [entry]}))

    assert found.code == 7
    assert "cni.dev/valid-attachments[0]" in found.msg
    assert held(world) == ["shop/c1/eth0"]


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_versions_before_gc_have_none(world: World, version: str) -> None:
    found = world.call("GC", world.conf(cniVersion=version))

    assert (found.code, found.msg) == (1, "config version does not allow GC")
