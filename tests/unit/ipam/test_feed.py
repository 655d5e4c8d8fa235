import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network

from ipam.calls import PoolRow, Update
from ipam.cluster import Block, Config, Meta, Node, Pool
from ipam.feed import Feed
from ipam.keys import AuditCall, Keys, Record, write
from ipam.kv import Entry, Event, Listing
from ipam.view import View
from net.address import IPNetwork

KEYS = Keys("c")
CIDRS = list(ip_network("10.0.0.0/22").subnets(new_prefix=26))


class Source:
    """A view that changes, and its feed."""

    def __init__(self, logged: int = 4) -> None:
        self.view = View(KEYS)
        self.feed = Feed(self.view, logged=logged)
        self.revision = 0
        self.put(KEYS.node("a"), Node(name="a", uid="u", epoch=1, boot_id="b", addresses=(HOST,)))

    def put(self, key: str, record: Record | None) -> None:
        self.revision += 1
        entry = None
        if record is not None:
            entry = Entry(
                key=key,
                value=write(record),
                create_revision=self.revision,
                mod_revision=self.revision,
                version=1,
            )
        self.feed.note(self.view.apply(Event(key, entry, self.revision)))
        self.view.caught_up(self.revision)

    def give(self, cidr: IPNetwork) -> None:
        block = Block(cidr=cidr, pool="p", node="a", uid="u", epoch=1, nonce="n")
        self.put(KEYS.block(cidr), block)
        self.feed.flush()

    def take(self, cidr: IPNetwork) -> None:
        self.put(KEYS.block(cidr), None)
        self.feed.flush()


HOST = ip_address("192.0.2.1")


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await work()

    asyncio.run(main())


def cidrs(update: Update) -> list[IPNetwork]:
    return [row.cidr for row in update.rows]


def test_stream_begins_with_the_table_and_goes_on_with_changes() -> None:
    async def work() -> None:
        source = Source()
        source.give(CIDRS[0])
        stream = source.feed.stream(0)
        whole = await anext(stream)
        source.give(CIDRS[1])
        source.take(CIDRS[0])
        merged = await anext(stream)
        await stream.aclose()

        assert (whole.whole, cidrs(whole)) == (True, CIDRS[:1])
        assert whole.rows[0].addresses == (HOST,)
        assert (merged.whole, cidrs(merged), merged.gone) == (False, CIDRS[1:2], (CIDRS[0],))
        assert source.feed.streams == 0

    run(work)


def test_stream_that_has_missed_nothing_is_told_so() -> None:
    async def work() -> None:
        source = Source()
        source.give(CIDRS[0])
        first = source.feed.stream(0)
        known = (await anext(first)).revision
        again = source.feed.stream(known)
        update = await anext(again)
        for stream in (first, again):
            await stream.aclose()

        assert update == Update(revision=known)

    run(work)


def test_streams_that_are_equally_far_share_one_message() -> None:
    async def work() -> None:
        source = Source()
        streams = [source.feed.stream(0) for _ in range(3)]
        tables = [await anext(stream) for stream in streams]
        source.give(CIDRS[0])
        updates = [await anext(stream) for stream in streams]

        assert len({id(table) for table in tables}) == 1
        assert len({id(update) for update in updates}) == 1
        for stream in streams:
            await stream.aclose()

    run(work)


def test_streams_that_are_equally_late_share_one_message_too() -> None:
    async def work() -> None:
        source = Source()
        streams = [source.feed.stream(0) for _ in range(3)]
        for stream in streams:
            await anext(stream)
        source.give(CIDRS[0])
        source.give(CIDRS[1])
        updates = [await anext(stream) for stream in streams]

        assert len({id(update) for update in updates}) == 1
        assert cidrs(updates[0]) == CIDRS[:2]
        for stream in streams:
            await stream.aclose()

    run(work)


def test_streams_are_told_that_the_store_is_there_again() -> None:
    async def work() -> None:
        source = Source()
        source.give(CIDRS[0])
        stream = source.feed.stream(0)
        await anext(stream)
        source.feed.stir()
        update = await anext(stream)
        await stream.aclose()

        assert update == Update(revision=source.revision)

    run(work)


def test_slow_stream_gets_the_table_anew() -> None:
    async def work() -> None:
        source = Source(logged=4)
        stream = source.feed.stream(0)
        await anext(stream)
        for cidr in CIDRS[:6]:
            source.give(cidr)
        late = await anext(stream)
        await stream.aclose()

        assert (late.whole, cidrs(late)) == (True, CIDRS[:6])

    run(work)


def test_stream_resumes_where_it_was_if_that_is_still_known() -> None:
    async def work() -> None:
        source = Source(logged=4)
        source.give(CIDRS[0])
        known = source.revision
        source.give(CIDRS[1])
        resumed = source.feed.stream(known)
        future = source.feed.stream(known + 1000)

        assert cidrs(await anext(resumed)) == CIDRS[1:2]
        assert (await anext(future)).whole
        for cidr in CIDRS[2:8]:
            source.give(cidr)
        forgotten = source.feed.stream(known)
        assert (await anext(forgotten)).whole
        for stream in (resumed, future, forgotten):
            await stream.aclose()

    run(work)


def test_restart_gives_every_stream_the_table() -> None:
    async def work() -> None:
        source = Source()
        source.give(CIDRS[0])
        stream = source.feed.stream(0)
        await anext(stream)
        source.feed.restart()

        assert (await anext(stream)).whole
        await stream.aclose()

    run(work)


def test_run_sends_what_was_noted() -> None:
    async def work() -> None:
        source = Source()
        stream = source.feed.stream(0)
        await anext(stream)
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(source.feed.run())
            source.put(
                KEYS.block(CIDRS[0]),
                Block(cidr=CIDRS[0], pool="p", node="a", uid="u", epoch=1, nonce="n"),
            )
            update = await anext(stream)
            sender.cancel()
        await stream.aclose()

        assert cidrs(update) == CIDRS[:1]

    run(work)


def of_pools(*pools: PoolRow) -> Config:
    return Config(
        pools=tuple(
            Pool(name=one.name, cidr=one.cidr, block_length=26, masquerade=one.masquerade)
            for one in pools
        )
    )


def test_pools_come_with_the_table_and_after_that_when_they_changed() -> None:
    first = PoolRow(name="a", cidr=ip_network("10.0.0.0/16"), masquerade=True)
    second = PoolRow(name="b", cidr=ip_network("10.1.0.0/16"), masquerade=False)

    async def work() -> None:
        source = Source()
        source.put(KEYS.config, of_pools(first))
        stream = source.feed.stream(0)
        whole = await anext(stream)
        source.feed.flush()
        source.give(CIDRS[0])
        source.give(CIDRS[1])
        known, changed = await anext(stream), []
        late = source.feed.stream(source.revision)
        for pools in ((first, second), (second,)):
            source.put(KEYS.config, of_pools(*pools))
            source.give(CIDRS[2])
            changed.append(await anext(stream))
        source.take(CIDRS[2])

        assert (whole.with_pools, whole.pools) == (True, (first,))
        assert known.with_pools  # the flush before came after the whole table was taken
        assert [one.pools for one in changed] == [(first, second), (second,)]
        assert (await anext(stream)).with_pools is False
        assert (await anext(late)).pools == (second,)

    run(work)


def test_pools_that_cannot_be_read_are_as_they_were() -> None:
    pool = PoolRow(name="a", cidr=ip_network("10.0.0.0/16"), masquerade=True)

    async def work() -> None:
        source = Source()
        source.put(KEYS.config, of_pools(pool, pool))  # contradicts itself
        unknown = await anext(source.feed.stream(0))
        source.put(KEYS.config, of_pools(pool))
        source.feed.flush()
        source.put(KEYS.config, of_pools(pool, pool))
        source.give(CIDRS[0])
        known = await anext(source.feed.stream(0))

        assert (unknown.with_pools, unknown.pools) == (False, ())
        assert (known.with_pools, known.pools) == (True, (pool,))

    run(work)


def test_nodes_of_a_store_that_was_wiped_go_on_with_their_pools() -> None:
    pool = PoolRow(name="a", cidr=ip_network("10.0.0.0/16"), masquerade=True)

    async def work() -> None:
        source = Source()
        source.put(KEYS.meta, Meta(generation="g"))
        source.put(KEYS.config, of_pools(pool))
        source.give(CIDRS[0])
        source.put(KEYS.config, None)
        source.give(CIDRS[1])
        deleted = await anext(source.feed.stream(0))
        source.put(KEYS.config, of_pools(pool))
        source.feed.flush()
        source.feed.note(source.view.replace(Listing((), source.revision + 1)))
        source.feed.restart()
        wiped = await anext(source.feed.stream(0))

        assert (deleted.with_pools, deleted.pools) == (True, ())
        assert (wiped.rows, wiped.with_pools, wiped.pools) == ((), True, (pool,))

    run(work)


def test_an_audit_is_called_once_to_each_stream() -> None:
    async def work() -> None:
        source = Source()
        source.give(CIDRS[0])
        early = source.feed.stream(source.revision)
        source.put(KEYS.audit, AuditCall("x", 7))
        source.feed.flush()
        source.give(CIDRS[1])
        merged, late = await anext(early), await anext(source.feed.stream(0))
        source.put(KEYS.audit, None)
        source.give(CIDRS[2])
        after = await anext(early)
        source.put(KEYS.audit, AuditCall("y", 8))
        source.feed.flush()

        assert (merged.audit, late.audit, after.audit) == ("x", "x", "")
        assert (await anext(early)).audit == "y"

    run(work)
