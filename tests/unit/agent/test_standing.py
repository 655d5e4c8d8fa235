"""Registering: what ipamd confirms, takes, and is not believed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.standing import ENFORCE_S, RENEW_S, UNSETTLED_S, Standing
from agent.supplies import Supplies
from ipam.calls import Drain, Register, Update
from ipam.cluster import NodeState
from ipam.errors import NotServed, StoreUnavailable
from ipam.refusals import SecondBoot
from tests.unit.agent.talks import Away, Site, made_site
from tests.unit.ipam.cases import record, who


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made_site(tmp_path) as site:
        yield site


async def settle(site: Site) -> Standing:
    standing = Standing(site.talk)
    await standing.keep()
    await Supplies(site.talk, standing).provide()
    return standing


def test_a_new_node_tells_who_it_is_once_that_is_durable(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        site.store.full = True
        with pytest.raises(StoreUnavailable):
            await Standing(site.talk).keep()
        assert site.ipamd.asked == []
        site.store.full = False
        standing = Standing(site.talk)
        await standing.keep()

        (asked,) = site.ipamd.of(Register)
        assert (asked.node, asked.uid, asked.epoch, asked.blocks) == ("n1", "u1", 0, ())
        assert (asked.labels, [str(one) for one in asked.addresses]) == (
            {"zone": "a"},
            ["192.0.2.1"],
        )
        assert site.talk.blocks.unserved == ""
        stored = site.store.load().holdings
        assert stored is not None
        assert stored == site.talk.blocks.holdings
        assert stored.epoch == 1
        assert standing.is_registered.is_set()

    asyncio.run(scene())


def test_it_registers_again_when_it_is_time_or_told_to(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        standing = Standing(site.talk)
        await standing.keep()
        await standing.keep()
        assert site.talk.condition.registrations == 1
        standing.renew()
        await standing.keep()
        assert site.talk.condition.registrations == 2
        site.now += 2 * RENEW_S
        await standing.keep()
        assert site.talk.condition.registrations == 3
        standing.is_registered.clear()
        await standing.keep()

        assert site.talk.condition.registrations == 4

    asyncio.run(scene())


def test_after_a_fence_blocks_are_lost_dropped_and_told_in_that_order(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await site.open()
        await settle(site)
        mine = set(site.blocks())
        site.give(1)
        await site.fence()
        await site.take_all()
        site.restart()
        standing = Standing(site.talk)
        site.enforced.clear()
        site.broken = True
        with pytest.raises(NotServed, match="not dropped yet"):
            await standing.keep()

        assert site.states() == ["lost", "lost"]
        assert site.state_of_node() is NodeState.FENCED
        times = len(site.ipamd.of(Register))
        with pytest.raises(NotServed, match="not dropped yet"):
            await standing.keep()
        assert len(site.ipamd.of(Register)) == times
        assert site.enforced == []
        with pytest.raises(NotServed, match="no usable IPv4 block"):
            site.give(2)
        assert caplog.text.count("its traffic is dropped") == 2
        assert "traffic of lost blocks is not dropped yet" in caplog.text
        site.broken = False
        await standing.keep()
        assert site.enforced == [frozenset(mine)]
        assert site.talk.blocks.holdings.epoch == 2
        site.now += 2 * UNSETTLED_S
        await standing.keep()
        assert site.state_of_node() is NodeState.ACTIVE

    asyncio.run(scene())


def test_that_a_drain_is_undone_is_heard_of_within_seconds(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        standing = await settle(site)
        await site.authority.drain(Drain(node="n1", by="x"))
        standing.renew()
        await standing.keep()
        assert site.talk.condition.node_state is NodeState.DRAINING
        await site.authority.drain(Drain(node="n1", by="x", undo=True))
        site.now += 2 * UNSETTLED_S
        await standing.keep()

        assert site.talk.condition.node_state is NodeState.ACTIVE

    asyncio.run(scene())


def test_a_fence_is_over_once_the_new_epoch_is_in_the_nodes_own_store(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        standing = await settle(site)
        await site.fence()
        site.store.full = True
        standing.renew()
        with pytest.raises(StoreUnavailable):
            await standing.keep()
        assert site.state_of_node() is NodeState.FENCED
        site.restart()
        site.store.full = False
        site.ipamd.asked.clear()
        await Standing(site.talk).keep()

        assert [asked.epoch for asked in site.ipamd.of(Register)] == [1, 2]
        assert site.state_of_node() is NodeState.ACTIVE

    asyncio.run(scene())


def test_addresses_that_a_lost_store_knew_are_dropped_when_another_uid_is_granted(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await site.open()
        await settle(site)
        held = site.give(1)
        pods = site.leases.records()
        mine = set(site.blocks())
        await site.fence()
        await site.take_all()
        site.now += 60
        await site.authority.tick()
        site.lose_store("u3")
        for former in pods:
            site.leases.adopt(former).result()
        site.enforced.clear()
        await Standing(site.talk).keep()

        assert len(held) == len(mine) == 2
        assert site.blocks() == dict.fromkeys(sorted(mine), "lost")
        assert site.enforced == [frozenset(), frozenset(mine)]
        assert caplog.text.count("its traffic is dropped") == 2
        assert site.state_of_node() is NodeState.ACTIVE
        stored = site.store.load().holdings
        assert stored is not None
        assert len(stored.blocks) == 2

    asyncio.run(scene())


def test_the_barrier_is_looked_at_again_and_again_while_something_is_lost(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        standing = await settle(site)
        site.now += 2 * ENFORCE_S
        await standing.keep()
        assert site.enforced == [frozenset()]
        site.give(1)
        await site.fence()
        await site.take_all()
        standing.renew()
        await standing.keep()
        times = len(site.enforced)
        await standing.keep()
        assert len(site.enforced) == times
        site.now += 2 * ENFORCE_S
        await standing.keep()

        assert len(site.enforced) == times + 1

    asyncio.run(scene())


def test_what_is_lost_is_known_to_the_next_life_before_it_talks(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        await settle(site)
        site.give(1)
        await site.fence()
        await site.take_all()
        await Standing(site.talk).keep()
        lost = {cidr for cidr, state in site.blocks().items() if state == "lost"}
        site.restart()
        site.enforced.clear()
        Standing(site.talk).enforce_now()

        assert len(lost) == 2
        assert site.enforced == [frozenset(lost)]

    asyncio.run(scene())


def test_a_new_boot_is_confirmed_by_an_answer(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        await settle(site)
        site.now += 60
        await site.authority.tick()
        site.restart("boot-2")
        site.ipamd.away = True
        with pytest.raises(Away):
            await Standing(site.talk).keep()
        assert "was started anew" in site.talk.blocks.unserved
        site.ipamd.away = False
        await Standing(site.talk).keep()

        assert site.talk.blocks.unserved == ""

    asyncio.run(scene())


def test_a_copy_of_the_disk_is_told_so_and_serves_nothing(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        await settle(site)
        site.restart("boot-of-the-copy")
        with pytest.raises(SecondBoot):
            await Standing(site.talk).keep()

        with pytest.raises(NotServed):
            site.give(1)

    asyncio.run(scene())


def test_rows_of_one_that_is_away_are_told_though_a_whole_table_without_them_came_first(
    site: Site,
) -> None:
    async def scene() -> None:
        await site.open()
        await settle(site)
        await site.take_all()
        whole = await site.authority.watch("n1").__anext__()
        others = {row.cidr for row in whole.rows if row.node == "n2"}
        site.talk.blocks.streamed(whole)
        site.kv.wipe(cluster_id=2)
        await site.authority.replica.resync()
        site.talk.blocks.streamed(Update(revision=1, whole=True))
        await Standing(site.talk).keep()

        blocks = site.authority.replica.view.blocks
        assert others
        assert {cidr for cidr, block in blocks.items() if block.node == "n2"} == others

    asyncio.run(scene())


def test_a_frozen_store_confirms_nothing_and_is_told_all_we_were_streamed(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        await settle(site)
        site.talk.blocks.streamed(await site.authority.watch("n1").__anext__())
        before = site.talk.blocks.holdings
        site.kv.entries = {key: e for key, e in site.kv.entries.items() if "/block/" not in key}
        await site.authority.replica.resync()
        site.ipamd.asked.clear()
        standing = Standing(site.talk)
        await standing.keep()

        assert site.talk.condition.frozen != ""
        assert site.talk.blocks.holdings == before
        first, second = site.ipamd.of(Register)
        assert (first.table, len(second.table)) == ((), 2)
        assert len(site.give(1)) == 2
        site.now += 2 * UNSETTLED_S
        await standing.keep()
        assert [len(asked.table) for asked in site.ipamd.of(Register)[2:]] == [0]
        site.now += 2 * RENEW_S
        await standing.keep()
        assert [len(asked.table) for asked in site.ipamd.of(Register)[3:]] == [0, 2]

    asyncio.run(scene())


def test_what_another_plugin_gave_is_no_lost_block_of_ours(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        site.talk.blocks.is_former = lambda record: True
        config = site.authority.replica.view.config
        assert config is not None
        site.leases.hold(record(who(9), f"{config.pools[0].cidr[9]}/32")).result()
        await Standing(site.talk).keep()

        assert "lost" not in site.blocks().values()

    asyncio.run(scene())


def test_the_families_are_those_of_pools_that_are_for_this_node(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        before = site.talk.blocks.families
        await site.pool("six", "fd77::/64", 122, selector={"zone": "b"})
        await Standing(site.talk).keep()
        of_another_zone = site.talk.blocks.families
        await site.pool("more", "fd78::/64", 122, selector={"zone": "a"})
        await Standing(site.talk).keep()

        assert (before, site.talk.blocks.families) == (None, {4, 6})
        assert of_another_zone in ({4}, {4, 6})

    asyncio.run(scene())
