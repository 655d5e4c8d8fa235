"""A node's calls over real TLS on loopback, to a fake that answers."""

import asyncio
from contextlib import aclosing
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipam import calls
from ipam.client import Client
from ipam.cluster import NodeState
from ipam.refusals import Exhausted
from tests.unit.ipam.edges import BLOCK, Site, served

ME = {"node": "n1", "uid": "u", "epoch": 1}


async def answers(site: Site, client: Client) -> list[object]:
    register = calls.Register(node="n1", uid="u", boot_id="b", instance="i", blocks=(BLOCK,))
    lease = calls.MirroredLease(
        network="pods", container_id="c", ifname="eth0", addresses=(ip_address("10.0.0.1"),)
    )
    found: list[object] = [
        await client.register(register),
        await client.claim(calls.Claim(nonce="x", **ME)),  # type: ignore[arg-type]
        await client.release(calls.Release(generation="g", blocks=(BLOCK,), **ME)),  # type: ignore[arg-type]
        await client.mirror(calls.Mirror(sequence=7, leases=(lease,), **ME)),  # type: ignore[arg-type]
    ]
    leave = calls.Leave(node="n1", uid="u", instance="i")
    await client.leave(leave)
    async with aclosing(client.watch(after=3, frozen=True)) as updates:
        found += [update async for update in updates]
    assert register in site.decisions.asked
    assert leave in site.decisions.asked
    assert ("n1", 3, True) in site.decisions.asked
    return found


def test_each_call_is_answered_with_values(tmp_path: Path) -> None:
    async def scene() -> None:
        async with served(tmp_path) as site:
            client = Client(["127.0.0.1:1", site.endpoint], site.signer.node("n1"))
            found = await answers(site, client)
            await client.close()

        assert found == [
            calls.Registered(
                epoch=1, generation="g", counter=2, node_state=NodeState.ACTIVE, blocks=(BLOCK,)
            ),
            calls.Claimed(blocks=(BLOCK,), counter=3),
            (BLOCK.cidr,),
            7,
            calls.Update(revision=5, whole=True),
        ]

    asyncio.run(scene())


def test_a_refusal_is_raised_as_it_was_there(tmp_path: Path) -> None:
    async def refuse() -> None:
        raise Exhausted("no free block")

    async def scene() -> None:
        async with served(tmp_path) as site:
            site.decisions.instead = refuse
            client = Client([site.endpoint], site.signer.node("n1"))
            with pytest.raises(Exhausted, match="no free block"):
                await client.claim(calls.Claim(nonce="x", **ME))  # type: ignore[arg-type]
            await client.close()

    asyncio.run(scene())
