"""The mirror: what ipamd is told of leases, in which order, and after what failures."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.standing import Standing
from agent.supplies import Supplies
from agent.telling import Teller
from ipam.calls import Drain, Mirror
from ipam.kv import Delete
from ipam.replica import Change
from tests.unit.agent.talks import Away, Site, made_site
from tests.unit.ipam.cases import record, who


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made_site(tmp_path) as site:
        yield site


async def begun(site: Site) -> Teller:
    await site.open()
    standing = Standing(site.talk)
    await standing.keep()
    await Supplies(site.talk, standing).provide()
    return Teller(site.talk)


async def mirrored(site: Site) -> set[str]:
    """The containers of which ipamd knows leases."""
    listing = await site.authority.replica.kv.list(site.authority.replica.keys.leases("n1"))
    return {entry.key.split("/")[-2] for entry in listing.entries}


def test_all_there_is_comes_first_and_changes_after_it(site: Site) -> None:
    async def scene() -> None:
        teller = await begun(site)
        site.give(1)
        site.give(2, name="named")
        await teller.tell_once()
        assert await mirrored(site) == {"c1", "c2named"}
        site.take_back(1)
        site.give(3)
        await teller.tell_once()
        await teller.tell_once()

        assert await mirrored(site) == {"c2named", "c3"}
        _, whole, change = site.ipamd.of(Mirror)
        assert [one.pod for one in whole.leases] == ["", "shop/web"]
        assert (whole.whole, whole.sequence, change.whole, change.sequence) == (True, 1, False, 2)
        assert {(one.container_id, one.gone) for one in change.leases} == {
            ("c1", True),
            ("c3", False),
        }
        assert (site.talk.blocks.waiting, site.talk.blocks.lag_s()) == (0, 0.0)

    asyncio.run(scene())


@pytest.mark.parametrize("lost", [True, False])
def test_what_failed_is_told_again_under_a_higher_number(site: Site, lost: bool) -> None:
    async def scene() -> None:
        teller = await begun(site)
        await teller.tell_once()
        site.give(1)
        site.now += 3
        site.ipamd.lost, site.ipamd.away = int(lost), not lost
        with pytest.raises(Away):
            await teller.tell_once()
        assert (site.talk.blocks.waiting, site.talk.blocks.lag_s()) == (1, 3.0)
        site.ipamd.away = False
        site.take_back(1)
        site.give(2)
        await teller.tell_once()

        assert await mirrored(site) == {"c2"}

    asyncio.run(scene())


def test_the_next_life_goes_on_above_what_the_last_one_told(site: Site) -> None:
    async def scene() -> None:
        teller = await begun(site)
        for number in range(3):
            site.give(number)
            await teller.tell_once()
        site.restart()
        site.take_back(0)
        await Teller(site.talk).tell_once()

        assert await mirrored(site) == {"c1", "c2"}

    asyncio.run(scene())


def test_a_new_epoch_is_told_all_again(site: Site) -> None:
    async def scene() -> None:
        teller = await begun(site)
        site.give(1)
        await teller.tell_once()
        await site.authority.drain(Drain(node="n1", fenced=True, force=True, by="x"))
        await Standing(site.talk).register()
        await teller.tell_once()
        told = len(site.ipamd.of(Mirror))
        await teller.tell_once()

        last = site.ipamd.of(Mirror)[-1]
        assert (last.epoch, last.whole, [one.container_id for one in last.leases]) == (
            2,
            True,
            ["c1"],
        )
        assert len(site.ipamd.of(Mirror)) == told

    asyncio.run(scene())


def test_a_store_that_lost_its_data_is_told_all_again_before_a_recovery(site: Site) -> None:
    async def scene() -> None:
        teller = await begun(site)
        site.give(1)
        await teller.tell_once()
        site.kv.wipe(cluster_id=2)
        await site.authority.replica.resync()
        await Standing(site.talk).register()
        await teller.tell_once()

        assert site.talk.condition.frozen
        assert await mirrored(site) == {"c1"}

    asyncio.run(scene())


def test_all_is_told_again_each_hour_whoever_changed_the_mirror(site: Site) -> None:
    async def scene() -> None:
        teller = await begun(site)
        site.give(1)
        await teller.tell_once()
        replica = site.authority.replica
        listing = await replica.kv.list(replica.keys.leases("n1"))
        await replica.commit(Change((), [Delete(entry.key) for entry in listing.entries]))
        await teller.tell_once()
        soon = await mirrored(site)
        site.now += 5000
        await teller.tell_once()

        assert (soon, await mirrored(site)) == (set(), {"c1"})

    asyncio.run(scene())


def test_what_is_in_no_block_is_the_nodes_own_affair(site: Site) -> None:
    async def scene() -> None:
        teller = await begun(site)
        await teller.tell_once()
        sent = len(site.ipamd.of(Mirror))
        site.leases.hold(record(who(9), "172.16.0.2/24")).result()
        await teller.tell_once()
        site.leases.release(who(9)).result()
        await teller.tell_once()

        assert len(site.ipamd.of(Mirror)) == sent

    asyncio.run(scene())
