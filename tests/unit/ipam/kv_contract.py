"""What every store of cluster IPAM must do; run on the twin in memory and on a real etcd.

A subclass says how to get a store (`opened`), how to compact one and how to let leases run out.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing

import pytest

from ipam.kv import (
    KV,
    Compacted,
    Delete,
    Event,
    KVError,
    LeaseGone,
    Put,
    Replaced,
    Unchanged,
)

PREFIX = "/isthmus/v1/contract/"
WAIT_S = 20.0


def key(name: str) -> str:
    return PREFIX + name


async def events(kv: KV, after: int, count: int, prefix: str = PREFIX) -> list[Event]:
    """The first *count* events, of as many batches as they come in."""
    found: list[Event] = []
    async with asyncio.timeout(WAIT_S), aclosing(stream(kv, after, prefix)) as batches:
        async for event in batches:
            found.append(event)
            if len(found) >= count:
                break
    return found


async def stream(kv: KV, after: int, prefix: str) -> AsyncGenerator[Event, None]:
    reached = after
    async for batch in kv.watch(prefix, after=after):
        assert batch.revision >= reached
        reached = batch.revision
        for event in batch.events:
            assert event.revision <= reached
            yield event


class KVContract:
    def opened(self) -> AbstractAsyncContextManager[KV]:
        """An empty store, below PREFIX at least."""
        raise NotImplementedError

    async def compact(self, kv: KV, revision: int) -> None:
        raise NotImplementedError

    async def let_leases_run_out(self, kv: KV) -> None:
        """Return when a lease of one second is surely over."""
        raise NotImplementedError

    def test_absent_key_is_none(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                assert await kv.get(key("a")) is None
                assert (await kv.list(PREFIX)).entries == ()

        asyncio.run(run())

    def test_entry_counts_its_puts_and_begins_anew_after_a_deletion(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                first = await kv.commit([], [Put(key("a"), b"1")])
                second = await kv.commit([], [Put(key("a"), b"2")])
                changed = await kv.get(key("a"))
                await kv.commit([], [Delete(key("a"))])
                last = await kv.commit([], [Put(key("a"), b"3")])
                anew = await kv.get(key("a"))

            assert changed is not None
            assert (changed.key, changed.value, changed.version) == (key("a"), b"2", 2)
            assert (changed.create_revision, changed.mod_revision) == (
                first.revision,
                second.revision,
            )
            assert anew is not None
            assert (anew.version, anew.create_revision, anew.mod_revision) == (
                1,
                last.revision,
                last.revision,
            )

        asyncio.run(run())

    def test_one_commit_is_one_revision_for_all_its_keys(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                start = (await kv.identity()).revision
                outcome = await kv.commit([], [Put(key("a"), b"1"), Put(key("b"), b"2")])
                listing = await kv.list(PREFIX)

            assert outcome.done
            assert outcome.revision == start + 1
            assert listing.revision == outcome.revision
            assert {entry.mod_revision for entry in listing.entries} == {outcome.revision}

        asyncio.run(run())

    def test_failed_condition_changes_nothing(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                made = await kv.commit([Unchanged(key("a"), 0)], [Put(key("a"), b"1")])
                again = await kv.commit(
                    [Unchanged(key("b"), 0), Unchanged(key("a"), 0)],
                    [Put(key("a"), b"2"), Put(key("b"), b"2")],
                )
                listing = await kv.list(PREFIX)

            assert made.done
            assert not again.done
            assert again.revision == made.revision
            assert [(entry.key, entry.value) for entry in listing.entries] == [(key("a"), b"1")]

        asyncio.run(run())

    def test_condition_holds_for_the_revision_that_was_seen_alone(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                first = await kv.commit([], [Put(key("a"), b"1")])
                second = await kv.commit(
                    [Unchanged(key("a"), first.revision)], [Put(key("a"), b"2")]
                )
                stale = await kv.commit([Unchanged(key("a"), first.revision)], [Delete(key("a"))])
                fresh = await kv.commit([Unchanged(key("a"), second.revision)], [Delete(key("a"))])

                assert (second.done, stale.done, fresh.done) == (True, False, True)
                assert await kv.get(key("a")) is None

        asyncio.run(run())

    def test_deleting_what_is_absent_is_done_and_makes_no_revision(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                before = await kv.identity()
                outcome = await kv.commit([], [Delete(key("a"))])

            assert outcome.done
            assert outcome.revision == before.revision

        asyncio.run(run())

    def test_one_key_twice_in_a_commit_is_refused_whole(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                with pytest.raises(KVError):
                    await kv.commit([], [Put(key("a"), b"1"), Put(key("a"), b"2")])

                assert await kv.get(key("a")) is None

        asyncio.run(run())

    def test_too_many_changes_in_a_commit_are_refused_whole(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                with pytest.raises(KVError):
                    await kv.commit([], [Put(key(str(number)), b"") for number in range(129)])
                with pytest.raises(KVError):
                    await kv.commit([], [Put(key("a"), bytes(2 * 1024 * 1024))])

                assert (await kv.list(PREFIX)).entries == ()

        asyncio.run(run())

    def test_of_two_commits_on_one_condition_one_is_done(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                outcomes = await asyncio.gather(
                    *(
                        kv.commit([Unchanged(key("a"), 0)], [Put(key("a"), b"%d" % number)])
                        for number in range(8)
                    )
                )

            assert sum(outcome.done for outcome in outcomes) == 1

        asyncio.run(run())

    def test_list_is_sorted_and_of_its_prefix_alone(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                names = ["b/2", "b/1", "b", "c", "b/1/x", "b0", "b/é", "b/\U0001f600", "b/\uffee"]
                await kv.commit([], [Put(key(name), b"") for name in names])
                listing = await kv.list(key("b/"))

            found = [entry.key for entry in listing.entries]
            assert found == [
                key(name) for name in ["b/1", "b/1/x", "b/2", "b/é", "b/\uffee", "b/\U0001f600"]
            ]

        asyncio.run(run())

    def test_list_of_more_than_a_page_is_whole(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                names = [f"many/{number:04}" for number in range(2200)]
                for first in range(0, len(names), 100):
                    await kv.commit(
                        [], [Put(key(name), b"") for name in names[first : first + 100]]
                    )
                listing = await kv.list(key("many/"))

            assert [entry.key for entry in listing.entries] == [key(name) for name in names]

        asyncio.run(run())

    def test_list_of_what_was_put_since_has_nothing_else(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                names = [f"many/{number:04}" for number in range(1100)]
                for first in range(0, len(names), 100):
                    outcome = await kv.commit(
                        [], [Put(key(name), b"") for name in names[first : first + 100]]
                    )
                    if first == 0:
                        then = outcome.revision
                await kv.commit([], [Put(key("many/0000"), b"again"), Delete(key("many/0001"))])
                listing = await kv.list(key("many/"), after=then)

            assert [entry.key for entry in listing.entries] == [
                key(name) for name in ["many/0000", *names[100:]]
            ]

        asyncio.run(run())

    def test_list_of_an_older_revision_is_as_it_stood(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                then = await kv.commit([], [Put(key("a"), b"1"), Put(key("b"), b"1")])
                await kv.commit([], [Put(key("a"), b"2"), Delete(key("b"))])
                listing = await kv.list(PREFIX, revision=then.revision)

            assert [(entry.key, entry.value, entry.version) for entry in listing.entries] == [
                (key("a"), b"1", 1),
                (key("b"), b"1", 1),
            ]
            assert listing.revision == then.revision

        asyncio.run(run())

    def test_list_of_a_revision_to_come_is_refused(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                now = await kv.identity()
                with pytest.raises(Replaced):
                    await kv.list(PREFIX, revision=now.revision + 1000)

        asyncio.run(run())

    def test_compacted_revision_is_refused_and_the_newest_serves(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                old = await kv.commit([], [Put(key("a"), b"1")])
                new = await kv.commit([], [Put(key("a"), b"2")])
                await self.compact(kv, new.revision)

                with pytest.raises(Compacted) as refused:
                    await kv.list(PREFIX, revision=old.revision)
                same = await kv.list(PREFIX, revision=new.revision)

            assert old.revision < refused.value.oldest <= new.revision
            assert [entry.value for entry in same.entries] == [b"2"]

        asyncio.run(run())

    def test_watch_begins_after_its_revision_and_goes_on(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                start = await kv.commit([], [Put(key("a"), b"1")])
                past = await kv.commit([], [Put(key("a"), b"2"), Put(key("b"), b"2")])
                await kv.commit([], [Put("/elsewhere", b"")])

                async with asyncio.TaskGroup() as group:
                    seen = group.create_task(events(kv, start.revision, 4))
                    gone = await kv.commit([], [Delete(key("b"))])
                    last = await kv.commit([], [Put(key("c"), b"3")])

            found = [
                (event.key, event.entry and event.entry.value, event.revision)
                for event in seen.result()
            ]
            assert sorted(found[:2]) == [
                (key("a"), b"2", past.revision),
                (key("b"), b"2", past.revision),
            ]
            assert found[2:] == [
                (key("b"), None, gone.revision),
                (key("c"), b"3", last.revision),
            ]

        asyncio.run(run())

    def test_watch_event_carries_the_whole_entry(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                start = (await kv.identity()).revision
                await kv.commit([], [Put(key("a"), b"1")])
                await kv.commit([], [Put(key("a"), b"2")])
                entry = await kv.get(key("a"))
                seen = await events(kv, start, 2)

            assert seen[1].entry == entry

        asyncio.run(run())

    def test_keys_of_one_commit_come_in_one_batch(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                start = (await kv.identity()).revision
                await kv.commit([], [Put(key(f"{number:03}"), b"") for number in range(100)])
                async with (
                    asyncio.timeout(WAIT_S),
                    aclosing(kv.watch(PREFIX, after=start)) as batches,
                ):
                    async for batch in batches:
                        if batch.events:
                            break

            assert len(batch.events) == 100

        asyncio.run(run())

    def test_watch_from_before_a_compaction_is_refused(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                old = await kv.commit([], [Put(key("a"), b"1")])
                gone = await kv.commit([], [Delete(key("a"))])
                last = await kv.commit([], [Put(key("b"), b"2")])
                await self.compact(kv, gone.revision)

                with pytest.raises(Compacted):
                    await events(kv, old.revision, 1)
                seen = await events(kv, gone.revision, 1)

            assert [event.revision for event in seen] == [last.revision]

        asyncio.run(run())

    def test_watch_from_a_revision_to_come_is_refused(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                now = await kv.identity()
                with pytest.raises(Replaced):
                    await events(kv, now.revision + 1000, 1)

        asyncio.run(run())

    def test_watch_that_is_up_to_date_goes_on_over_a_compaction(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                start = await kv.commit([], [Put(key("a"), b"1")])
                async with (
                    asyncio.timeout(WAIT_S),
                    aclosing(stream(kv, start.revision, PREFIX)) as seen,
                ):
                    await kv.commit([], [Put(key("a"), b"2")])
                    second = await anext(seen)
                    last = await kv.commit([], [Put(key("a"), b"3")])
                    await anext(seen)
                    await self.compact(kv, last.revision)
                    await kv.commit([], [Delete(key("a"))])
                    deletion = await anext(seen)

            assert second.entry is not None
            assert deletion.entry is None

        asyncio.run(run())

    def test_key_goes_with_its_lease(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                lease = await kv.grant(60)
                await kv.commit([], [Put(key("a"), b"", lease), Put(key("b"), b"")])
                kept = await kv.keep_alive(lease)
                named = [entry.lease for entry in (await kv.list(PREFIX)).entries]
                await kv.revoke(lease)
                listing = await kv.list(PREFIX)

                assert kept
                assert named == [lease, 0]
                assert [entry.key for entry in listing.entries] == [key("b")]
                assert not await kv.keep_alive(lease)
                await kv.revoke(lease)

        asyncio.run(run())

    def test_key_put_again_without_its_lease_stays(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                lease = await kv.grant(60)
                await kv.commit([], [Put(key("a"), b"", lease)])
                await kv.commit([], [Put(key("a"), b"")])
                await kv.revoke(lease)

                assert await kv.get(key("a")) is not None

        asyncio.run(run())

    def test_lease_that_is_not_kept_alive_runs_out_and_watches_see_it(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                lease = await kv.grant(1)
                put = await kv.commit([], [Put(key("a"), b"", lease)])
                await self.let_leases_run_out(kv)
                seen = await events(kv, put.revision, 1)

                assert [(event.key, event.entry) for event in seen] == [(key("a"), None)]
                assert not await kv.keep_alive(lease)

        asyncio.run(run())

    def test_put_on_a_lease_that_is_gone_is_refused_whole(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                lease = await kv.grant(60)
                await kv.revoke(lease)
                with pytest.raises(LeaseGone):
                    await kv.commit([], [Put(key("a"), b"", lease), Put(key("b"), b"")])

                assert (await kv.list(PREFIX)).entries == ()

        asyncio.run(run())

    def test_identity_stays_and_its_revision_follows_the_commits(self) -> None:
        async def run() -> None:
            async with self.opened() as kv:
                before = await kv.identity()
                outcome = await kv.commit([], [Put(key("a"), b"")])
                after = await kv.identity()

            assert after.cluster_id == before.cluster_id != 0
            assert after.revision == outcome.revision == before.revision + 1

        asyncio.run(run())
