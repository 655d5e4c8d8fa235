"""Messages to values and back, and what a watch makes of its streams; tests/kernel has the rest."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from aetcd import rpc
from grpc import StatusCode

from ipam.etcd import EtcdKV
from ipam.etcd_config import EtcdConfig
from ipam.kv import Batch, Compacted, Denied, Identity, KVUnavailable, Replaced
from tests.unit.ipam.fake_etcd import CLUSTER, Scripted, header, member

CREATED = rpc.WatchResponse(header=header(), created=True)


def kv_of(member: Scripted) -> EtcdKV:
    return EtcdKV(EtcdConfig(endpoints=(member.url,)), chance=lambda: 0.0)


def put(key: bytes, revision: int) -> Any:
    pair = rpc.KeyValue(
        key=key, value=b"v", create_revision=revision, mod_revision=revision, version=1
    )
    return rpc.Event(type=rpc.Event.PUT, kv=pair)


def response(*events: Any, revision: int, **fields: Any) -> Any:
    return rpc.WatchResponse(header=header(revision), events=events, **fields)


async def batches(scripted: Scripted, count: int, *, after: int = 5) -> list[Batch]:
    kv = kv_of(scripted)
    found: list[Batch] = []
    try:
        async with asyncio.timeout(20.0), aclosing(kv.watch("/x/", after=after)) as watch:
            async for batch in watch:
                found.append(batch)
                if len(found) == count:
                    break
    finally:
        await kv.close()
    return found


def revisions(batch: Batch) -> list[int]:
    return [event.revision for event in batch.events]


def test_fragments_are_one_batch() -> None:
    async def run() -> None:
        stream = [
            CREATED,
            response(put(b"/x/a", 6), put(b"/x/b", 6), revision=9, fragment=True),
            response(put(b"/x/c", 6), revision=9),
        ]
        async with member(Watch=[stream]) as first:
            [batch] = await batches(first, 1)

        assert [event.key for event in batch.events] == ["/x/a", "/x/b", "/x/c"]

    asyncio.run(run())


def test_batch_reaches_its_last_event_and_not_the_stores_revision() -> None:
    async def run() -> None:
        stream = [CREATED, response(put(b"/x/a", 6), revision=9)]
        async with member(Watch=[stream]) as first:
            [batch] = await batches(first, 1)

        assert batch.revision == 6

    asyncio.run(run())


def test_progress_is_a_batch_without_events() -> None:
    async def run() -> None:
        async with member(Watch=[[CREATED, response(revision=9)]]) as first:
            assert await batches(first, 1) == [Batch((), 9)]

    asyncio.run(run())


def test_stream_that_ended_is_taken_up_after_what_it_delivered() -> None:
    async def run() -> None:
        streams = [
            [CREATED, response(put(b"/x/a", 6), revision=6)],
            [CREATED, response(put(b"/x/a", 6), put(b"/x/b", 7), revision=7)],
        ]
        async with member(Watch=streams) as first:
            found = await batches(first, 2)

            starts = [
                request.create_request.start_revision
                for method, request, _ in first.asked
                if method == "Watch"
            ]
        assert [revisions(batch) for batch in found] == [[6], [7]]
        assert starts == [5, 6]

    asyncio.run(run())


def test_fragment_whose_rest_was_lost_is_delivered_whole_or_not_at_all() -> None:
    async def run() -> None:
        streams = [
            [CREATED, response(put(b"/x/a", 6), revision=6, fragment=True)],
            [CREATED, response(put(b"/x/a", 6), put(b"/x/b", 6), revision=6)],
        ]
        async with member(Watch=streams) as first:
            [batch] = await batches(first, 1)

        assert [event.key for event in batch.events] == ["/x/a", "/x/b"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (rpc.WatchResponse(header=header(), canceled=True, compact_revision=8), Compacted),
        (
            rpc.WatchResponse(
                header=header(), created=True, canceled=True, cancel_reason="permission denied"
            ),
            Denied,
        ),
        (rpc.WatchResponse(header=header(cluster_id=5), created=True), Replaced),
        ((StatusCode.PERMISSION_DENIED, "etcdserver: permission denied"), Denied),
    ],
)
def test_stream_that_cannot_go_on_ends_the_watch(answer: Any, error: type[Exception]) -> None:
    async def run() -> None:
        script = answer if isinstance(answer, tuple) else [answer]
        async with member(Watch=[script]) as first:
            with pytest.raises(error):
                await batches(first, 1)

    asyncio.run(run())


@pytest.mark.parametrize(
    "later",
    [header(4), header(20, term=1), header(20, cluster_id=5)],
    ids=["behind", "lower term", "another cluster"],
)
def test_store_that_was_replaced_while_a_stream_was_away_ends_the_watch(later: Any) -> None:
    async def run() -> None:
        connecting = rpc.RangeResponse(header=header())
        script = [connecting, rpc.RangeResponse(header=header()), rpc.RangeResponse(header=later)]
        streams = [[CREATED, response(put(b"/x/a", 6), revision=6)]]
        async with member(Range=script, Watch=streams) as first:
            with pytest.raises(Replaced):
                await batches(first, 2)

    asyncio.run(run())


def test_stream_that_ends_before_a_lease_is_kept_is_asked_for_on_the_next_member() -> None:
    async def run() -> None:
        kept = rpc.LeaseKeepAliveResponse(header=header(), ID=7, TTL=15)
        async with member(LeaseKeepAlive=[[]]) as one, member(LeaseKeepAlive=[[kept]]) as other:
            kv = EtcdKV(EtcdConfig(endpoints=(one.url, other.url)), chance=lambda: 0.0)
            alive = await kv.keep_alive(7)
            await kv.close()

            assert alive
            assert one.methods().count("LeaseKeepAlive") == 1

    asyncio.run(run())


def test_exchanged_cluster_is_told_by_a_watch_and_asked_once_it_was_identified() -> None:
    async def run() -> None:
        theirs = rpc.RangeResponse(header=header(3, cluster_id=5))
        async with member(Range=[theirs]) as only:
            kv = EtcdKV(EtcdConfig(endpoints=(only.url,)), chance=lambda: 0.0, cluster_id=CLUSTER)
            with pytest.raises(Replaced, match="at revision 3"):
                await anext(kv.watch("/x/", after=5))
            with pytest.raises(KVUnavailable, match="belongs to etcd cluster 5, not to 4d"):
                await kv.get("/x/a")
            identity = await kv.identity()
            found = await kv.get("/x/a")
            await kv.close()

            assert identity == Identity(5, 3)
            assert found is None

    asyncio.run(run())


def test_streams_that_end_at_once_are_begun_with_pauses() -> None:
    async def run() -> None:
        async with member(Watch=[[CREATED]]) as first:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await batches(first, 1)

            # 0.05 + 0.1 + 0.2 s, and the fourth within what is left.
            assert 1 <= first.methods().count("Watch") <= 4

    asyncio.run(run())


def test_keys_that_are_not_utf8_come_and_go_unchanged() -> None:
    async def run() -> None:
        pair = rpc.KeyValue(key=b"/x/\xff\xfe", create_revision=1, mod_revision=1, version=1)
        answer = rpc.RangeResponse(header=header(), kvs=[pair])
        async with member(Range=[answer]) as first:
            kv = kv_of(first)
            listing = await kv.list("/x/")
            await kv.get(listing.entries[0].key)
            await kv.close()

            assert first.asked[-1][1].key == b"/x/\xff\xfe"

    asyncio.run(run())


def test_pages_are_of_the_first_ones_revision() -> None:
    async def run() -> None:
        def page(key: bytes, revision: int, *, more: bool) -> Any:
            pair = rpc.KeyValue(key=key, create_revision=1, mod_revision=1, version=1)
            return rpc.RangeResponse(header=header(revision), kvs=[pair], more=more)

        script = [
            rpc.RangeResponse(header=header()),
            page(b"/x/a", 30, more=True),
            page(b"/x/b", 31, more=False),
        ]
        async with member(Range=script) as first:
            kv = kv_of(first)
            listing = await kv.list("/x/")
            await kv.close()

            pages = [(request.key, request.revision) for _, request, _ in first.asked[1:]]
        assert listing.revision == 30
        assert pages == [(b"/x/", 0), (b"/x/a\0", 30)]

    asyncio.run(run())
