"""The store protocol on etcd v3: messages to values and back, pages, watches.

Uses the stubs that aetcd generated from etcd's own .proto, over channels of ipam.etcd_members.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from aetcd import rpc

from ipam.etcd_config import EtcdConfig
from ipam.etcd_members import (
    Exchanged,
    Member,
    Members,
    Metadata,
    Refused,
    backoff_s,
)
from ipam.etcd_refusals import Failure, Meaning, is_compacted, is_of_the_future
from ipam.kv import (
    Batch,
    Compacted,
    Delete,
    Denied,
    Entry,
    Event,
    Identity,
    KVError,
    KVUnavailable,
    Listing,
    Outcome,
    Put,
    Replaced,
    Unchanged,
)

T = TypeVar("T")

PAGE = 1000


class EtcdKV:
    """One client; *chance* gives floats in [0, 1), *clock* monotonic seconds.

    *cluster_id* is of the cluster that is expected; 0: whichever answers first.
    """

    def __init__(
        self,
        config: EtcdConfig,
        *,
        cluster_id: int = 0,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._members = Members(config, cluster_id=cluster_id, clock=clock, chance=chance)
        self._chance = chance
        self._known = (0, 0)  # cluster id and term that a watch saw last

    async def get(self, key: str) -> Entry | None:
        answer = await self._range(rpc.RangeRequest(key=_bytes(key)))
        return _entry(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str, *, revision: int = 0, after: int = 0) -> Listing:
        start, end = _bytes(prefix) or b"\0", _end(prefix)
        entries: list[Entry] = []
        while True:
            answer = await self._range(
                rpc.RangeRequest(
                    key=start,
                    range_end=end,
                    revision=revision,
                    limit=PAGE,
                    min_mod_revision=after + 1 if after else 0,
                )
            )
            revision = revision or answer.header.revision
            entries += map(_entry, answer.kvs)
            if not answer.more:
                return Listing(tuple(entries), revision)
            start = answer.kvs[-1].key + b"\0"

    async def commit(
        self, conditions: Sequence[Unchanged], changes: Sequence[Put | Delete]
    ) -> Outcome:
        # One that only compares would be answered from whatever its member has, however old.
        anew = rpc.RequestOp(request_range=_nothing(self._config.prefix))
        request = rpc.TxnRequest(
            compare=map(_compare, conditions),
            success=[*map(_operation, changes)] or [anew],
        )
        answer = await _final(
            self._members.write(
                lambda member, metadata: member.kv.Txn(
                    request, timeout=self._config.timeout_s, metadata=metadata
                )
            )
        )
        return Outcome(answer.succeeded, answer.header.revision)

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        place = _Place(after, *self._known)
        attempt = 0
        while True:
            member, metadata = await self._whereabouts(prefix, place)
            try:
                async with aclosing(self._stream(member, metadata, prefix, place)) as batches:
                    async for batch in batches:
                        attempt = 0
                        yield batch
            except _StreamLost:
                attempt += 1
                await asyncio.sleep(backoff_s(attempt, self._chance))

    async def grant(self, ttl_s: int) -> int:
        """An answer that was lost leaves a lease that nothing hangs on, until it runs out."""
        answer = await _final(
            self._members.read(
                lambda member, metadata: member.lease.LeaseGrant(
                    rpc.LeaseGrantRequest(TTL=ttl_s),
                    timeout=self._config.timeout_s,
                    metadata=metadata,
                )
            )
        )
        lease: int = answer.ID
        return lease

    async def keep_alive(self, lease: int) -> bool:
        async def once(member: Member, metadata: Metadata) -> Any:
            stream = member.lease.LeaseKeepAlive(timeout=self._config.timeout_s, metadata=metadata)
            try:
                return await _asked(stream, rpc.LeaseKeepAliveRequest(ID=lease))
            finally:
                stream.cancel()

        answer = await _final(self._members.read(once))
        return bool(answer.TTL > 0)

    async def revoke(self, lease: int) -> None:
        try:
            await self._members.read(
                lambda member, metadata: member.lease.LeaseRevoke(
                    rpc.LeaseRevokeRequest(ID=lease),
                    timeout=self._config.timeout_s,
                    metadata=metadata,
                )
            )
        except Refused as exc:
            if exc.failure.code is not grpc.StatusCode.NOT_FOUND:
                raise exc.failure.error() from exc

    async def identity(self) -> Identity:
        """Also where another cluster is in the place of the former: from now on it is asked."""
        try:
            header = (await self._range(_nothing(self._config.prefix))).header
        except Exchanged as exc:
            self._members.cluster_id = exc.other.cluster_id
            return exc.other
        return Identity(header.cluster_id, header.revision)

    async def close(self) -> None:
        await self._members.close()

    async def _range(self, request: Any) -> Any:
        """Linearizable: the member asks the leader how far it must be before it answers."""
        try:
            return await self._members.read(
                lambda member, metadata: member.kv.Range(
                    request, timeout=self._config.timeout_s, metadata=metadata
                )
            )
        except Refused as exc:
            if is_compacted(exc.failure):
                raise Compacted(request.revision + 1) from exc
            if is_of_the_future(exc.failure):
                now = (await self._range(_nothing(self._config.prefix))).header.revision
                raise Replaced(now) from exc
            raise exc.failure.error() from exc

    async def _stream(
        self, member: Member, metadata: Metadata, prefix: str, place: "_Place"
    ) -> AsyncGenerator[Batch, None]:
        """One stream, until it is lost; *place* moves with what was yielded.

        Raises _StreamLost, Replaced, Compacted, Denied.
        """
        if member.is_retired:
            raise _StreamLost("new certificates since; the channel may be closed")
        async with member.used():
            stream = member.watch.Watch(metadata=metadata)
            try:
                answer = await _asked(stream, _watch_request(prefix, place.after))
                pending: list[Event] = []
                while True:
                    place.check(answer, member.target)
                    pending += map(_event, answer.events)
                    if not (answer.fragment or answer.created):
                        batch = place.advance(pending, answer.header.revision)
                        pending = []
                        if batch is not None:
                            yield batch
                    answer = _received(await stream.read())
            except grpc.aio.AioRpcError as exc:
                failure = Failure(member.target, exc.code(), exc.details() or "")
                raise _stream_error(failure) from exc
            finally:
                stream.cancel()

    async def _whereabouts(self, prefix: str, place: "_Place") -> tuple[Member, Metadata]:
        """A member that answers linearizably now, and is not behind *place*.

        The watch itself is served from whatever its member has: asked alone, one that was
        restored to before *place* would wait in silence until it came by.
        """

        asked: list[tuple[Member, Metadata]] = []

        async def ask(member: Member, metadata: Metadata) -> Any:
            asked.append((member, metadata))
            request = _nothing(prefix)
            return await member.kv.Range(request, timeout=self._config.timeout_s, metadata=metadata)

        try:
            answer = await _final(self._members.read(ask))
        except Exchanged as exc:
            raise Replaced(exc.other.revision) from exc
        self._known = (answer.header.cluster_id, answer.header.raft_term)
        place.confirm(answer.header)
        return asked[-1]


class _StreamLost(KVUnavailable):
    """One stream is over; another may do."""


@dataclass(slots=True)
class _Place:
    """How far a watch is, and in which store."""

    after: int
    cluster_id: int = 0
    raft_term: int = 0

    def confirm(self, header: Any) -> None:
        """Raises Replaced for a store that is another, or is behind.

        Terms never go back in the life of a cluster; a restored one begins with its first again.
        """
        if header.revision < self.after or header.raft_term < self.raft_term:
            raise Replaced(header.revision)
        if self.cluster_id not in (0, header.cluster_id):
            raise Replaced(header.revision)
        self.cluster_id, self.raft_term = header.cluster_id, header.raft_term

    def check(self, answer: Any, endpoint: str) -> None:
        """Raises Replaced, Compacted, Denied, _StreamLost."""
        if answer.header.cluster_id != self.cluster_id:
            raise Replaced(answer.header.revision)
        if answer.compact_revision:
            raise Compacted(answer.compact_revision)
        if answer.canceled:
            reason = (
                f"etcd at {endpoint} ended a watch: {answer.cancel_reason or 'no reason given'}"
            )
            # The token was good for a read on this member a moment ago.
            if "permission denied" in answer.cancel_reason:
                raise Denied(reason)
            raise _StreamLost(reason)

    def advance(self, events: list[Event], now: int) -> Batch | None:
        """What is new of *events*; without any, all up to revision *now* is known.

        A response's own revision says nothing while events before it may follow: those of long
        ago come a thousand revisions at a time.
        """
        reached = events[-1].revision if events else now
        fresh = tuple(event for event in events if event.revision > self.after)
        if reached <= self.after:
            return None
        self.after = reached
        return Batch(fresh, reached)


async def _final(answer: Awaitable[T]) -> T:
    """*answer*; a member's refusal as the error that it means."""
    try:
        return await answer
    except Refused as exc:
        raise exc.failure.error() from exc


def _stream_error(failure: Failure) -> KVError:
    if failure.meaning in (Meaning.FINAL, Meaning.TOKEN):
        error = failure.error()
        if isinstance(error, Denied):
            return error
    return _StreamLost(f"etcd at {failure.reason}")


async def _asked(stream: Any, request: Any) -> Any:
    """The first answer to *request*.  Raises AioRpcError, _StreamLost."""
    # A stream that is over already takes no request; why it is over, reading tells.
    with contextlib.suppress(asyncio.InvalidStateError):
        await stream.write(request)
    return _received(await stream.read())


def _received(answer: Any) -> Any:
    """*answer*, unless the stream just ended.  Raises _StreamLost."""
    if answer is grpc.aio.EOF:
        raise _StreamLost("etcd ended a stream")
    return answer


def _watch_request(prefix: str, after: int) -> Any:
    """From *after* itself, whose events are dropped.

    etcd before 3.4.35 and 3.5.16 may lose a deletion at exactly the revision compacted to; asked
    from there, not from the next, a watch that this would concern is refused as compacted.
    """
    return rpc.WatchRequest(
        create_request=rpc.WatchCreateRequest(
            key=_bytes(prefix) or b"\0",
            range_end=_end(prefix),
            start_revision=max(after, 1),
            progress_notify=True,
            fragment=True,
        )
    )


def _nothing(prefix: str) -> Any:
    """A read for its header alone."""
    return rpc.RangeRequest(key=_bytes(prefix) or b"\0", count_only=True)


def _entry(pair: Any) -> Entry:
    return Entry(
        key=_text(pair.key),
        value=pair.value,
        create_revision=pair.create_revision,
        mod_revision=pair.mod_revision,
        version=pair.version,
        lease=pair.lease,
    )


def _event(event: Any) -> Event:
    is_put = event.type == rpc.Event.PUT
    return Event(_text(event.kv.key), _entry(event.kv) if is_put else None, event.kv.mod_revision)


def _compare(condition: Unchanged) -> Any:
    return rpc.Compare(
        result=rpc.Compare.EQUAL,
        target=rpc.Compare.MOD,
        key=_bytes(condition.key),
        mod_revision=condition.mod_revision,
    )


def _operation(change: Put | Delete) -> Any:
    if isinstance(change, Put):
        return rpc.RequestOp(
            request_put=rpc.PutRequest(
                key=_bytes(change.key), value=change.value, lease=change.lease
            )
        )
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=_bytes(change.key)))


# Keys that others wrote need not be UTF-8; they come and go unchanged.
def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _text(key: bytes) -> str:
    return key.decode(errors="surrogateescape")


def _end(prefix: str) -> bytes:
    """The first key after all that start with *prefix*; \\0 means the end of all keys."""
    start = _bytes(prefix).rstrip(b"\xff")
    return start[:-1] + bytes([start[-1] + 1]) if start else b"\0"
