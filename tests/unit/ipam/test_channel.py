"""Several ipamd: another one is asked when one is away, and new certificates are used."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from grpc import aio

from ipam.channel import Channels, IpamdAway, IpamdFault, explain, translated
from ipam.errors import IPAMError
from ipam.kv import Ambiguous
from ipam.refusals import Contended, Frozen, Invalid, NotAllowed, NotReady
from ipam.rpc import ipamd_pb2 as pb
from ipam.wire import MAX_REQUEST
from tests.unit.ipam.edges import Site, served


def run(directory: Path, play: Callable[[Site], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with served(directory) as site:
            await play(site)

    asyncio.run(whole())


@pytest.fixture
def nobody() -> str:
    """An endpoint at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def ready_later() -> None:
    raise NotReady("not yet")


def test_the_next_is_asked_when_one_is_away(tmp_path: Path, nobody: str) -> None:
    async def play(site: Site) -> None:
        async with site.channels(site.signer.admin(), nobody) as channels:
            for _ in range(2):
                await channels.call("Check", pb.CheckRequest(), within_s=10)

        assert site.decisions.asked == ["check"] * 2

    run(tmp_path, play)


def test_each_that_is_away_is_named_with_its_reason(tmp_path: Path, nobody: str) -> None:
    async def play(site: Site) -> None:
        await site.server.stop(0)
        async with site.channels(site.signer.admin(), nobody) as channels:
            with pytest.raises(IpamdAway) as caught:
                await channels.call("Check", pb.CheckRequest(), within_s=10)

        assert [reason.rsplit(":", 1)[0] for reason in str(caught.value).split("; ")] == [
            nobody,
            site.endpoint,
        ]
        assert "refused" in str(caught.value)

    run(tmp_path, play)


def test_one_that_cannot_for_now_says_more_than_one_that_is_away(
    tmp_path: Path, nobody: str
) -> None:
    async def play(site: Site) -> None:
        site.decisions.instead = ready_later
        async with site.channels(site.signer.admin(), nobody) as channels:
            with pytest.raises(NotReady, match="not yet"):
                await channels.call("Check", pb.CheckRequest(), within_s=10)

    run(tmp_path, play)


def test_a_certificate_that_was_exchanged_is_used_by_the_next_call(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        files = site.signer.node("a")
        async with site.channels(files) as channels:
            await channels.call("Register", pb.RegisterRequest(node="a"), within_s=10)
            other = site.signer.node("b")
            os.replace(other.key, files.key)
            os.replace(other.certificate, files.certificate)
            await channels.call("Register", pb.RegisterRequest(node="b"), within_s=10)

        assert [asked.node for asked in site.decisions.asked] == ["a", "b"]

    run(tmp_path, play)


def test_a_stream_lives_on_while_other_calls_move_on(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        hold = asyncio.Event()
        site.decisions.instead = hold.wait
        files = site.signer.node("a")
        async with site.channels(files) as channels, channels.stub() as stub:
            watch = stub.Watch(pb.WatchRequest())
            first = await watch.read()
            site.decisions.instead = ready_later
            with pytest.raises(NotReady):
                await channels.call("Register", pb.RegisterRequest(node="a"), within_s=10)
            hold.set()
            last = await watch.read()

        assert (first.revision, last) == (5, aio.EOF)

    run(tmp_path, play)


def test_an_answer_that_does_not_come_in_time_may_have_been_carried_out(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        site.decisions.instead = asyncio.Event().wait
        async with site.channels(site.signer.admin()) as channels:
            with pytest.raises(Ambiguous, match="did not answer in time"):
                await channels.call("Check", pb.CheckRequest(), within_s=0.1)

    run(tmp_path, play)


@pytest.mark.parametrize(
    ("code", "refusal", "kind"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "Frozen", Frozen),
        (grpc.StatusCode.FAILED_PRECONDITION, "FromTheFuture", IpamdFault),
        (grpc.StatusCode.UNAVAILABLE, "", IpamdAway),
        (grpc.StatusCode.CANCELLED, "", IpamdAway),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", Ambiguous),
        (grpc.StatusCode.PERMISSION_DENIED, "", NotAllowed),
        (grpc.StatusCode.INVALID_ARGUMENT, "", Invalid),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", Contended),
        (grpc.StatusCode.UNIMPLEMENTED, "", Invalid),
    ],
)
def test_what_a_status_means(code: grpc.StatusCode, refusal: str, kind: type[IPAMError]) -> None:
    trailing = aio.Metadata(("isthmus-refusal", refusal))
    error = translated(aio.AioRpcError(code, aio.Metadata(), trailing, "words"), "h:1")

    assert type(error) is kind
    assert "words" in str(error) or kind is Ambiguous


def test_a_request_that_is_too_large_is_told_as_that_and_not_as_a_burst(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        async with site.channels(site.signer.admin()) as channels:
            request = pb.ShowRequest(what="pod", argument="x" * MAX_REQUEST)
            with pytest.raises(Invalid, match=f"is too large.* a request may have {MAX_REQUEST}"):
                await channels.call("Show", request, within_s=10)

    run(tmp_path, play)


def test_what_the_other_side_finds_too_large_is_told_alike() -> None:
    code, words = grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 8)"
    error = translated(aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), words), "h:1")

    assert type(error) is Invalid
    assert words in str(error)


def test_a_server_that_is_well_needs_no_explanation(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        assert await explain(site.endpoint, site.signer.admin()) == ""
        assert "not known" in await explain("[fe80::1%nosuch]:1", site.signer.admin())

    run(tmp_path, play)


def test_no_files_no_channel(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        files = site.signer.admin()
        files.key.unlink()
        channels = Channels([site.endpoint], files)
        with pytest.raises(IPAMError, match=r"admin\.key: No such file"):
            await channels.call("Check", pb.CheckRequest(), within_s=10)

    run(tmp_path, play)
