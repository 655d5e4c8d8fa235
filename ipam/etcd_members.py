"""The members of an etcd cluster as channels: failover, TLS, tokens, deadlines.

A call goes to the member that answered last, and on to the next where that one surely did
nothing.  Each is asked once, and during an election again for *timeout_s*; so a call ends after
that much for each member, and once more, at the latest.

An endpoint may come to lead to another cluster.  What is answered there is no answer; where most
of the endpoints do, the cluster itself was exchanged, and whoever asks `identity` hears it.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from aetcd import rpc
from aetcd.rpc import rpc_pb2_grpc

from ipam.etcd_config import EtcdConfig
from ipam.etcd_refusals import Failure, Meaning
from ipam.kv import Ambiguous, Identity, KVError, KVUnavailable

T = TypeVar("T", bound=Any)
Metadata = tuple[tuple[str, str], ...]
Call = Callable[["Member", Metadata], Awaitable[T]]

# A member without a leader refuses at once, and ends its streams.  Without this, one that is cut
# off from the others leaves writes in doubt and goes on with watches in silence.
LEADER_WANTED: Metadata = (("hasleader", "true"),)

# etcd allows a client's pings every 5 s; an idle watch on a dead peer ends after both together.
OPTIONS = (
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # also how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # whether a write was sent is for us to know
    ("grpc.use_local_subchannel_pool", 1),
)

# How often files are looked at for a change.
FILES_CHECK_S = 1.0


class Member:
    """One endpoint's channel; closed once it is *retired* and the last call on it is over."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.target = target
        self.channel = (
            grpc.aio.secure_channel(target, credentials, options=OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(target, options=OPTIONS)
        )
        self.kv = rpc_pb2_grpc.KVStub(self.channel)
        self.watch = rpc_pb2_grpc.WatchStub(self.channel)
        self.lease = rpc_pb2_grpc.LeaseStub(self.channel)
        self.auth = rpc_pb2_grpc.AuthStub(self.channel)
        self._users = 0
        self._retired = False

    @asynccontextmanager
    async def used(self) -> AsyncIterator["Member"]:
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            await self._close_if_done()

    @property
    def is_retired(self) -> bool:
        return self._retired

    async def retire(self) -> None:
        self._retired = True
        await self._close_if_done()

    async def connect(self, within_s: float, cluster_id: int) -> Failure | None:
        """Have a connection to a member of that cluster (0: of any), or say why there is none.

        A call sent while its connection is still in the making, and then failed, would not tell
        whether it was sent.
        """
        state = self.channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return None
        try:
            # What this read finds does not matter; that it is answered does, and by whom.
            answer = await self.kv.Range(rpc.RangeRequest(key=b"\0"), timeout=within_s)
        except grpc.aio.AioRpcError as exc:
            if exc.code() in _UNANSWERED:
                return Failure(self.target, exc.code(), exc.details() or "", is_sent=False)
            return None
        return self.foreign(answer.header, cluster_id)

    def foreign(self, header: Any, cluster_id: int) -> Failure | None:
        """What is wrong with *header*, if it is not of that cluster."""
        if cluster_id in (0, header.cluster_id):
            return None
        words = f"it belongs to etcd cluster {header.cluster_id:x}, not to {cluster_id:x}"
        other = Identity(header.cluster_id, header.revision)
        return Failure(self.target, grpc.StatusCode.FAILED_PRECONDITION, words, foreign=other)

    async def _close_if_done(self) -> None:
        if self._retired and self._users == 0:
            await self.channel.close()


class Members:
    """All endpoints of one configuration; *chance* gives floats in [0, 1), *clock* seconds.

    *cluster_id* is of the cluster that is asked, 0 until one has answered.  Calls resolve to
    answers of etcd's, which have a header.
    """

    def __init__(
        self,
        config: EtcdConfig,
        *,
        cluster_id: int = 0,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self.cluster_id = cluster_id
        self._clock = clock
        self._members: list[Member] = []
        self._stamp: object = None
        self._checked = float("-inf")
        self._chance = chance
        self._preferred = int(chance() * len(config.endpoints))
        self._token: str | None = None  # "": authentication is not enabled
        self._is_closed = False
        self._authenticating = asyncio.Lock()

    async def read(self, call: Call[T]) -> T:
        """Do what may be done twice: asks the next member also where an answer was lost."""
        return await self._ask(call, may_repeat=True)

    async def write(self, call: Call[T]) -> T:
        """Do what must not be done twice.  Raises Ambiguous where an answer was lost."""
        return await self._ask(call, may_repeat=False)

    async def close(self) -> None:
        self._is_closed = True
        members, self._members = self._members, []
        for member in members:
            await member.channel.close()

    async def _ask(self, call: Call[T], *, may_repeat: bool) -> T:
        deadline = self._clock() + self.config.timeout_s
        turn = 1
        cluster_id = self.cluster_id  # should it become another meanwhile, this call is of no use
        while isinstance(answer := await self._round(call, may_repeat, cluster_id), _NoAnswer):
            wait_s = backoff_s(turn, self._chance)
            if other := answer.exchanged:
                raise Exchanged(f"etcd was exchanged for another: {answer.reasons}", other)
            if not answer.is_passing or self._clock() + wait_s > deadline:
                raise KVUnavailable(f"no etcd member answered: {answer.reasons}")
            await asyncio.sleep(wait_s)
            turn += 1
        return answer

    async def _round(self, call: Call[T], may_repeat: bool, cluster_id: int) -> "T | _NoAnswer":
        """Each member once, the preferred first; one that fails is not preferred again."""
        failures = []
        members = await self._current()
        first = self._preferred
        for turn in range(len(members)):
            number = (first + turn) % len(members)
            async with members[number].used() as member:
                answer = await self._attempt(member, call, cluster_id)
            if not isinstance(answer, Failure):
                self._preferred = number
                self.cluster_id = self.cluster_id or answer.header.cluster_id
                return answer
            if answer.meaning in (Meaning.FINAL, Meaning.TOKEN):
                raise Refused(answer)
            if self._preferred == number:
                self._preferred = (number + 1) % len(members)
            if answer.meaning is Meaning.LOST and not may_repeat:
                raise Ambiguous(f"etcd at {answer.reason}; the answer to a write was lost")
            failures.append(answer)
        return _NoAnswer(tuple(failures))

    async def _attempt(self, member: Member, call: Call[T], cluster_id: int) -> T | Failure:
        """One call to one member; a second one with a new token where the first was stale."""
        unconnected = await member.connect(self.config.timeout_s, cluster_id)
        if unconnected is not None:
            return unconnected
        token: str | None = None
        for _ in range(2):
            renewed = await self._token_other_than(token, member)
            if isinstance(renewed, Failure):
                return renewed
            token = renewed
            try:
                metadata = (("token", token),) if token else ()
                answer = await call(member, LEADER_WANTED + metadata)
                return member.foreign(answer.header, cluster_id) or answer
            except grpc.aio.AioRpcError as exc:
                failure = Failure(member.target, exc.code(), exc.details() or "")
            except KVUnavailable as exc:  # a stream that just ended
                return Failure(member.target, grpc.StatusCode.UNAVAILABLE, str(exc))
            if failure.meaning is not Meaning.TOKEN or not self.config.username:
                break
        return failure

    async def _token_other_than(self, stale: str | None, member: Member) -> str | Failure:
        """The token of all calls; where that is *stale*, a new one, fetched once for all."""
        if not self.config.username:
            return ""
        try:
            async with asyncio.timeout(self.config.timeout_s), self._authenticating:
                if self._token is None or self._token == stale:
                    self._token = await self._authenticate(member)
                return self._token
        except TimeoutError:
            unavailable = grpc.StatusCode.UNAVAILABLE
            return Failure(member.target, unavailable, "no token in time", is_sent=False)
        except grpc.aio.AioRpcError as exc:
            is_sent = exc.code() not in _UNANSWERED
            return Failure(member.target, exc.code(), exc.details() or "", is_sent)

    async def _authenticate(self, member: Member) -> str:
        """Raises AioRpcError, KVUnavailable for the file."""
        config = self.config
        request = rpc.AuthenticateRequest(name=config.username, password=config.password())
        try:
            answer = await member.auth.Authenticate(request)
        except grpc.aio.AioRpcError as exc:
            if "authentication is not enabled" in (exc.details() or ""):
                return ""
            raise
        token: str = answer.token
        return token

    async def _current(self) -> list[Member]:
        """The members, over new channels where the files of TLS have changed."""
        if self._is_closed:
            raise KVError("this client of etcd is closed")
        now = self._clock()
        if self._members and now < self._checked + FILES_CHECK_S:
            return self._members
        self._checked = now
        stamp = self.config.stamp()
        if self._members and stamp == self._stamp:
            return self._members
        former = self._members
        try:
            pem = self.config.pem()
        except KVUnavailable:
            if not former:
                raise
            return former  # half of a renewal; what is there still serves
        credentials = grpc.ssl_channel_credentials(*pem) if pem else None
        self._members = [Member(target, credentials) for target in self.config.targets]
        self._stamp = stamp
        for member in former:
            await member.retire()
        return self._members


@dataclass(frozen=True, slots=True)
class _NoAnswer:
    failures: tuple[Failure, ...]

    @property
    def exchanged(self) -> Identity | None:
        """The cluster that most of the endpoints lead to, if that is another than it was."""
        foreign = [failure.foreign for failure in self.failures if failure.foreign]
        return foreign[0] if 2 * len(foreign) > len(self.failures) else None

    @property
    def is_passing(self) -> bool:
        return any(failure.is_passing for failure in self.failures)

    @property
    def reasons(self) -> str:
        return "; ".join(failure.reason for failure in self.failures)


class Exchanged(KVUnavailable):
    """Most endpoints lead to another cluster than they did; nothing was written in ours."""

    def __init__(self, text: str, other: Identity) -> None:
        super().__init__(text)
        self.other = other


class Refused(KVError):
    """A member's final answer, for the caller to turn into the error of its own call."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


_UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def backoff_s(attempt: int, chance: Callable[[], float], *, longest_s: float = 5.0) -> float:
    """How long to wait before attempt 1, 2, …: doubling from 0.1 s, anywhere in its upper half."""
    return min(longest_s, 0.1 * float(2 ** min(attempt - 1, 16))) * (0.5 + chance() / 2)
