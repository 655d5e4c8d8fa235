import asyncio
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipam.calls import Drain, Init, Pin
from ipam.cluster import NodeState, Pool, PoolState, Purpose, Settings
from ipam.kv import Put
from ipam.memory_kv import Faults, MemoryKV
from ipam.refusals import AlreadyThere, Exhausted, Forbidden, Invalid, Stale, Unknown
from tests.unit.ipam.ipamd_cases import FOUR, KEYS, SIX, Site, node, site


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin()
        yield made


def test_generation_is_made_once(cluster: Site) -> None:
    with pytest.raises(AlreadyThere, match="--recover"):
        cluster.do(lambda a: a.init(Init()))
    first = cluster.do(lambda a: a.init(Init(if_new=True)))
    second = cluster.do(lambda a: a.init(Init(if_new=True)), 1)

    assert first == second
    assert not first.made


def test_recovery_makes_another_generation_that_names_the_former_ones(cluster: Site) -> None:
    first = cluster.do(lambda a: a.init(Init(if_new=True))).generation
    second = cluster.do(lambda a: a.init(Init(recover=True))).generation
    third = cluster.do(lambda a: a.init(Init(recover=True)), 1).generation
    cluster.follow()

    meta = cluster.replicas[0].replica.view.meta

    assert meta is not None
    assert (meta.generation, meta.previous) == (third, (second, first))
    assert not any(authority.replica.frozen for authority in cluster.replicas)


@pytest.mark.parametrize("applied", [True, False])
def test_init_whose_answer_was_lost_makes_one_generation(tmp_path: Path, applied: bool) -> None:
    with site(tmp_path) as made:
        made.follow()
        kv = made.replicas[0].replica.kv
        assert isinstance(kv, MemoryKV)
        kv.faults = Faults(lost=(applied,))

        done = made.do(lambda a: a.init(Init()))
        again = made.do(lambda a: a.init(Init(if_new=True)), 1)

        assert done.made
        assert again.generation == done.generation


def test_pool_is_made_once_and_changed_after(cluster: Site) -> None:
    with pytest.raises(AlreadyThere, match="pool four is there already"):
        cluster.do(lambda a: a.put_pool(FOUR, create=True))
    cluster.do(lambda a: a.put_pool(replace(FOUR, order=5)), 1)
    cluster.follow()

    config = cluster.replicas[0].replica.view.config
    assert config is not None
    assert [pool.order for pool in config.pools if pool.name == "four"] == [5]


def test_two_who_change_other_fields_at_once_both_have_their_way(cluster: Site) -> None:
    first, second = cluster.replicas
    cluster.follow()

    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.change_pool("four", order=5))
            tasks.create_task(second.change_pool("four", masquerade=False))
            tasks.create_task(second.change_settings(silence_s=9.0))
            tasks.create_task(first.change_settings(blocks_per_node=3))

    cluster.run(both())
    cluster.follow()

    config = first.replica.view.config
    assert config is not None
    four = next(pool for pool in config.pools if pool.name == "four")
    assert four == replace(FOUR, order=5, masquerade=False)
    assert config.settings == Settings(silence_s=9.0, blocks_per_node=3)


def test_a_change_of_a_pool_that_cannot_be_says_why(cluster: Site) -> None:
    with pytest.raises(Unknown, match="no pool eight; there are: four, six"):
        cluster.do(lambda a: a.change_pool("eight", order=1))
    with pytest.raises(Invalid, match="name and purpose are for ever"):
        cluster.do(lambda a: a.change_pool("four", name="five"))
    with pytest.raises(Invalid, match="say which fields"):
        cluster.do(lambda a: a.change_pool("four"))
    with pytest.raises(Invalid, match=r"pool six .* overlaps pool four"):
        cluster.do(lambda a: a.change_pool("four", cidr=SIX.cidr, block_length=122))


def test_pool_that_overlaps_another_is_refused(cluster: Site) -> None:
    with pytest.raises(Invalid, match="overlaps pool four"):
        cluster.do(lambda a: a.put_pool(replace(FOUR, name="again")))


def test_pool_with_blocks_in_use_may_grow_and_not_go(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.claim("a")

    cluster.do(lambda a: a.put_pool(replace(FOUR, cidr=ip_network("10.0.0.0/22"))))
    with pytest.raises(Forbidden, match="blocks of /26 in use"):
        cluster.do(lambda a: a.put_pool(replace(FOUR, block_length=27)), 1)
    with pytest.raises(Forbidden, match="drain it first"):
        cluster.do(lambda a: a.delete_pool("four"), 1)
    with pytest.raises(Unknown, match="no pool eight; there are: six, four"):
        cluster.do(lambda a: a.delete_pool("eight"))


def test_full_pool_that_grew_gives_again(cluster: Site) -> None:
    for name in "abcde":
        cluster.register(node(name))
    for name in "abcd":
        cluster.claim(name)
    with pytest.raises(Exhausted, match="no free block of IPv4"):
        cluster.claim("e")
    cluster.do(lambda a: a.change_pool("four", cidr=ip_network("10.0.0.0/23")), 1)
    cluster.do(lambda a: a.change_pool("six", cidr=ip_network("fd00::/119")), 1)

    assert str(cluster.claim("e", "y").blocks[0].cidr).startswith("10.0.1.")


def test_empty_pool_can_be_deleted_and_its_answer_be_lost(cluster: Site) -> None:
    kv = cluster.replicas[0].replica.kv
    assert isinstance(kv, MemoryKV)
    kv.faults = Faults(lost=(True,))

    cluster.do(lambda a: a.delete_pool("four"))
    cluster.follow()

    config = cluster.replicas[1].replica.view.config
    assert config is not None
    assert [pool.name for pool in config.pools] == ["six"]


def test_configuration_edited_by_hand_is_not_overwritten(cluster: Site) -> None:
    cluster.run(MemoryKV(cluster.store).commit([], [Put(KEYS.config, b"by hand")]))
    cluster.follow()
    cluster.register(node("a"))

    with pytest.raises(Forbidden, match="edited by hand"):
        cluster.do(lambda a: a.change_settings(silence_s=5.0))
    with pytest.raises(Forbidden, match="cannot be read"):
        cluster.claim("a")


def test_node_seen_alive_is_not_fenced_unless_forced(cluster: Site) -> None:
    cluster.register(node("a"))

    with pytest.raises(Forbidden, match="is seen alive"):
        cluster.do(lambda a: a.drain(Drain(node="a", fenced=True)), 1)
    drained = cluster.do(lambda a: a.drain(Drain(node="a", fenced=True, force=True, by="bob")), 1)
    cluster.follow()

    known = cluster.replicas[0].replica.view.nodes["a"]
    assert drained.state is NodeState.FENCED
    assert (known.epoch, known.fenced_by) == (2, "bob")


def test_fence_is_not_undone(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.do(lambda a: a.drain(Drain(node="a", fenced=True, force=True)))

    for undo in (Drain(node="a", undo=True), Drain(node="a", fenced=True, undo=True)):
        with pytest.raises(Forbidden, match="registers"):
            cluster.do(lambda a, undo=undo: a.drain(undo))  # type: ignore[misc]
    with pytest.raises(Unknown, match="no node b"):
        cluster.do(lambda a: a.drain(Drain(node="b", fenced=True)))


def test_node_that_took_up_its_blocks_and_did_not_come_again_is_fenced_anew(cluster: Site) -> None:
    fence = Drain(node="a", fenced=True, force=True, by="op")
    cluster.register(node("a"))
    held = cluster.claim("a").blocks
    known = replace(node("a"), epoch=1, blocks=held)
    epochs = []
    for _ in range(2):
        cluster.do(lambda a: a.drain(fence))
        epochs.append(cluster.register(known).epoch)
        cluster.rest()
    there = len(cluster.replicas[0].replica.view.blocks)
    cluster.do(lambda a: a.drain(fence))
    cluster.rest()

    assert epochs == [2, 3]
    assert (there, len(cluster.replicas[0].replica.view.blocks)) == (2, 0)


def test_node_that_may_serve_unconfirmed_is_fenced_only_if_wiped(cluster: Site) -> None:
    cluster.do(lambda a: a.change_settings(unconfirmed_boots=True))
    cluster.register(node("a"))
    cluster.do(lambda a: a.change_settings(unconfirmed_boots=False))
    call = Drain(node="a", fenced=True, force=True)

    with pytest.raises(Forbidden, match="--wiped"):
        cluster.do(lambda a: a.drain(call))

    assert cluster.do(lambda a: a.drain(replace(call, wiped=True))).state is NodeState.FENCED


def test_wiped_node_is_forgotten_once_it_holds_nothing(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.claim("a")
    cluster.do(lambda a: a.drain(Drain(node="a", fenced=True, force=True, wiped=True)))

    cluster.rest()

    view = cluster.replicas[0].replica.view
    assert not view.nodes
    assert not view.blocks


def test_block_of_a_node_that_is_not_fenced_is_not_released(cluster: Site) -> None:
    cluster.register(node("a"))
    held = cluster.claim("a").blocks[0]

    def release(revision: int) -> None:
        cluster.do(lambda a: a.release_block(held.cidr, mod_revision=revision))

    with pytest.raises(Stale, match="look again"):
        release(1)
    with pytest.raises(Forbidden, match="drain a --fenced"):
        release(held.revision)
    cluster.do(lambda a: a.drain(Drain(node="a", fenced=True, force=True)))
    release(held.revision)
    with pytest.raises(Unknown, match="no block"):
        release(held.revision)


def test_block_without_a_nodes_record_is_freed_by_fencing_its_owner(cluster: Site) -> None:
    cluster.register(node("a"))
    held = cluster.claim("a").blocks[0]
    cluster.store.entries.pop(KEYS.node("a"))
    cluster.store.entries.pop(KEYS.alive("a"))
    for authority in cluster.replicas:
        cluster.run(authority.replica.resync())

    drained = cluster.do(lambda a: a.drain(Drain(node="a", fenced=True)))
    cluster.rest()

    assert held.cidr in drained.blocks
    assert not cluster.replicas[0].replica.view.blocks


def test_pinned_block_is_its_nodes_alone_and_nobody_elses(cluster: Site) -> None:
    pinned = [ip_network("10.0.0.64/26"), ip_network("10.0.0.128/26")]
    for cidr in (*pinned, pinned[0]):
        cluster.do(lambda a, cidr=cidr: a.pin(Pin(node="b", cidr=cidr)))  # type: ignore[misc]
    rows = cluster.do(lambda a: a.show("blocks"), 1)
    cluster.register(node("a"))
    taken = {held.cidr for n in "xy" for held in cluster.claim("a", n).blocks}
    with pytest.raises(Exhausted):
        cluster.claim("a", "z")
    cluster.rest()
    given = [held.cidr for held in cluster.register(node("b"), 1).blocks]

    assert [(row["node"], row["state"]) for row in rows] == [("b", "pinned")] * 2  # type: ignore[attr-defined]
    assert given == pinned
    assert taken.isdisjoint(pinned)


def test_pinned_block_is_let_go_by_the_command_that_is_named(cluster: Site) -> None:
    cidr = ip_network("10.0.0.64/26")
    cluster.do(lambda a: a.pin(Pin(node="b", cidr=cidr)))
    row = cluster.do(lambda a: a.show("blocks"))[0]  # type: ignore[index]

    with pytest.raises(Forbidden, match=r"isthmus ipam pin b 10\.0\.0\.64/26 --undo"):
        cluster.do(lambda a: a.release_block(cidr, mod_revision=row["mod_revision"]))
    with pytest.raises(Forbidden, match=r"is b's \(pinned\)"):
        cluster.do(lambda a: a.pin(Pin(node="c", cidr=cidr)))


def test_pin_of_a_node_that_is_there_is_told_when_it_registers_again(cluster: Site) -> None:
    cidr = ip_network("10.0.0.64/26")
    cluster.register(node("a"))
    cluster.do(lambda a: a.pin(Pin(node="a", cidr=cidr)), 1)

    again = cluster.register(node("a", epoch=1))

    assert [held.cidr for held in again.blocks] == [cidr]
    with pytest.raises(Forbidden, match="is a's"):
        cluster.do(lambda a: a.pin(Pin(node="a", cidr=cidr, undo=True)))


def test_node_that_claims_is_given_what_is_pinned_to_it_first(cluster: Site) -> None:
    pinned = ip_network("10.0.0.64/26")
    cluster.register(node("a"))
    cluster.do(lambda a: a.pin(Pin(node="a", cidr=pinned)), 1)
    cluster.rest()

    four, six = (held.cidr for held in cluster.claim("a", "first").blocks)
    another = cluster.claim("a", "second").blocks[0].cidr

    assert four == pinned
    assert six.version == 6
    assert another != pinned
    with pytest.raises(Forbidden, match="is a's"):
        cluster.do(lambda a: a.pin(Pin(node="a", cidr=pinned, undo=True)))


def test_pin_can_be_made_before_its_pool_and_undone(cluster: Site) -> None:
    cidr = ip_network("10.1.0.0/26")
    cluster.do(lambda a: a.pin(Pin(node="a", cidr=cidr, pool="yet")))
    cluster.do(lambda a: a.put_pool(replace(FOUR, name="yet", cidr=ip_network("10.1.0.0/24"))))
    made = cluster.do(lambda a: a.show("pools"))
    found = cluster.do(lambda a: a.check())
    cluster.do(lambda a: a.pin(Pin(node="a", cidr=cidr, undo=True)), 1)
    cluster.do(lambda a: a.pin(Pin(node="a", cidr=cidr, undo=True)))

    assert {row["name"]: row["free"] for row in made}["yet"] == 3  # type: ignore[attr-defined]
    assert found == ()
    assert cluster.do(lambda a: a.show("blocks")) == []


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (Pin(node="a", cidr=ip_network("10.0.0.0/27")), "no block of pool four"),
        (Pin(node="a", cidr=ip_network("10.9.0.0/26")), "in no pool"),
        (Pin(node="a b", cidr=ip_network("10.0.0.0/26")), "node name"),
    ],
)
def test_pin_of_what_is_no_block_is_refused(cluster: Site, wanted: Pin, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        cluster.do(lambda a: a.pin(wanted))


def test_pin_takes_nothing_from_another_nor_gives_to_a_node_that_drains(cluster: Site) -> None:
    cluster.register(node("a"))
    held = cluster.claim("a").blocks[0].cidr
    free = next(c for c in FOUR.cidr.subnets(new_prefix=26) if c != held)
    cluster.do(lambda a: a.drain(Drain(node="a")))

    with pytest.raises(Forbidden, match="is a's"):
        cluster.do(lambda a: a.pin(Pin(node="b", cidr=held)))
    with pytest.raises(Forbidden, match="is draining"):
        cluster.do(lambda a: a.pin(Pin(node="a", cidr=free)))
    cluster.do(lambda a: a.pin(Pin(node="c", cidr=free)))
    with pytest.raises(Unknown):
        cluster.do(lambda a: a.drain(Drain(node="c", fenced=True)))


def test_a_pool_for_services_spares_the_addresses_of_nodes(cluster: Site) -> None:
    pool = Pool(
        name="lb",
        cidr=ip_network("192.0.2.0/28"),
        block_length=32,
        purpose=Purpose.LOAD_BALANCERS,
    )
    cluster.register(node("a", addresses=(ip_address("192.0.2.1"),)))

    with pytest.raises(Invalid, match="is an address of node a; reserve it"):
        cluster.do(lambda a: a.put_pool(pool))
    spared = replace(pool, reservations=(ip_network("192.0.2.1/32"),))
    cluster.do(lambda a: a.put_pool(spared))
    with pytest.raises(Invalid, match="name and purpose are for ever"):
        cluster.do(lambda a: a.change_pool("lb", purpose=Purpose.PODS))


def test_a_pool_for_pods_has_no_address_of_a_node(cluster: Site) -> None:
    astray = replace(FOUR, name="astray", cidr=ip_network("192.0.2.0/24"))
    cluster.register(node("a", addresses=(ip_address("192.0.2.7"),)))

    with pytest.raises(Invalid, match=r"192\.0\.2\.7 is an address of node a; choose others"):
        cluster.do(lambda a: a.put_pool(replace(astray, reservations=(astray.cidr,))))


def test_a_pool_that_a_node_came_into_can_be_drained(cluster: Site) -> None:
    cluster.register(node("a", addresses=(FOUR.cidr[7],)))
    cluster.do(lambda a: a.change_pool("four", state=PoolState.DRAINING))
    cluster.follow()

    config = cluster.replicas[0].replica.view.config
    assert config is not None
    assert next(p for p in config.pools if p.name == "four").state is PoolState.DRAINING
