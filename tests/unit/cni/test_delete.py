"""DEL: by the owner's key alone, whatever is left, and never a newer ADD's."""

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from cni import delete
from cni.attachment import host_name
from cni.environment import check
from cni.errors import CNIError
from cni.spec import Spec, encode
from dataplane.netns import own_identity
from ipam.leases import Attachment, Wanted
from ipam.ranges import Range, RangeSet
from tests.unit.cni.fakes import NO_TRACE, WHO, World, link
from tests.unit.cni.test_add import EVERYTHING
from tests.unit.ipam.cases import BOOT, SECOND

OTHER_BOOT = BOOT.replace("1", "2")


def test_all_of_an_attachment_goes_without_a_look_at_its_sandbox(world: World) -> None:
    world.made(world.conf(**EVERYTHING))

    found = world.call("DEL", world.conf(**EVERYTHING), netns="")

    assert (found.status, found.document) == (0, None)
    assert world.traces() == NO_TRACE
    assert world.leases.records() == []
    assert world.store.load().records == ()


@pytest.mark.parametrize("netns", ["", "/run/netns/no-such-red", "/etc/hostname"])
def test_deleting_what_was_never_added_succeeds(world: World, netns: str) -> None:
    found = world.call("DEL", netns=netns)

    assert (found.status, found.document) == (0, None)


def test_deleting_again_and_again_succeeds(world: World) -> None:
    world.made()

    assert [world.call("DEL").status for _ in range(3)] == [0, 0, 0]


def test_a_configuration_gone_bad_does_not_keep_a_sandbox(world: World) -> None:
    world.made()

    found = world.call("DEL", world.conf(mtu="wide", ipam={"subnet": "nowhere"}))

    assert found.status == 0
    assert world.leases.records() == []


def test_only_the_named_interface_goes(world: World) -> None:
    world.made()
    world.made(ifname="net1")

    world.call("DEL", ifname="net1")

    assert [record.who.ifname for record in world.leases.records()] == ["eth0"]


def test_the_same_container_on_another_network_stays(world: World) -> None:
    world.made()

    world.call("DEL", world.conf(name="other"))

    assert world.record().who == WHO


def test_a_deletion_older_than_the_attachment_is_ignored(world: World) -> None:
    early = world.clock.ns
    world.made()

    found = world.call("DEL", started_ns=early)

    assert found.status == 0
    assert world.link() is not None
    assert world.record().who == WHO


def test_a_deletion_of_a_former_boot_is_ignored_by_an_attachment_of_this_one(
    world: World,
) -> None:
    world.made()

    world.call("DEL", boot_id=OTHER_BOOT, started_ns=world.clock.ns + 1000 * SECOND)

    assert world.record().who == WHO


def test_a_deletion_of_this_boot_ends_an_attachment_of_a_former_one(world: World) -> None:
    world.made(boot_id=OTHER_BOOT, started_ns=world.clock.ns + 1000 * SECOND)

    world.call("DEL")

    assert world.leases.records() == []


def test_a_pair_that_no_record_tells_of_goes_too(world: World) -> None:
    world.made(world.conf(**EVERYTHING))
    world.leases.release(WHO).result()

    world.call("DEL")

    assert world.traces() == NO_TRACE


def test_a_newer_pair_that_no_record_tells_of_stays(world: World) -> None:
    early = world.clock.ns
    world.made()
    world.leases.release(WHO).result()

    world.call("DEL", started_ns=early)

    assert world.link() is not None


def test_an_unfinished_pair_of_the_key_goes(world: World) -> None:
    name = host_name(WHO)
    world.kernel.links[name] = link(name, 9)

    world.call("DEL")

    assert world.traces() == NO_TRACE


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("step", ["withdraw", "unshape", "detach"])
def test_a_failed_deletion_keeps_the_lease_and_the_next_one_ends_it(
    world: World, step: str, before: bool
) -> None:
    conf = world.conf(**EVERYTHING)
    world.made(conf)
    world.kernel.broken, world.kernel.before = step, before

    failed = world.call("DEL", conf)

    assert failed.code == 102
    assert step in failed.msg
    assert world.record().who == WHO
    assert world.call("DEL", conf).status == 0
    assert world.traces() == NO_TRACE
    assert world.leases.records() == []


def test_every_step_is_tried_though_one_fails(world: World) -> None:
    conf = world.conf(**EVERYTHING)
    world.made(conf)
    world.kernel.broken, world.kernel.before = "detach", True
    del world.kernel.steps[:]

    world.call("DEL", conf)

    assert world.kernel.steps == ["detach", "unshape", "withdraw"]


def test_a_release_that_cannot_be_written_is_an_error_the_runtime_repeats(world: World) -> None:
    world.made()
    world.store.full = True

    failed = world.call("DEL")

    assert failed.code == 11
    assert world.record().who == WHO


def test_the_hosts_own_namespace_is_refused(world: World) -> None:
    world.node = replace(world.node, namespace=own_identity())

    found = world.call("DEL", netns="/proc/thread-self/ns/net")

    assert (found.code, found.details) == (8, "CNI_NETNS=/proc/thread-self/ns/net")


def test_the_launchers_own_namespace_is_refused(world: World) -> None:
    own = own_identity()

    found = world.call(
        "DEL", netns="/proc/thread-self/ns/net", caller_netns=(own.device, own.inode)
    )

    assert found.code == 8


def test_a_deletion_waits_no_longer_than_its_deadline_for_its_key(world: World) -> None:
    request = world.request("DEL", world.conf())

    with world.node.locks.hold(WHO), pytest.raises(CNIError) as caught:
        delete.delete(request, check(request.environment), world.node, world.deadline(0))

    assert (caught.value.code, caught.value.msg) == (11, "shop/c1/eth0 is being worked on")


def test_the_key_of_a_request_is_read_from_it(world: World) -> None:
    assert delete.key_of(world.request("DEL", world.conf())) == WHO
    assert delete.key_of(world.request("DEL", b"{")) is None
    assert delete.key_of(world.request("DEL", world.conf(), container_id="")) is None


def test_a_spooled_deletion_is_carried_out(world: World) -> None:
    world.made(world.conf(**EVERYTHING))
    world.clock.advance(1)

    delete.replay(world.request("DEL", world.conf()), world.node)

    assert world.traces() == NO_TRACE
    assert world.leases.records() == []


def test_a_spooled_deletion_of_an_address_alone_gives_it_back(world: World) -> None:
    world.made(program="isthmus-ipam")
    world.clock.advance(1)

    delete.replay(world.request("DEL", world.conf(), program="isthmus-ipam"), world.node)

    assert world.leases.records() == []


def test_the_end_of_an_address_alone_touches_no_link(world: World) -> None:
    world.made(program="isthmus-ipam")

    delete.end(world.record(), world.node)

    assert world.kernel.steps == []
    assert world.leases.records() == []


def test_an_old_release_leaves_a_newer_lease(world: World) -> None:
    early = world.request("DEL", world.conf(), started_ns=1, program="isthmus-ipam")
    world.made(program="isthmus-ipam")

    delete.release(WHO, early, world.node)

    assert world.record().who == WHO


def test_age_is_compared_within_one_boot_and_boots_with_todays(world: World) -> None:
    world.made()
    record = world.record()
    at = record.started_ns

    def newer(started_ns: int, boot_id: str = BOOT) -> bool:
        asked = world.request("DEL", world.conf(), started_ns=started_ns, boot_id=boot_id)
        return delete.is_newer(record, asked, BOOT)

    assert newer(at - 1)
    assert not newer(at)
    assert not newer(at + 1)
    assert newer(at + 1, OTHER_BOOT)


def test_a_record_without_a_link_is_told_by_its_spec() -> None:
    assert '"link":false' in encode(Spec(link=False))
    assert str(Attachment("shop", "c1", "eth0")) == "shop/c1/eth0"


def test_what_a_failed_add_chose_is_free_after_its_deletion(world: World) -> None:
    conf = world.conf(ipam={"subnet": "10.9.0.0/30"})
    only = Range.of(IPv4Network("10.9.0.0/30"))
    world.leases.reserve(WHO, Wanted(range_sets=(RangeSet((only,)),)))
    world.leases.abandon(WHO)

    world.call("DEL", conf)

    assert world.add(conf, container_id="c2").addresses == ["10.9.0.2/30"]


def test_an_add_older_than_its_deletion_comes_too_late(world: World) -> None:
    late = world.clock.ns
    deleted = world.call("DEL")

    found = world.add(started_ns=late)

    assert deleted.status == 0
    assert (found.code, found.msg) == (11, "superseded by a later DEL")
    assert world.traces() == NO_TRACE
    assert world.add().status == 0


def test_a_release_that_the_disk_does_not_take_ends_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.made()
    monkeypatch.setattr(delete, "_WRITTEN_S", 0.1)
    world.store.go.clear()

    found = world.call("DEL")
    world.store.go.set()

    assert found.code == 11
