"""Rounds against a kernel of values: what is adopted, ended, removed, repaired, and left alone."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from agent import reconciler as reconciling
from agent.reconciler import Reconciler
from dataplane import rtnl
from dataplane.errors import DataplaneError
from ipam.leases import State
from tests.unit.agent.reconciling import FULL, HOST, gone, later
from tests.unit.cni.fakes import BLUE, GREEN, NO_TRACE, WHO, World, link


def test_what_is_in_order_is_left_as_it_is(world: World, reconciler: Reconciler) -> None:
    world.made(world.conf(**FULL))
    world.made(world.conf(mode="routed"), container_id="c2", netns=GREEN)
    before = world.traces(), world.leases.records()

    rounds = [later(world, reconciler) for _ in range(3)]

    assert not any(rounds)
    assert (world.traces(), world.leases.records()) == before
    assert reconciler.check() == []


def test_the_dead_are_ended_when_seen_twice_and_after_the_grace_period(
    world: World, reconciler: Reconciler
) -> None:
    world.made(world.conf(**FULL))
    gone(world)

    rounds = [reconciler.round(), later(world, reconciler, 59), later(world, reconciler, 1)]

    assert [report.ended for report in rounds] == [0, 0, 1]
    assert world.leases.records() == []
    assert world.traces() == NO_TRACE


def test_one_observation_is_never_enough(world: World) -> None:
    reconciler = Reconciler(world.node, world.leases, world.kernel, world.kernel.resync, 0)  # type: ignore[arg-type]
    world.made()
    gone(world)

    first = reconciler.round()
    second = later(world, reconciler, 1)

    assert (first.ended, second.ended) == (0, 1)


def test_whoever_comes_back_is_no_longer_suspect(world: World, reconciler: Reconciler) -> None:
    world.made()
    there = world.kernel.links[HOST]
    gone(world)
    reconciler.round()
    world.kernel.links[HOST] = there
    later(world, reconciler, 30)
    gone(world)

    again = later(world, reconciler, 31)

    assert again.ended == 0
    assert later(world, reconciler).ended == 1


def test_an_add_of_the_same_key_starts_the_clock_anew(world: World, reconciler: Reconciler) -> None:
    world.made()
    gone(world)
    reconciler.round()
    world.made()
    gone(world)

    assert later(world, reconciler).ended == 0
    assert later(world, reconciler).ended == 1


def test_a_condemned_link_is_no_life(world: World, reconciler: Reconciler) -> None:
    world.made()
    world.kernel.links[HOST] = replace(world.kernel.links[HOST], alias="", group=rtnl.DELETE_GROUP)
    reconciler.round()

    assert later(world, reconciler).ended == 1
    assert HOST not in world.kernel.links


def test_an_address_alone_lives_as_long_as_its_namespace(
    world: World, reconciler: Reconciler
) -> None:
    world.made(program="isthmus-ipam")
    reconciler.round()
    alive = later(world, reconciler)
    world.kernel.pods[BLUE].cookie = 99  # another one, at the same path
    reconciler.round()

    assert alive.ended == 0
    assert later(world, reconciler).ended == 1


def test_an_address_whose_namespace_is_unknown_is_not_ended(
    world: World, reconciler: Reconciler
) -> None:
    world.made(program="isthmus-ipam", netns="/run/netns/no-such-red")
    reconciler.round()

    assert later(world, reconciler).ended == 0


def test_an_address_whose_namespace_is_gone_is_ended(world: World, reconciler: Reconciler) -> None:
    world.made(program="isthmus-ipam")
    del world.kernel.pods[BLUE]
    reconciler.round()

    assert later(world, reconciler).ended == 1


def test_reservations_are_left_to_expire(world: World, reconciler: Reconciler) -> None:
    world.made()
    world.leases.abandon(WHO).result()
    gone(world)
    reconciler.round()

    assert later(world, reconciler).ended == 0
    assert world.record().state is State.RESERVED


def test_what_cannot_be_ended_is_tried_again(world: World, reconciler: Reconciler) -> None:
    world.made(world.conf(**FULL))
    gone(world)
    reconciler.round()
    world.kernel.broken, world.kernel.before = "withdraw", True

    failed = later(world, reconciler)

    assert (failed.ended, failed.failed) == (0, 1)
    assert later(world, reconciler).ended == 1


def test_a_key_that_a_verb_works_on_is_looked_at_again_under_its_lock(
    world: World, reconciler: Reconciler
) -> None:
    world.made()
    there = world.kernel.links[HOST]
    gone(world)
    reconciler.round()
    find = world.kernel.all

    def back_again() -> list[rtnl.Link]:
        seen = find()
        world.kernel.links[HOST] = there  # between the look and the deed
        return seen

    world.kernel.all = back_again  # type: ignore[method-assign]

    later(world, reconciler)

    assert world.record().state is State.HELD


def test_links_with_another_alias_are_foreign_but_pairs_without_one_are_orphans(
    world: World, reconciler: Reconciler
) -> None:
    world.kernel.links["isth0000000000f"] = link("isth0000000000f", 50, alias="mine!", up=True)
    world.kernel.links["isth0000000000a"] = link("isth0000000000a", 51)
    world.kernel.links["eth0"] = link("eth0", 52)
    world.kernel.links["isth0000000000b"] = link("isth0000000000b", 53, kind="tun")

    rounds = [reconciler.round(), later(world, reconciler)]

    assert [report.removed for report in rounds] == [0, 1]
    assert sorted(world.kernel.links) == ["eth0", "isth0000000000b", "isth0000000000f"]


def test_a_pair_of_somebody_else_whose_name_starts_as_ours_is_foreign(
    world: World, reconciler: Reconciler
) -> None:
    for name in ("isthmus0", "isth0", "isthABCDEF01234"):
        world.kernel.links[name] = link(name, 51)
    reconciler.start()
    reconciler.round()

    later(world, reconciler)

    assert sorted(world.kernel.links) == ["isth0", "isthABCDEF01234", "isthmus0"]


def test_an_orphan_that_gets_its_alias_is_none(world: World, reconciler: Reconciler) -> None:
    world.kernel.links["isth0000000000c"] = link("isth0000000000c", 51)
    reconciler.round()
    world.kernel.links["isth0000000000c"] = link("isth0000000000c", 51, alias="isthmus/1 …")

    assert later(world, reconciler).removed == 0


def test_a_pair_that_an_add_is_still_making_is_no_orphan(
    world: World, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "_KEY_WAIT_S", 0.01)
    world.made()
    world.kernel.links[HOST] = replace(world.kernel.links[HOST], alias="")
    with world.node.locks.hold(WHO):
        rounds = [reconciler.round(), later(world, reconciler)]

    assert [report.removed for report in rounds] == [0, 0]
    assert HOST in world.kernel.links


def bridge_off(world: World) -> None:
    world.kernel.links[HOST] = replace(world.kernel.links[HOST], master=0)


def host_down(world: World) -> None:
    world.kernel.links[HOST] = replace(world.kernel.links[HOST], up=False)


def gateway_off(world: World) -> None:
    world.kernel.held_addresses[world.kernel.links["cni0"].index] = []


def tables_flushed(world: World) -> None:
    world.kernel.published.clear()


def limits_off(world: World) -> None:
    world.kernel.limits.clear()


@pytest.mark.parametrize("drift", [bridge_off, host_down, gateway_off, tables_flushed, limits_off])
def test_drift_is_repaired_at_once(
    world: World, reconciler: Reconciler, drift: Callable[[World], None]
) -> None:
    result = world.made(world.conf(**FULL))
    drift(world)

    report = reconciler.round()

    assert report.repaired == 1
    assert world.call("CHECK", world.conf(prevResult=result, **FULL)).status == 0
    assert not reconciler.round()


def test_host_routes_and_gateways_of_routed_pods_are_repaired(
    world: World, reconciler: Reconciler
) -> None:
    conf = world.conf(mode="routed")
    result = world.made(conf)
    world.kernel.routes = {ip_network("10.9.0.2/32"): 999}
    world.kernel.held_addresses.clear()

    report = reconciler.round()

    assert report.repaired == 1
    assert world.call("CHECK", conf | {"prevResult": result}).status == 0


def test_settings_of_the_host_are_put_back(world: World, reconciler: Reconciler) -> None:
    world.made(world.conf(**FULL))
    before = set(world.kernel.forwarding), set(world.kernel.localhost)
    world.kernel.forwarding.clear()
    world.kernel.localhost.clear()

    reconciler.round()

    assert (world.kernel.forwarding, world.kernel.localhost) == before


def test_a_pair_that_a_verb_works_on_is_not_repaired_meanwhile(
    world: World, reconciler: Reconciler
) -> None:
    world.made()
    host_down(world)

    with world.node.locks.hold(WHO):
        report = reconciler.round()

    assert report.repaired == 0
    assert reconciler.round().repaired == 1


def test_a_repair_that_fails_keeps_nobody_else(world: World, reconciler: Reconciler) -> None:
    world.made()
    world.made(container_id="c2", netns=GREEN)
    host_down(world)
    repair = world.kernel.repair

    def refuse(wanted: object) -> None:
        raise DataplaneError("no")

    world.kernel.repair = refuse  # type: ignore[method-assign,assignment]
    failed = reconciler.round()
    world.kernel.repair = repair  # type: ignore[method-assign]

    assert (failed.repaired, failed.failed) == (0, 1)
    assert reconciler.round().repaired == 1


@pytest.mark.parametrize("step", ["resync", "sweep_limits"])
def test_tables_or_limits_that_refuse_are_tried_again(
    world: World, reconciler: Reconciler, step: str
) -> None:
    world.kernel.broken, world.kernel.before = step, True

    assert reconciler.round().failed == 1
    assert reconciler.round().failed == 0


def test_limits_of_pairs_that_are_gone_are_swept(world: World, reconciler: Reconciler) -> None:
    world.made(world.conf(**FULL))
    world.kernel.limits["isth0000000000d"] = world.kernel.limits[HOST]

    report = reconciler.round()

    assert report.removed == 1
    assert list(world.kernel.limits) == [HOST]


def test_nothing_outlives_a_boot(world: World, reconciler: Reconciler) -> None:
    world.made(world.conf(**FULL), boot_id="an older boot")
    world.made(container_id="c2", netns=GREEN)
    gone(world)

    report = reconciler.start()

    assert report.ended == 1
    assert [record.who.container_id for record in world.leases.records()] == ["c2"]


def test_what_a_crash_cut_off_is_undone_at_start(world: World, reconciler: Reconciler) -> None:
    first = world.add(world.conf(**FULL))
    world.kernel.links[HOST] = replace(world.kernel.links[HOST], alias="")

    report = reconciler.start()

    assert report.ended == 1
    assert world.traces() == NO_TRACE
    assert world.record().state is State.RESERVED
    assert world.add(world.conf(**FULL)).addresses == first.addresses


def test_at_start_unfinished_pairs_go_at_once(world: World, reconciler: Reconciler) -> None:
    world.kernel.links["isth0000000000a"] = link("isth0000000000a", 51)

    assert reconciler.start().removed == 1
    assert world.kernel.links == {}


def test_tables_are_programmed_at_start(world: World, reconciler: Reconciler) -> None:
    world.made(world.conf(**FULL))
    world.kernel.published.clear()

    reconciler.start()

    assert list(world.kernel.published) == [WHO]


def test_every_difference_is_reported_and_nothing_is_changed(
    world: World, reconciler: Reconciler
) -> None:
    world.made()
    gone(world)
    world.kernel.links["isth0000000000a"] = link("isth0000000000a", 51)

    faults = reconciler.check()

    assert faults == [
        "shop/c1/eth0 holds 10.9.0.2/24 but its sandbox is gone",
        "link isth0000000000a belongs to no attachment (no alias)",
    ]
    assert world.record().state is State.HELD
    assert "isth0000000000a" in world.kernel.links


def test_life_is_told_of_one_record(world: World, reconciler: Reconciler) -> None:
    world.made()
    record = world.record()
    alive = reconciler.is_alive(record)
    gone(world)

    assert (alive, reconciler.is_alive(record)) == (True, False)


def test_an_operator_can_end_an_attachment_and_one_that_is_none(
    world: World, reconciler: Reconciler
) -> None:
    world.made(world.conf(**FULL))

    reconciler.release(WHO)
    reconciler.release(WHO)

    assert world.leases.records() == []
    assert world.traces() == NO_TRACE


def test_digested_keys_are_alive_as_long_as_their_pair(
    world: World, reconciler: Reconciler
) -> None:
    conf = world.conf(name="n" * 150)
    world.made(conf, container_id="c" * 100)
    (record,) = world.leases.records()
    world.leases.release(record.who).result()

    reconciler.round()
    later(world, reconciler)
    report = later(world, reconciler)

    (adopted,) = world.leases.records()
    assert (report.adopted, report.ended) == (0, 0)
    assert adopted.addresses == record.addresses
    assert adopted.addresses[0].ip == ip_address("10.9.0.2")
