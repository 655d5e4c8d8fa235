"""What a node says it holds, asked by an ipamd in this process."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import auditing
from agent.auditing import Auditor
from agent.cluster import Cluster
from agent.standing import Standing
from agent.supplies import Supplies
from ipam import authority
from ipam.calls import Audit, PoolRow, Update
from net.address import IPNetwork
from tests.unit.agent.talks import Site, made_site, until
from tests.unit.ipam.cases import record, who


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(auditing, "SPREAD_S", 0.0)
    monkeypatch.setattr(authority, "AGAIN_S", 0.0)
    with made_site(tmp_path) as made:
        yield made


def test_a_node_that_follows_the_table_answers_each_check(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        running = [
            asyncio.create_task(site.authority.run()),
            asyncio.create_task(Cluster(site.talk).run()),
        ]
        await until(lambda: site.talk.condition.connected)
        await until(lambda: len(site.talk.blocks.holdings.blocks) == 2)
        site.give(1)
        await until(lambda: not site.talk.blocks.waiting)
        found = await site.authority.check()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

        assert found == ()
        assert [len(said.leases) for said in site.ipamd.of(Audit)] in ([1], [1, 1])

    asyncio.run(scene())


def test_what_a_node_holds_is_said_with_what_is_wrong_with_it(site: Site) -> None:
    async def scene() -> None:
        await site.open()
        standing = Standing(site.talk)
        await standing.keep()
        await Supplies(site.talk, standing).provide()
        site.give(1, name="named")
        wide: IPNetwork = site.talk.blocks.holdings.blocks[0].cidr.supernet(8)
        stray = next(one for one in wide if not any(
            one in block.cidr for block in site.talk.blocks.holdings.blocks))  # fmt: skip
        site.leases.hold(record(who(9), f"{stray}/32")).result()
        pool = PoolRow(name="p", cidr=wide, masquerade=True)
        site.talk.blocks.streamed(Update(revision=9, with_pools=True, pools=(pool,)))
        auditor = Auditor(site.talk)
        auditor.called("over")
        await auditor.answer_once()  # refused, and no trouble
        (said,) = site.ipamd.of(Audit)

        assert said.audit == "over"
        assert said.blocks == site.talk.blocks.holdings.told()
        assert [lease.pod for lease in said.leases] == ["shop/web"]
        assert said.problems == (f"{who(9)} has {stray}, of a pool and of no block of this node",)

    asyncio.run(scene())
