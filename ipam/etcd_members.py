"""The members of an etcd cluster as channels: failover, TLS, tokens, deadlines.

A call goes to the member that answered last, and on to the next where that one surely did
nothing; each member is asked once, so a call ends after *timeout_s* for each at the latest.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import grpc
from aetcd import rpc
from aetcd.rpc import rpc_pb2_grpc

from ipam.etcd_refusals import Failure, Meaning
from ipam.kv import Ambiguous, KVError, KVUnavailable

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
Call = Callable[["Member", Metadata], Awaitable[T]]

# A stream ends, or is not begun, where its member has lost the leader: without it, a member that
# is cut off from the others would go on in silence.
LEADER_WANTED: Metadata = (("hasleader", "true"),)

# etcd allows a client's pings every 5 s; an idle watch on a dead peer ends after both together.
OPTIONS = (
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # whether a write was sent is for us to know
    ("grpc.use_local_subchannel_pool", 1),
)

# How often files are looked at for a change.
FILES_CHECK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """Where etcd is and who we are there.

    *endpoints* are http:// or https:// URLs of members.  https needs *ca* (PEM), and may have
    *cert* with *key*; all three are read again when they change.  *username* needs a
    *password_file*, whose first line counts.  *timeout_s* is for one call to one member.
    *prefix* is one that the user may read.  Raises ValueError.
    """

    endpoints: tuple[str, ...]
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str = ""
    password_file: Path | None = None
    timeout_s: float = 3.0
    prefix: str = "/isthmus/v1/"

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("etcd needs at least one endpoint, as https://10.0.0.1:2379")
        schemes = {_split(endpoint)[0] for endpoint in self.endpoints}
        if len(schemes) > 1:
            raise ValueError(f"etcd endpoints must be all http or all https: {self.endpoints}")
        if "https" in schemes and self.ca is None:
            raise ValueError("https endpoints of etcd need the CA file of their certificates")
        if "http" in schemes and (self.ca or self.cert or self.key):
            raise ValueError("certificates are for https endpoints of etcd; these are http")
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate for etcd needs both the certificate and its key")
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("a user of etcd needs both a name and a password file")
        if not self.timeout_s > 0:
            raise ValueError(f"etcd's time limit must be above 0 s, not {self.timeout_s:g}")

    @property
    def is_tls(self) -> bool:
        return self.ca is not None

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(_split(endpoint)[1] for endpoint in self.endpoints)


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

    async def retire(self) -> None:
        self._retired = True
        await self._close_if_done()

    async def connect(self, within_s: float) -> Failure | None:
        """Have a connection, or say why there is none.

        A call sent while its connection is still in the making, and then failed, would not tell
        whether it was sent.
        """
        state = self.channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return None
        try:
            # What this read answers does not matter; that it is answered does.
            await self.kv.Range(rpc.RangeRequest(key=b"\0"), timeout=within_s)
        except grpc.aio.AioRpcError as exc:
            if exc.code() in _UNANSWERED:
                return Failure(self.target, exc.code(), exc.details() or "", is_sent=False)
        return None

    async def _close_if_done(self) -> None:
        if self._retired and self._users == 0:
            await self.channel.close()


class Members:
    """All endpoints of one configuration; *chance* gives floats in [0, 1), *clock* seconds."""

    def __init__(
        self,
        config: EtcdConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self._clock = clock
        self._members: list[Member] = []
        self._stamp: object = None
        self._checked = float("-inf")
        self._preferred = int(chance() * len(config.endpoints))
        self._token = ""
        self._authenticating = asyncio.Lock()

    async def read(self, call: Call[T]) -> T:
        """Do what may be done twice: asks the next member also where an answer was lost."""
        return await self._ask(call, may_repeat=True)

    async def write(self, call: Call[T]) -> T:
        """Do what must not be done twice.  Raises Ambiguous where an answer was lost."""
        return await self._ask(call, may_repeat=False)

    async def close(self) -> None:
        members, self._members = self._members, []
        for member in members:
            await member.channel.close()

    async def _ask(self, call: Call[T], *, may_repeat: bool) -> T:
        failures = []
        members = await self._current()
        first = self._preferred
        for turn in range(len(members)):
            number = (first + turn) % len(members)
            async with members[number].used() as member:
                answer = await self._attempt(member, call)
            if not isinstance(answer, Failure):
                self._preferred = number
                return answer
            if self._preferred == number:
                self._preferred = (number + 1) % len(members)
            if answer.meaning in (Meaning.FINAL, Meaning.TOKEN):
                raise Refused(answer)
            if answer.meaning is Meaning.LOST and not may_repeat:
                raise Ambiguous(f"etcd at {answer.reason}; the answer to a write was lost")
            failures.append(answer.reason)
        raise KVUnavailable(f"no etcd member answered: {'; '.join(failures)}")

    async def _attempt(self, member: Member, call: Call[T]) -> T | Failure:
        """One call to one member; a second one with a new token where the first was stale."""
        unconnected = await member.connect(self.config.timeout_s)
        if unconnected is not None:
            return unconnected
        token = ""
        for _ in range(2):
            try:
                token = await self._token_other_than(token, member)
                return await call(member, (("token", token),) if token else ())
            except grpc.aio.AioRpcError as exc:
                failure = Failure(member.target, exc.code(), exc.details() or "")
            if failure.meaning is not Meaning.TOKEN or not self.config.username:
                break
        return failure

    async def _token_other_than(self, stale: str, member: Member) -> str:
        """The token of all calls; where that is *stale*, a new one, fetched once for all."""
        if not self.config.username or (self._token and self._token != stale):
            return self._token
        async with self._authenticating:
            if not self._token or self._token == stale:
                self._token = await self._authenticate(member)
            return self._token

    async def _authenticate(self, member: Member) -> str:
        """Raises AioRpcError, Denied."""
        assert self.config.password_file is not None
        password = _content(self.config.password_file).decode(errors="replace").split("\n")[0]
        request = rpc.AuthenticateRequest(name=self.config.username, password=password)
        try:
            answer = await member.auth.Authenticate(request, timeout=self.config.timeout_s)
        except grpc.aio.AioRpcError as exc:
            if "authentication is not enabled" in (exc.details() or ""):
                return ""
            raise
        token: str = answer.token
        return token

    async def _current(self) -> list[Member]:
        """The members, over new channels where the files of TLS have changed."""
        now = self._clock()
        if self._members and now < self._checked + FILES_CHECK_S:
            return self._members
        self._checked = now
        stamp = tuple(map(_stamp, self._files()))
        if self._members and stamp == self._stamp:
            return self._members
        former = self._members
        try:
            credentials = self._credentials()
        except KVUnavailable:
            if not former:
                raise
            return former  # half of a renewal: the channels there are still serve
        self._members = [Member(target, credentials) for target in self.config.targets]
        self._stamp = stamp
        for member in former:
            await member.retire()
        return self._members

    def _files(self) -> list[Path]:
        config = self.config
        return [path for path in (config.ca, config.cert, config.key) if path is not None]

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if not self.config.is_tls:
            return None
        contents = dict(zip(self._files(), map(_content, self._files()), strict=True))
        ca, cert, key = (
            contents[path] if path else None
            for path in (self.config.ca, self.config.cert, self.config.key)
        )
        return grpc.ssl_channel_credentials(ca, key, cert)


class Refused(KVError):
    """A member's final answer, for the caller to turn into the error of its own call."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


_UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def _split(endpoint: str) -> tuple[str, str]:
    """Scheme, and host with port.  Raises ValueError."""
    try:
        url = urlsplit(endpoint)
        well = url.scheme in ("http", "https") and url.hostname and url.port
    except ValueError:
        well = False
    if not well or url.path.strip("/") or url.query or url.username is not None:
        raise ValueError(
            f"etcd endpoint {endpoint!r} is not http:// or https:// with a host and a port, "
            f"as https://10.0.0.1:2379"
        )
    return url.scheme, url.netloc


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise KVUnavailable(f"{path}, which etcd is reached with: {exc.strerror}") from exc


def backoff_s(attempt: int, chance: Callable[[], float], *, longest_s: float = 5.0) -> float:
    """How long to wait before attempt 1, 2, …: doubling from 0.1 s, anywhere in its upper half."""
    return min(longest_s, 0.1 * float(2 ** min(attempt - 1, 16))) * (0.5 + chance() / 2)
