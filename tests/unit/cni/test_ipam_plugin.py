"""`isthmus-ipam`: addresses for the interfaces of other plugins."""

import os

import pytest

from cni import ipam_plugin, spec
from cni.environment import check
from cni.errors import CNIError
from ipam.leases import State
from tests.unit.cni.fakes import BLUE, DUAL, GREEN, WHO, Answer, Document, FakePod, World
from tests.unit.ipam.cases import BOOT

BRIDGE: Document = {"type": "bridge", "bridge": "br7", "ipam": {"type": "isthmus-ipam"} | DUAL}


def call(world: World, verb: str, conf: Document | None = None, **more: object) -> Answer:
    return world.call(verb, conf or world.conf(**BRIDGE), program="isthmus-ipam", **more)


def test_the_answer_has_addresses_and_routes_alone(world: World) -> None:
    ipam = {**DUAL, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.9.0.7"}]}

    found = call(world, "ADD", world.conf(**BRIDGE | {"ipam": ipam}))

    assert found.document == {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "10.9.0.2/24", "gateway": "10.9.0.1"},
            {"address": "fd09::2/64", "gateway": "fd09::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.9.0.7"}],
    }


def test_the_answer_is_in_the_configurations_version(world: World) -> None:
    found = call(world, "ADD", world.conf(**BRIDGE, cniVersion="0.2.0"))

    assert found.document == {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.9.0.2/24", "gateway": "10.9.0.1"},
        "ip6": {"ip": "fd09::2/64", "gateway": "fd09::1"},
        "dns": {},
    }


def test_nothing_but_the_lease_is_made(world: World) -> None:
    call(world, "ADD")

    record = world.record()
    assert world.kernel.steps == []
    assert (record.boot_id, record.sandbox, record.netns_cookie) == (BOOT, BLUE, 11)
    assert not spec.decode(record.spec).link
    assert world.store.load().records == (record,)


def test_an_address_that_the_runtime_wants_is_given(world: World) -> None:
    found = call(world, "ADD", args="IP=fd09::77,10.9.0.66")

    assert found.addresses == ["10.9.0.66/24", "fd09::77/64"]


def test_a_second_add_in_the_same_sandbox_is_refused(world: World) -> None:
    call(world, "ADD")

    found = call(world, "ADD")

    assert found.code == 101
    assert found.msg == (
        "10.9.0.2/24, fd09::2/64 has been allocated to shop/c1/eth0, "
        "duplicate allocation is not allowed"
    )


def test_a_second_add_in_another_sandbox_has_the_same_address(world: World) -> None:
    first = call(world, "ADD")

    second = call(world, "ADD", netns=GREEN)

    assert second.addresses == first.addresses
    assert world.record().netns_cookie == 22


def test_an_add_after_a_failed_one_uses_its_reservation(world: World) -> None:
    first = call(world, "ADD")
    world.leases.abandon(WHO).result()

    assert call(world, "ADD").addresses == first.addresses


def test_without_a_sandbox_the_address_is_given_all_the_same(world: World) -> None:
    found = call(world, "ADD", netns="/run/netns/no-such-red")

    assert found.status == 0
    assert world.record().netns_cookie == 0


def test_a_lease_that_cannot_be_written_is_not_given(world: World) -> None:
    world.store.full = True

    found = call(world, "ADD")

    assert found.code == 11
    assert world.store.load().records == ()


def test_flows_of_the_former_holder_are_forgotten_before_the_answer(world: World) -> None:
    conf = world.conf(ipam={"subnet": "10.9.0.0/30"})
    call(world, "ADD", conf, container_id="former")
    call(world, "DEL", conf, container_id="former")

    call(world, "ADD", conf)

    assert world.kernel.steps == ["forget_flows"]


def test_a_failure_on_the_way_leaves_a_reservation(world: World) -> None:
    conf = world.conf(ipam={"subnet": "10.9.0.0/30"})
    call(world, "ADD", conf, container_id="former")
    call(world, "DEL", conf, container_id="former")
    world.kernel.broken = "forget_flows"

    found = call(world, "ADD", conf)

    assert found.code == 102
    assert world.record().state is State.RESERVED


def test_an_earlier_spooled_deletion_is_done_first(world: World) -> None:
    call(world, "ADD")
    world.node.spool.add(world.request("DEL", world.conf(**BRIDGE), program="isthmus-ipam"))

    found = call(world, "ADD")

    assert found.status == 0
    assert world.node.spool.waiting() == 0


def test_del_gives_back_and_unknown_is_fine(world: World) -> None:
    call(world, "ADD")

    assert [call(world, "DEL", netns="").status for _ in range(2)] == [0, 0]
    assert world.leases.records() == []


def test_a_deletion_older_than_the_lease_is_ignored(world: World) -> None:
    early = world.clock.ns
    call(world, "ADD")

    assert call(world, "DEL", started_ns=early).status == 0
    assert world.record().who == WHO


def test_check_asks_whether_the_key_holds_something(world: World) -> None:
    unknown = call(world, "CHECK")
    call(world, "ADD")

    assert (unknown.code, unknown.msg) == (3, "no attachment shop/c1/eth0 is known")
    assert call(world, "CHECK").status == 0
    world.leases.abandon(WHO).result()
    assert call(world, "CHECK").code == 3


def test_without_ranges_there_is_nothing_to_give(world: World) -> None:
    found = call(world, "ADD", world.conf(ipam={"type": "isthmus-ipam"}))

    assert (found.code, found.msg) == (7, "no ranges in ipam")


@pytest.mark.parametrize("verb", [ipam_plugin.add, ipam_plugin.remove])
def test_no_verb_waits_longer_than_its_deadline_for_its_key(world: World, verb: object) -> None:
    request = world.request("ADD", world.conf(**BRIDGE), program="isthmus-ipam")
    call = check(request.environment)

    with world.node.locks.hold(WHO), pytest.raises(CNIError, match="is being worked on"):
        verb(request, call, world.node, world.deadline(0))  # type: ignore[operator]


def test_a_result_that_cannot_be_told_keeps_no_address(world: World) -> None:
    ipam = {**DUAL, "resolvConf": "/no/such/file"}

    found = call(world, "ADD", world.conf(**BRIDGE | {"ipam": ipam}))

    assert found.code == 7
    assert world.record().state is State.RESERVED


@pytest.mark.parametrize("path", ["/proc/self/fd/{fd}", "/no/such/path", "/etc/hostname"])
def test_a_path_that_does_not_lead_back_proves_no_death(world: World, path: str) -> None:
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    netns = path.format(fd=fd)
    world.kernel.pods[netns] = FakePod(netns, 33)

    found = call(world, "ADD", netns=netns, netns_fd=fd)
    os.close(fd)

    assert found.status == 0
    assert world.record().netns_cookie == 0


def test_an_add_older_than_its_deletion_comes_too_late(world: World) -> None:
    late = world.clock.ns
    call(world, "DEL")

    found = call(world, "ADD", started_ns=late)

    assert found.code == 11
    assert world.leases.records() == []
