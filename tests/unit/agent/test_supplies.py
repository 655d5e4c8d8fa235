"""Blocks asked for and given back, with the real ipamd's decisions."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.standing import Standing
from agent.supplies import IDLE_S, Supplies
from ipam.blocks import DEMAND_S
from ipam.calls import Claim, Drain, Init, Release
from ipam.cluster import PoolState
from ipam.errors import NoFreeAddress, NotServed, StoreUnavailable
from ipam.refusals import Stale
from tests.unit.agent.talks import FOUR, Away, Site, made_site
from tests.unit.ipam.cases import who


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made_site(tmp_path) as site:
        yield site


class Node:
    """What `agent.cluster` does, step by step."""

    def __init__(self, site: Site) -> None:
        self.standing = Standing(site.talk)
        self.supplies = Supplies(site.talk, self.standing)

    async def step(self) -> None:
        await self.standing.keep()
        await self.supplies.provide()


async def begun(site: Site) -> Node:
    await site.open()
    node = Node(site)
    await node.step()
    return node


def test_the_first_block_of_each_family_is_one_claim(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        await node.step()

        (claim,) = site.ipamd.of(Claim)
        assert claim.families == (4, 6)
        assert site.states() == ["active", "active"]
        assert len(site.give(1)) == 2

    asyncio.run(scene())


def test_where_pools_are_of_one_family_its_block_is_enough(site: Site) -> None:
    async def scene() -> None:
        await site.open(init=False)
        await site.authority.init(Init())
        await site.pool("six", "fd30::/120", 122)
        node = Node(site)
        await node.step()

        assert [claim.families for claim in site.ipamd.of(Claim)] == [(4, 6), (4,), (6,)]
        assert site.talk.blocks.outlook() == {}
        assert len(site.give(1)) == 1

    asyncio.run(scene())


def test_a_spare_comes_before_the_block_is_full_and_goes_once_it_was_idle_long(
    site: Site,
) -> None:
    async def scene() -> None:
        node = await begun(site)
        for number in range(4):
            site.give(number)
        await node.step()
        assert len(site.blocks()) == 3
        for number in range(3):
            site.take_back(number)
        await node.step()
        site.now += IDLE_S - 1
        await node.step()
        assert len(site.blocks()) == 3
        site.now += 1
        await node.step()

        assert len(site.blocks()) == 2
        assert site.talk.leases.count([b.cidr for b in site.talk.blocks.holdings.blocks]) == [1, 1]

    asyncio.run(scene())


def test_an_unanswered_claim_is_repeated_as_it_was(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        node = Node(site)
        await node.standing.keep()
        site.ipamd.lost = 1
        with pytest.raises(Away):
            await node.step()
        assert site.blocks() == {}
        await node.step()

        first, second = site.ipamd.of(Claim)
        assert first == second
        assert len(site.authority.replica.view.blocks) == 2
        assert site.states() == ["active", "active"]

    asyncio.run(scene())


def test_a_claim_that_cannot_be_stored_is_not_used_but_not_forgotten(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        node = Node(site)
        await node.standing.keep()
        site.store.full = True
        with pytest.raises(StoreUnavailable):
            await node.step()
        assert site.blocks() == {}
        site.store.full = False
        node.standing.renew()
        await node.step()

        assert site.states() == ["active", "active"]
        assert len(site.authority.replica.view.blocks) == 2

    asyncio.run(scene())


def test_a_refusal_is_told_to_whoever_waits_and_tried_again_later(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        await site.authority.change_settings(blocks_per_node=1, quarantine_s=0)
        for number in range(5):
            site.give(number)
        await node.step()
        await node.step()
        asked = len(site.ipamd.of(Claim))
        assert site.talk.blocks.outlook() == {
            "": "ipamd refused another block: node n1 has 1 blocks of IPv4, the limit"
        }
        assert asked == 2
        await site.authority.change_settings(blocks_per_node=32)
        site.now += 60
        await node.step()

        assert len(site.blocks()) == 3
        assert site.talk.blocks.outlook() == {}

    asyncio.run(scene())


def test_what_was_refused_is_asked_for_at_once_when_pools_change(site: Site) -> None:
    async def scene() -> None:
        await site.authority.replica.resync()
        await site.authority.init(Init())
        node = Node(site)
        await node.step()
        assert "no pool is active" in site.talk.blocks.outlook()[""]
        await site.pool("four", FOUR, 29)
        await node.step()
        assert site.blocks() == {}
        node.supplies.ask_again()
        await node.step()

        assert site.states() == ["active"]

    asyncio.run(scene())


def test_a_pool_by_name_is_asked_for_once_a_network_names_it(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        await site.pool("zone", "fd31::/120", 122, order=9)
        with pytest.raises(NotServed, match="no block of pool zone"):
            site.give(1, "zone")
        with pytest.raises(NotServed, match="no block of pool nowhere"):
            site.give(1, "nowhere")
        await node.step()

        assert site.give(1, "zone")[0].startswith("fd31::")
        assert len(site.give(2)) == 2
        asked = [claim.families for claim in site.ipamd.of(Claim) if claim.pool == "zone"]
        assert asked == [(4, 6)]
        assert site.talk.blocks.outlook() == {
            "nowhere": "ipamd refused another block: no pool nowhere"
        }

    asyncio.run(scene())


def test_a_pool_that_no_add_asks_for_any_more_is_not_asked_for_either(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        with pytest.raises(NotServed, match="no block of pool zoen"):
            site.give(1, "zoen")
        await node.step()
        refused = site.talk.blocks.outlook()
        site.now += DEMAND_S
        await node.step()
        await site.pool("zoen", "fd31::/120", 122, order=9)
        await node.step()

        assert refused.keys() == {"zoen"}
        assert site.talk.blocks.outlook() == {}
        assert len(site.blocks()) == 2

    asyncio.run(scene())


def test_the_last_block_of_a_pool_goes_once_it_is_empty_and_long_not_asked_for(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        await site.pool("zone", "fd31::/120", 122, order=9)
        with pytest.raises(NotServed):
            site.give(1, "zone")
        await node.step()
        site.give(1, "zone")
        site.now += DEMAND_S
        await node.step()
        site.now += IDLE_S
        await node.step()
        assert len(site.blocks()) == 3  # in use
        site.take_back(1)
        await node.step()
        site.now += IDLE_S - 1
        await node.step()
        assert len(site.blocks()) == 3
        site.now += 1
        await node.step()
        assert len(site.blocks()) == 2
        with pytest.raises(NotServed):
            site.give(2, "zone")
        await node.step()

        assert site.give(2, "zone")[0].startswith("fd31::")

    asyncio.run(scene())


def test_a_drained_node_gives_back_what_is_empty_and_asks_for_nothing(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        site.give(1)
        await site.authority.drain(Drain(node="n1"))
        await site.authority.tick()
        node.standing.renew()
        await node.step()
        assert site.states() == ["draining", "draining"]
        with pytest.raises(NotServed, match="ipamd says that this node is draining"):
            site.give(2)
        site.take_back(1)
        await node.step()
        assert site.blocks() == {}
        await node.step()
        assert len(site.ipamd.of(Claim)) == 1
        await site.authority.drain(Drain(node="n1", undo=True))
        node.standing.renew()
        await node.step()

        assert site.states() == ["active", "active"]

    asyncio.run(scene())


def test_a_block_is_given_back_only_when_nobody_can_get_an_address_of_it(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        await site.authority.drain(Drain(node="n1"))
        node.standing.renew()
        await node.standing.keep()
        early = site.talk.blocks.wanted(())
        site.store.full = True
        with pytest.raises(StoreUnavailable):
            await node.supplies.provide()
        site.store.full = False
        site.leases.expire()
        assert site.states() == ["active", "active"]
        assert site.ipamd.of(Release) == []
        site.ipamd.away = True
        with pytest.raises(Away):
            await node.supplies.provide()
        with pytest.raises(NoFreeAddress):
            site.leases.reserve(who(1), early)
        site.ipamd.away = False
        await node.supplies.provide()

        assert site.blocks() == {}

    asyncio.run(scene())


def test_giving_back_is_finished_whatever_was_answered(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        await site.authority.drain(Drain(node="n1"))
        node.standing.renew()
        await node.standing.keep()
        site.ipamd.lost = 1
        with pytest.raises(Away):
            await node.supplies.provide()
        assert site.states() == ["returning", "returning"]
        site.restart()
        node = Node(site)
        await node.step()

        assert site.blocks() == {}

    asyncio.run(scene())


def test_a_draining_pool_gets_its_blocks_back(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        await site.pool("four", FOUR, 29, state=PoolState.DRAINING)
        await site.pool("other", "10.31.0.0/24", 28)
        for _ in range(3):
            await site.authority.tick()
            node.standing.renew()
            await node.step()

        assert site.give(1)[0].startswith("10.31.")
        assert not any(cidr.startswith("10.30.") for cidr in site.blocks())

    asyncio.run(scene())


def test_a_fenced_node_registers_before_it_claims_again(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        for number in range(5):
            site.give(number)
        await site.fence()
        with pytest.raises(Stale):
            await node.step()
        node.standing.is_registered.clear()
        await node.step()

        assert site.talk.blocks.holdings.epoch == 2

    asyncio.run(scene())


def test_a_lost_block_is_forgotten_with_its_last_pod(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        site.give(1)
        await site.fence()
        await site.take_all()
        node.standing.renew()
        await node.standing.keep()
        await node.supplies.provide()
        assert site.states() == ["lost", "lost"]
        site.take_back(1)
        await node.step()

        assert site.blocks() == {}
        assert site.enforced[-1] == frozenset()

    asyncio.run(scene())


def test_a_block_that_kubernetes_was_told_of_stays_until_it_forgets(site: Site) -> None:
    async def scene() -> None:
        node = await begun(site)
        told = frozenset({site.talk.blocks.holdings.blocks[0].cidr})
        kept = [told]
        site.talk = replace(site.talk, around=replace(site.talk.around, kept=lambda: kept[-1]))
        node = Node(site)
        await site.authority.drain(Drain(node="n1"))
        await site.authority.tick()
        await node.step()
        stays = [block.cidr for block in site.talk.blocks.holdings.blocks]
        kept.append(frozenset())
        await node.step()

        assert frozenset(stays) == told
        assert site.blocks() == {}

    asyncio.run(scene())
