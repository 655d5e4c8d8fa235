"""Which member is asked, how often, with which token, and what is made of its answers."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aetcd import rpc
from grpc import StatusCode

from ipam.etcd import EtcdKV
from ipam.etcd_config import EtcdConfig
from ipam.etcd_members import backoff_s
from ipam.kv import Ambiguous, Denied, KVError, KVUnavailable, Put
from tests.unit.ipam.fake_etcd import CLUSTER, Scripted, header, member

NO_LEADER = (StatusCode.UNAVAILABLE, "etcdserver: no leader")
TIMED_OUT = (StatusCode.UNAVAILABLE, "etcdserver: request timed out")
BAD_TOKEN = (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
DONE = rpc.TxnResponse(header=header(11), succeeded=True)
EMPTY = rpc.RangeResponse(header=header(10))


class Clock:
    """Stands still but for what a test adds, and for a step at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def kv_of(
    *members: Scripted, clock: Clock | None = None, cluster_id: int = 0, **fields: Any
) -> EtcdKV:
    config = EtcdConfig(endpoints=tuple(member.url for member in members), **fields)
    return EtcdKV(config, cluster_id=cluster_id, chance=lambda: 0.0, clock=clock or Clock())


def test_member_without_a_leader_is_left_for_the_next_and_not_asked_again() -> None:
    async def run() -> None:
        async with member(Txn=[NO_LEADER]) as first, member(Txn=[DONE]) as second:
            kv = kv_of(first, second)
            for _ in range(3):
                assert (await kv.commit([], [Put("a", b"")])).done
            await kv.close()

            assert first.methods().count("Txn") == 1
            assert second.methods().count("Txn") == 3

    asyncio.run(run())


def test_lost_answer_to_a_write_is_ambiguous_and_the_write_not_repeated() -> None:
    async def run() -> None:
        async with member(Txn=[TIMED_OUT]) as first, member(Txn=[DONE]) as second:
            kv = kv_of(first, second)
            with pytest.raises(Ambiguous, match="request timed out"):
                await kv.commit([], [Put("a", b"")])
            assert "Txn" not in second.methods()
            assert (await kv.commit([], [Put("a", b"")])).done
            await kv.close()

            assert first.methods().count("Txn") == 1

    asyncio.run(run())


def test_write_unanswered_within_its_time_is_ambiguous() -> None:
    async def never(request: Any) -> Any:
        await asyncio.Event().wait()

    async def run() -> None:
        async with member(Txn=[never]) as first:
            kv = kv_of(first, timeout_s=0.2)
            with pytest.raises(Ambiguous):
                await kv.commit([], [Put("a", b"")])
            await kv.close()

    asyncio.run(run())


def test_lost_answer_to_a_read_is_asked_of_the_next() -> None:
    async def run() -> None:
        async with member(Range=[EMPTY, TIMED_OUT]) as first, member() as second:
            kv = kv_of(first, second)
            assert await kv.get("a") is None
            await kv.close()

            assert "Range" in second.methods()

    asyncio.run(run())


def test_endpoint_that_leads_to_another_cluster_is_left_for_the_others() -> None:
    async def run() -> None:
        theirs = rpc.RangeResponse(header=header(cluster_id=5))
        async with (
            member(Range=[theirs], Txn=[DONE]) as foreign,
            member(Txn=[DONE]) as first,
            member() as second,
        ):
            kv = kv_of(foreign, first, second, cluster_id=CLUSTER)
            outcome = await kv.commit([], [Put("a", b"")])
            await kv.close()

            assert outcome.done
            assert "Txn" not in foreign.methods()

    asyncio.run(run())


def test_write_that_another_cluster_answered_did_nothing_in_ours() -> None:
    """Its connection was there before: only the answer says where it was carried out."""

    async def run() -> None:
        theirs = rpc.TxnResponse(header=header(12, cluster_id=5), succeeded=True)
        async with member(Txn=[DONE, theirs]) as first:
            kv = kv_of(first)
            await kv.commit([], [Put("a", b"")])
            with pytest.raises(KVUnavailable, match="exchanged for another"):
                await kv.commit([], [Put("a", b"")])
            await kv.close()

    asyncio.run(run())


def test_one_endpoint_of_another_cluster_is_named_while_the_rest_is_away() -> None:
    async def run() -> None:
        theirs = rpc.RangeResponse(header=header(cluster_id=5))
        async with (
            member(Range=[theirs]) as foreign,
            member(Range=[NO_LEADER]) as first,
            member(Range=[NO_LEADER]) as second,
        ):
            kv = kv_of(
                foreign, first, second, cluster_id=CLUSTER, clock=Clock(step=1.0), timeout_s=1.0
            )
            with pytest.raises(KVUnavailable, match=r"no etcd member answered: .* cluster 5"):
                await kv.identity()
            await kv.close()

    asyncio.run(run())


def test_election_is_waited_for_with_growing_pauses() -> None:
    async def run() -> None:
        async with member(Txn=[NO_LEADER, NO_LEADER, DONE]) as first:
            kv = kv_of(first)
            outcome = await kv.commit([], [Put("a", b"")])
            await kv.close()

            assert outcome.done
            assert first.methods().count("Txn") == 3

    asyncio.run(run())


def test_election_that_lasts_longer_than_the_time_limit_is_unavailable() -> None:
    async def run() -> None:
        async with member(Txn=[NO_LEADER]) as first:
            kv = kv_of(first, clock=Clock(step=1.0), timeout_s=4.0)
            with pytest.raises(KVUnavailable, match="no leader: fewer than half"):
                await kv.commit([], [Put("a", b"")])
            await kv.close()

            assert first.methods().count("Txn") < 4

    asyncio.run(run())


class TestTokens:
    @pytest.fixture
    def user(self, tmp_path: Path) -> dict[str, Any]:
        file = tmp_path / "password"
        file.write_text("secret\n")
        return {"username": "me", "password_file": file}

    def test_token_is_fetched_once_for_many_calls(self, user: dict[str, Any]) -> None:
        async def run() -> None:
            tokens = [rpc.AuthenticateResponse(token="one")]
            async with member(Authenticate=tokens, Txn=[DONE]) as first:
                kv = kv_of(first, **user)
                await asyncio.gather(*(kv.commit([], [Put("a", b"")]) for _ in range(20)))
                await kv.close()

                assert first.methods().count("Authenticate") == 1
                assert set(first.tokens("Txn")) == {"one"}

        asyncio.run(run())

    def test_stale_token_is_renewed_and_a_write_repeated(self, user: dict[str, Any]) -> None:
        async def run() -> None:
            tokens = [rpc.AuthenticateResponse(token=name) for name in ("old", "new")]
            async with member(Authenticate=tokens, Txn=[BAD_TOKEN, DONE]) as first:
                kv = kv_of(first, **user)
                outcome = await kv.commit([], [Put("a", b"")])
                await kv.close()

                assert outcome.done
                assert first.tokens("Txn") == ["old", "new"]

        asyncio.run(run())

    def test_token_that_is_never_good_is_denied_after_one_renewal(
        self, user: dict[str, Any]
    ) -> None:
        async def run() -> None:
            tokens = [rpc.AuthenticateResponse(token="bad")]
            async with member(Authenticate=tokens, Txn=[BAD_TOKEN]) as first:
                kv = kv_of(first, **user)
                with pytest.raises(Denied):
                    await kv.commit([], [Put("a", b"")])
                await kv.close()

                assert first.methods().count("Authenticate") == 2
                assert first.methods().count("Txn") == 2

        asyncio.run(run())

    def test_member_that_gives_no_token_in_time_did_nothing(self, user: dict[str, Any]) -> None:
        async def never(request: Any) -> Any:
            await asyncio.Event().wait()

        async def run() -> None:
            tokens = [rpc.AuthenticateResponse(token="one")]
            async with AsyncExitStack() as stack:
                first = await stack.enter_async_context(member(Authenticate=[never]))
                second = await stack.enter_async_context(member(Authenticate=tokens, Txn=[DONE]))
                kv = kv_of(first, second, timeout_s=0.3, **user)
                outcomes = await asyncio.gather(
                    *(kv.commit([], [Put("a", b"")]) for _ in range(10))
                )
                await kv.close()

                assert all(outcome.done for outcome in outcomes)

        asyncio.run(run())

    def test_lost_answer_about_a_token_leaves_no_write_in_doubt(self, user: dict[str, Any]) -> None:
        async def run() -> None:
            tokens = [rpc.AuthenticateResponse(token="one")]
            async with AsyncExitStack() as stack:
                first = await stack.enter_async_context(member(Authenticate=[TIMED_OUT]))
                second = await stack.enter_async_context(member(Authenticate=tokens, Txn=[DONE]))
                kv = kv_of(first, second, **user)
                outcome = await kv.commit([], [Put("a", b"")])
                await kv.close()

                assert outcome.done

        asyncio.run(run())

    def test_member_without_authentication_is_asked_for_a_token_once(
        self, user: dict[str, Any]
    ) -> None:
        async def run() -> None:
            off = (StatusCode.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
            async with member(Authenticate=[off], Txn=[DONE]) as first:
                kv = kv_of(first, **user)
                for _ in range(3):
                    await kv.commit([], [Put("a", b"")])
                await kv.close()

                assert first.methods().count("Authenticate") == 1

        asyncio.run(run())


def test_closed_client_says_so() -> None:
    async def run() -> None:
        async with member() as first:
            kv = kv_of(first)
            await kv.get("a")
            await kv.close()

            with pytest.raises(KVError, match="closed"):
                await kv.get("a")

    asyncio.run(run())


def test_pauses_double_within_their_upper_half_up_to_a_limit() -> None:
    least = [backoff_s(attempt, lambda: 0.0) for attempt in (1, 2, 3, 100)]
    most = [backoff_s(attempt, lambda: 1.0) for attempt in (1, 2, 3, 100)]

    assert least == [0.05, 0.1, 0.2, 2.5]
    assert most == [0.1, 0.2, 0.4, 5.0]
