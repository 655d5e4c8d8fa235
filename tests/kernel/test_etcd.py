"""The store on real etcd: the contract, and each way in which a cluster can fail."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from ipam.etcd import EtcdKV
from ipam.etcd_config import EtcdConfig
from ipam.kv import (
    KV,
    Ambiguous,
    Batch,
    Compacted,
    Delete,
    Denied,
    Event,
    KVUnavailable,
    OutOfSpace,
    Put,
    Replaced,
    Unchanged,
)
from tests.certificates import Authority
from tests.kernel.etcd import V36, Etcd, free_ports, running
from tests.unit.ipam.kv_contract import PREFIX, KVContract, events, key, stream

pytestmark = pytest.mark.kernel

TIMEOUT_S = 2.0
WAIT_S = 30.0


# Debian 12's, and the one that Kubernetes asks for.
SYSTEM = pytest.param("", id="3.4")
NEWER = pytest.param(V36, id="3.6")
VERSIONS = [SYSTEM, pytest.param(V36, id="3.6", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=[SYSTEM, NEWER])
def single(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd"), 1, programs=request.param) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd-tls"), 1, tls=True) as etcd:
        yield etcd


@pytest.fixture(params=VERSIONS)
def three(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Etcd]:
    with running(tmp_path, 3, programs=request.param) as etcd:
        yield etcd


@asynccontextmanager
async def client(config: EtcdConfig) -> AsyncIterator[EtcdKV]:
    kv = EtcdKV(config, chance=lambda: 0.0)
    try:
        yield kv
    finally:
        await kv.close()


def plain(etcd: Etcd, timeout_s: float = TIMEOUT_S) -> EtcdConfig:
    return EtcdConfig(endpoints=etcd.urls, timeout_s=timeout_s)


def with_tls(etcd: Etcd, *, timeout_s: float = TIMEOUT_S) -> EtcdConfig:
    assert etcd.authority is not None
    assert etcd.server is not None
    return EtcdConfig(
        endpoints=etcd.urls,
        ca=etcd.authority.file,
        cert=etcd.server.certificate,
        key=etcd.server.key,
        timeout_s=timeout_s,
    )


def emptied(etcd: Etcd) -> None:
    etcd.ctl("del", "--prefix", "/")


class TestContract(KVContract):
    @pytest.fixture(autouse=True)
    def _on(self, single: Etcd) -> None:
        self.etcd = single
        emptied(single)

    def opened(self) -> contextlib.AbstractAsyncContextManager[KV]:
        return client(plain(self.etcd))

    async def compact(self, kv: KV, revision: int) -> None:
        await asyncio.to_thread(self.etcd.ctl, "compact", str(revision))

    async def let_leases_run_out(self, kv: KV) -> None:
        """etcd's own clock; the contract then waits for the deletion itself."""


async def refusal(config: EtcdConfig) -> str:
    async with client(config) as kv:
        with pytest.raises(KVUnavailable) as refused:
            await kv.commit([], [Put(key("a"), b"")])
        return str(refused.value)


class TestTLS:
    def test_client_with_a_certificate_is_served(self, secure: Etcd) -> None:
        async def run() -> None:
            async with client(with_tls(secure)) as kv:
                outcome = await kv.commit([], [Put(key("a"), b"1")])
                seen = await events(kv, outcome.revision - 1, 1)

            assert seen[0].revision == outcome.revision

        asyncio.run(run())

    def test_unknown_authority_is_named(self, secure: Etcd, tmp_path: Path) -> None:
        other = Authority(tmp_path, "another authority")
        pair = other.issue("client", common_name="client")
        config = EtcdConfig(
            endpoints=secure.urls,
            ca=other.file,
            cert=pair.certificate,
            key=pair.key,
            timeout_s=TIMEOUT_S,
        )

        text = asyncio.run(refusal(config))

        assert secure.endpoints[0] in text
        assert "not signed by an authority in the configured CA file" in text

    def test_client_certificate_of_another_authority_is_named(
        self, secure: Etcd, tmp_path: Path
    ) -> None:
        assert secure.authority is not None
        pair = Authority(tmp_path, "another authority").issue("client", common_name="client")
        config = EtcdConfig(
            endpoints=secure.urls,
            ca=secure.authority.file,
            cert=pair.certificate,
            key=pair.key,
            timeout_s=TIMEOUT_S,
        )

        text = asyncio.run(refusal(config))

        assert secure.endpoints[0] in text
        assert "client certificate" in text

    def test_missing_client_certificate_is_named(self, secure: Etcd) -> None:
        assert secure.authority is not None
        config = EtcdConfig(endpoints=secure.urls, ca=secure.authority.file, timeout_s=TIMEOUT_S)

        text = asyncio.run(refusal(config))

        assert "client certificate" in text

    def test_plain_endpoint_of_a_member_with_tls_is_named(self, secure: Etcd) -> None:
        config = EtcdConfig(endpoints=(f"http://{secure.endpoints[0]}",), timeout_s=TIMEOUT_S)

        text = asyncio.run(refusal(config))

        assert secure.endpoints[0] in text
        assert "as a member with TLS does" in text

    def test_tls_endpoint_of_a_plain_member_is_named(self, single: Etcd, secure: Etcd) -> None:
        assert secure.authority is not None
        config = EtcdConfig(
            endpoints=(f"https://{single.endpoints[0]}",),
            ca=secure.authority.file,
            timeout_s=TIMEOUT_S,
        )

        text = asyncio.run(refusal(config))

        assert "does not speak TLS" in text

    @pytest.mark.parametrize(
        ("hosts", "days", "words"),
        [
            (("elsewhere.example",), 1.0, "is for another name"),
            (("localhost", "127.0.0.1"), -1.0, "has expired"),
        ],
    )
    def test_wrong_server_certificate_is_named(
        self, tmp_path: Path, hosts: tuple[str, ...], days: float, words: str
    ) -> None:
        with running(tmp_path, 1, tls=True) as etcd:
            assert etcd.authority is not None
            config = with_tls(etcd)
            etcd.kill(0)
            etcd.server = etcd.authority.issue("bad", common_name="bad", hosts=hosts, days=days)
            etcd.start(wait=False)
            etcd.wait_for_port(0)

            text = asyncio.run(refusal(config))

        assert words in text

    def test_renewed_client_certificate_is_used_without_a_restart(
        self, secure: Etcd, tmp_path: Path
    ) -> None:
        assert secure.authority is not None
        expired = secure.authority.issue("rotated", common_name="short", days=-1)
        config = EtcdConfig(
            endpoints=secure.urls,
            ca=secure.authority.file,
            cert=expired.certificate,
            key=expired.key,
            timeout_s=TIMEOUT_S,
        )
        now = [0.0]

        async def run() -> None:
            assert secure.authority is not None
            kv = EtcdKV(config, clock=lambda: now[0])
            try:
                with pytest.raises(KVUnavailable):
                    await kv.identity()
                secure.authority.issue("rotated", common_name="long")
                now[0] += 60.0

                assert (await kv.identity()).revision > 0
            finally:
                await kv.close()

        asyncio.run(run())

    def test_watch_goes_on_over_a_renewal(self, secure: Etcd) -> None:
        assert secure.authority is not None
        pair = secure.authority.issue("renewed", common_name="first")
        config = EtcdConfig(
            endpoints=secure.urls, ca=secure.authority.file, cert=pair.certificate, key=pair.key
        )
        now = [0.0]

        async def run() -> None:
            assert secure.authority is not None
            kv = EtcdKV(config, clock=lambda: now[0])
            try:
                start = (await kv.identity()).revision
                async with asyncio.timeout(WAIT_S), aclosing(stream(kv, start, PREFIX)) as seen:
                    for number in range(2):
                        await kv.commit([], [Put(key("a"), b"%d" % number)])
                        event = await anext(seen)
                        assert event.entry is not None
                        assert event.entry.value == b"%d" % number
                        secure.authority.issue("renewed", common_name="second")
                        now[0] += 60.0
            finally:
                await kv.close()

        asyncio.run(run())


class TestNoConnection:
    def test_refused_connection_names_the_endpoint(self) -> None:
        port = free_ports(1)[0]

        text = asyncio.run(refusal(EtcdConfig(endpoints=(f"http://127.0.0.1:{port}",))))

        assert f"127.0.0.1:{port}: nothing listens there" in text

    def test_unknown_name_is_named(self) -> None:
        text = asyncio.run(refusal(EtcdConfig(endpoints=("http://etcd.invalid:2379",))))

        assert "etcd.invalid:2379: its name is not known" in text

    def test_all_endpoints_are_named(self) -> None:
        ports = free_ports(2)
        endpoints = tuple(f"http://127.0.0.1:{port}" for port in ports)

        text = asyncio.run(refusal(EtcdConfig(endpoints=endpoints)))

        assert all(f"127.0.0.1:{port}" in text for port in ports)


class TestAuthentication:
    @pytest.fixture(params=VERSIONS)
    def guarded(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Etcd]:
        options = ("--auth-token-ttl", "1")
        with running(tmp_path / "etcd", 1, options=options, programs=request.param) as etcd:
            etcd.ctl("user", "add", "root:secret")
            etcd.ctl("user", "grant-role", "root", "root")
            etcd.ctl("user", "add", "isthmus:pass")
            etcd.ctl("role", "add", "isthmus")
            etcd.ctl("role", "grant-permission", "isthmus", "--prefix=true", "readwrite", PREFIX)
            etcd.ctl("user", "grant-role", "isthmus", "isthmus")
            etcd.ctl("auth", "enable")
            yield etcd

    def user(self, etcd: Etcd, tmp_path: Path, password: str = "pass") -> EtcdConfig:
        file = tmp_path / "password"
        file.write_text(password + "\n")
        return EtcdConfig(
            endpoints=etcd.urls,
            username="isthmus",
            password_file=file,
            timeout_s=TIMEOUT_S,
            prefix=PREFIX,
        )

    def test_user_reads_writes_and_watches_its_own_prefix_alone(
        self, guarded: Etcd, tmp_path: Path
    ) -> None:
        async def run() -> None:
            async with client(self.user(guarded, tmp_path)) as kv:
                outcome = await kv.commit([Unchanged(key("a"), 0)], [Put(key("a"), b"1")])
                seen = await events(kv, outcome.revision - 1, 1)
                identity = await kv.identity()

                assert (len(seen), identity.revision) == (1, outcome.revision)
                for call in (
                    kv.get("/other"),
                    kv.list("/other"),
                    kv.commit([], [Put("/other", b"")]),
                    events(kv, 0, 1, "/other"),
                ):
                    with pytest.raises(Denied, match="has no right to these keys"):
                        await call

        asyncio.run(run())

    def test_token_that_ran_out_is_renewed(self, guarded: Etcd, tmp_path: Path) -> None:
        async def run() -> None:
            async with client(self.user(guarded, tmp_path)) as kv:
                await kv.identity()
                await invalidated(guarded)

                outcomes = await asyncio.gather(
                    *(kv.commit([], [Put(key(str(number)), b"")]) for number in range(20))
                )

            assert all(outcome.done for outcome in outcomes)

        asyncio.run(run())

    def test_wrong_password_is_named(self, guarded: Etcd, tmp_path: Path) -> None:
        async def run() -> None:
            async with client(self.user(guarded, tmp_path, "wrong")) as kv:
                with pytest.raises(Denied, match="does not know this user and password"):
                    await kv.identity()

        asyncio.run(run())

    def test_missing_user_is_named(self, guarded: Etcd) -> None:
        async def run() -> None:
            async with client(plain(guarded)) as kv:
                with pytest.raises(Denied, match="none is configured"):
                    await kv.identity()

        asyncio.run(run())

    def test_changed_password_file_is_read_with_the_next_token(
        self, guarded: Etcd, tmp_path: Path
    ) -> None:
        async def run() -> None:
            config = self.user(guarded, tmp_path, "wrong")
            async with client(config) as kv:
                with pytest.raises(Denied):
                    await kv.identity()
                self.user(guarded, tmp_path)

                assert (await kv.identity()).cluster_id != 0

        asyncio.run(run())

    def test_member_without_authentication_takes_a_user_too(
        self, single: Etcd, tmp_path: Path
    ) -> None:
        async def run() -> None:
            async with client(self.user(single, tmp_path)) as kv:
                assert (await kv.identity()).cluster_id != 0

        asyncio.run(run())


async def invalidated(etcd: Etcd) -> None:
    """Make every token stale, as any change of users and roles does."""
    for argv in (("role", "add", "other"), ("role", "delete", "other")):
        await asyncio.to_thread(etcd.ctl, *argv, user="root:secret")


async def committed(kv: KV, name: str, value: bytes) -> int:
    """Commit until a try is surely done; tells how often that took."""
    async with asyncio.timeout(WAIT_S):
        for tries in range(1, 1000):
            try:
                await kv.commit([], [Put(key(name), value)])
            except (KVUnavailable, Ambiguous):
                await asyncio.sleep(0.02)
            else:
                return tries
    raise AssertionError


async def eventually(claim: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        for _ in itertools.count():
            if await claim():
                return
            await asyncio.sleep(0.02)


async def has_no_leader(kv: KV) -> bool:
    with pytest.raises((KVUnavailable, Ambiguous)) as refused:
        await kv.commit([], [Put(key("a"), b"")])
    return "no leader" in str(refused.value)


async def is_done(kv: KV) -> bool:
    """Ambiguous is not suppressed."""
    with contextlib.suppress(KVUnavailable):
        return (await kv.commit([], [Put(key("a"), b"2")])).done
    return False


class TestThreeMembers:
    def test_leader_killed_under_commits_and_a_watch(self, three: Etcd) -> None:
        """Nothing that was acknowledged is lost, and the watch sees each revision once."""

        async def run() -> None:
            async with client(plain(three)) as kv:
                start = (await kv.identity()).revision
                async with asyncio.TaskGroup() as group:
                    watch = group.create_task(until_value(kv, start, b"last"))
                    for number in range(60):
                        if number in (20, 40):
                            leader = await asyncio.to_thread(three.leader)
                            assert leader is not None
                            three.kill(leader)
                        if number == 30:
                            await asyncio.to_thread(three.start)
                        await committed(kv, f"{number:02}", b"x")
                    await committed(kv, "end", b"last")
                listing = await kv.list(PREFIX)

            seen = watch.result()
            revisions = [event.revision for event in seen]
            assert len(listing.entries) == 61
            assert revisions == sorted(set(revisions))
            assert {event.key for event in seen} == {entry.key for entry in listing.entries}

        asyncio.run(run())

    def test_member_that_hangs_is_left_after_one_call(self, three: Etcd) -> None:
        async def run() -> None:
            async with client(plain(three, timeout_s=1.0)) as kv:
                await kv.identity()
                three.pause(0)  # the one in use: chance is 0
                with pytest.raises(Ambiguous):
                    await kv.commit([], [Put(key("a"), b"1")])
                # If it led, the others choose first; none of that is in doubt.
                await eventually(lambda: is_done(kv))
                three.resume(0)

        asyncio.run(run())

    def test_comparisons_alone_are_not_answered_from_what_one_member_has(self, three: Etcd) -> None:
        async def run() -> None:
            leader = await asyncio.to_thread(three.leader)
            assert leader is not None
            follower = (leader + 1) % 3
            alone = EtcdConfig(endpoints=(three.urls[follower],), timeout_s=TIMEOUT_S)
            async with client(alone) as kv:
                held = await kv.commit([Unchanged(key("a"), 0)], [])
                for number in {0, 1, 2} - {follower}:
                    three.pause(number)
                with pytest.raises((KVUnavailable, Ambiguous)):
                    await kv.commit([Unchanged(key("a"), 0)], [])

            assert held.done

        asyncio.run(run())

    def test_member_without_a_leader_leaves_no_write_in_doubt(self, three: Etcd) -> None:
        async def run() -> None:
            alone = EtcdConfig(endpoints=three.urls[:1], timeout_s=TIMEOUT_S)
            async with client(alone) as kv:
                await kv.identity()
                three.kill(1)
                three.kill(2)
                await eventually(lambda: has_no_leader(kv))
                with pytest.raises(KVUnavailable, match="fewer than half"):
                    await kv.commit([], [Put(key("a"), b"")])

        asyncio.run(run())

    def test_watch_on_a_member_that_hangs_moves_to_another(self, three: Etcd) -> None:
        async def run() -> None:
            async with client(plain(three, timeout_s=1.0)) as kv:
                start = (await kv.identity()).revision
                async with asyncio.timeout(60.0), aclosing(stream(kv, start, PREFIX)) as seen:
                    await committed(kv, "a", b"1")
                    await anext(seen)
                    three.pause(0)
                    await committed(kv, "a", b"2")
                    event = await anext(seen)
                    three.resume(0)

            assert event.entry is not None
            assert event.entry.value == b"2"

        asyncio.run(run())

    def test_without_a_majority_all_say_so_and_a_watch_goes_on_where_it_was(
        self, three: Etcd
    ) -> None:
        async def run() -> None:
            async with client(plain(three, timeout_s=1.0)) as kv, asyncio.timeout(60.0):
                await kv.identity()
                first = await kv.commit([], [Put(key("a"), b"1")])
                watch = kv.watch(PREFIX, after=first.revision - 1)
                await anext(watch)
                three.kill(0)
                three.kill(1)
                with pytest.raises(KVUnavailable):
                    await kv.get(key("a"))
                with pytest.raises((KVUnavailable, Ambiguous)):
                    await kv.commit([], [Put(key("a"), b"lost?")])
                with pytest.raises(KVUnavailable):
                    await anext(watch)
                three.kill(2)
                with pytest.raises(KVUnavailable, match="nothing listens there"):
                    await kv.commit([], [Put(key("a"), b"never")])
                await asyncio.to_thread(three.start)
                await committed(kv, "a", b"2")
                seen = await until_value(kv, first.revision, b"2")

            assert b"never" not in {event.entry and event.entry.value for event in seen}
            assert len(seen) in (1, 2)  # "lost?" may have been carried out

        asyncio.run(run())

    def test_compaction_under_a_watch_that_is_away_is_a_gap(self, three: Etcd) -> None:
        async def run() -> None:
            config = plain(three)
            first = EtcdConfig(endpoints=config.endpoints[:1], timeout_s=1.0)
            async with client(first) as kv, client(config) as other:
                async with asyncio.timeout(60.0):
                    start = await other.commit([], [Put(key("a"), b"1")])
                    watch = kv.watch(PREFIX, after=start.revision - 1)
                    await anext(watch)
                    three.kill(0)
                    async with asyncio.TaskGroup() as group:
                        gap = group.create_task(gap_after(kv, watch, start.revision))
                        for number in range(5):
                            await committed(other, "b", b"%d" % number)
                        now = (await other.identity()).revision
                        await asyncio.to_thread(
                            three.ctl, "compact", str(now), endpoints=three.endpoints[1:]
                        )
                        await asyncio.to_thread(three.start)

            assert isinstance(gap.result(), Compacted)

        asyncio.run(run())

    def test_restore_from_a_snapshot_ends_watches_and_the_revision_goes_back(
        self, three: Etcd
    ) -> None:
        async def run() -> None:
            async with asyncio.timeout(60.0), client(plain(three)) as kv:
                await kv.commit([], [Put(key("a"), b"old")])
                before = await kv.identity()
                file = await asyncio.to_thread(three.snapshot)
                for _ in range(20):
                    last = await kv.commit([], [Put(key("a"), b"new")])
                watch = kv.watch(PREFIX, after=last.revision - 1)
                await anext(watch)
                async with asyncio.TaskGroup() as group:
                    gap = group.create_task(gap_after(kv, watch, last.revision))
                    await asyncio.to_thread(three.restore, file)
                entry = await kv.get(key("a"))
                identity = await kv.identity()

            assert isinstance(gap.result(), Replaced)
            assert entry is not None
            assert entry.value == b"old"
            assert identity.revision <= before.revision

        asyncio.run(run())

    def test_wiped_cluster_of_another_token_is_another(self, three: Etcd) -> None:
        async def run() -> None:
            async with asyncio.timeout(60.0), client(plain(three)) as kv:
                last = await kv.commit([], [Put(key("a"), b"")])
                before = await kv.identity()
                watch = kv.watch(PREFIX, after=last.revision - 1)
                await anext(watch)
                async with asyncio.TaskGroup() as group:
                    gap = group.create_task(gap_after(kv, watch, last.revision))
                    await asyncio.to_thread(three.wipe, new_token=True)
                    await asyncio.to_thread(three.start)
                after = await kv.identity()

            assert isinstance(gap.result(), Replaced)
            assert after.cluster_id != before.cluster_id

        asyncio.run(run())


async def until_value(kv: KV, start: int, value: bytes) -> list[Event]:
    """Watch, taking the watch up again where no member answered, until *value* comes."""
    found: list[Event] = []
    async with asyncio.timeout(60.0):
        for _ in itertools.count():
            with contextlib.suppress(KVUnavailable):
                async with aclosing(stream(kv, start, PREFIX)) as seen:
                    async for event in seen:
                        found.append(event)
                        start = event.revision
                        if event.entry and event.entry.value == value:
                            return found
            await asyncio.sleep(0.05)
    raise AssertionError


async def gap_after(kv: KV, watch: AsyncIterator[Batch], after: int) -> Compacted:
    """How *watch*, or the next one where no member answered, ends."""
    for _ in itertools.count():
        try:
            async for batch in watch:
                after = batch.revision
        except Compacted as gap:
            return gap
        except KVUnavailable:
            await asyncio.sleep(0.05)
            watch = kv.watch(PREFIX, after=after)
    raise AssertionError


async def filled(kv: KV) -> None:
    for number in range(200):
        await kv.commit([], [Put(key("a"), bytes(200_000)), Put(key(str(number)), b"")])


@pytest.mark.parametrize("programs", VERSIONS)
def test_full_database_refuses_writes_and_still_reads(tmp_path: Path, programs: str) -> None:
    async def run(etcd: Etcd) -> None:
        async with client(plain(etcd)) as kv:
            with pytest.raises(OutOfSpace, match="compact, defragment"):
                await filled(kv)
            listing = await kv.list(PREFIX)

            assert listing.entries
            await kv.commit([], [Delete(listing.entries[0].key)])

    with running(tmp_path, 1, quota_bytes=4 * 1024 * 1024, programs=programs) as etcd:
        asyncio.run(run(etcd))


def test_refusal_of_one_member_is_no_news_of_the_others(three: Etcd) -> None:
    """A dead endpoint first, and one that never was: the third serves."""

    async def run() -> None:
        port = free_ports(1)[0]
        endpoints = (f"http://127.0.0.1:{port}", "http://etcd.invalid:2379", three.urls[2])
        async with client(EtcdConfig(endpoints=endpoints, timeout_s=5.0)) as kv:
            outcome = await kv.commit([], [Put(key("a"), b"")])

            assert outcome.done
            assert await kv.get(key("a")) is not None

    asyncio.run(run())


def test_members_are_as_the_program_reports_them(single: Etcd) -> None:
    async def run() -> int:
        async with client(plain(single)) as kv:
            return (await kv.identity()).cluster_id

    reported = json.loads(single.ctl("endpoint", "status", "-w", "json").stdout)

    assert asyncio.run(run()) == reported[0]["Status"]["header"]["cluster_id"]
