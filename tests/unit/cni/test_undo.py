"""An ADD that nobody got the answer of is taken back, and no other."""

from cni import undo
from ipam.leases import State
from tests.unit.cni.fakes import GREEN, NO_TRACE, World
from tests.unit.cni.test_add import EVERYTHING


def test_links_and_rules_go_and_the_address_waits_for_the_next_add(world: World) -> None:
    conf = world.conf(**EVERYTHING)
    request = world.request("ADD", conf, started_ns=world.clock.ns)
    first = world.add(conf, started_ns=request.started_ns)

    undo.undelivered(request, world.node)

    assert world.traces() == NO_TRACE
    assert world.record().state is State.RESERVED
    assert world.add(conf).addresses == first.addresses


def test_its_reservation_ends_with_the_cool_down(world: World) -> None:
    request = world.request("ADD", world.conf(), started_ns=world.clock.ns)
    world.add(started_ns=request.started_ns)
    undo.undelivered(request, world.node)
    assert world.leases.check() == []
    world.clock.advance(31)

    world.leases.expire()

    assert world.leases.records() == []


def test_an_add_that_came_in_between_stays(world: World) -> None:
    request = world.request("ADD", world.conf())
    world.add(started_ns=request.started_ns)
    world.add(netns=GREEN)

    undo.undelivered(request, world.node)

    assert world.record().state is State.HELD
    assert world.link() is not None


def test_an_add_of_another_boot_stays(world: World) -> None:
    request = world.request("ADD", world.conf(), boot_id="another")
    world.add(started_ns=request.started_ns)

    undo.undelivered(request, world.node)

    assert world.record().state is State.HELD


def test_an_add_that_made_nothing_has_nothing_to_undo(world: World) -> None:
    undo.undelivered(world.request("ADD", world.conf()), world.node)
    undo.undelivered(world.request("ADD", b"{"), world.node)

    assert world.kernel.steps == []


def test_an_address_alone_becomes_a_reservation_on_disk(world: World) -> None:
    request = world.request("ADD", world.conf(), program="isthmus-ipam")
    world.add(program="isthmus-ipam", started_ns=request.started_ns)

    undo.undelivered(request, world.node)

    (record,) = world.store.load().records
    assert record.state is State.RESERVED
    assert world.kernel.steps == []


def test_undoing_twice_is_undoing_once(world: World) -> None:
    request = world.request("ADD", world.conf())
    world.add(started_ns=request.started_ns)

    undo.undelivered(request, world.node)
    undo.undelivered(request, world.node)

    assert world.record().state is State.RESERVED
