"""Who may ask what, how refusals look from outside, and how a replica takes its leave."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from ipam import calls, kv, refusals
from ipam.channel import IpamdAway, IpamdFault
from ipam.cluster import BlockState, Pool
from ipam.errors import IPAMError
from ipam.kv import Ambiguous
from ipam.refusals import Contended, Invalid, NotAllowed, NotReady, Unidentified
from ipam.rpc import ipamd_pb2 as pb
from ipam.rpc.ipamd_pb2_grpc import IPAMStub
from ipam.server import SHARED, Messages
from ipam.tls import TLSFiles
from ipam.wire import MAX_REQUEST, parse, render
from tests.certificates import Authority
from tests.unit.ipam.edges import BLOCK, Site, served

REGISTER = calls.Register(node="a", uid="u", boot_id="b", instance="i")
CLAIM = calls.Claim(node="a", uid="u", epoch=1, nonce="x")
RELEASE = calls.Release(node="a", uid="u", epoch=1, generation="g", blocks=(BLOCK,))
MIRROR = calls.Mirror(node="a", uid="u", epoch=1, sequence=8)
AUDIT = calls.Audit(node="a", uid="u", epoch=1, audit="x", blocks=(BLOCK,), problems=("odd",))
LEAVE = calls.Leave(node="a", uid="u", instance="i")
HOST = ip_address("192.0.2.1")
POOL = Pool(name="p", cidr=ip_network("10.0.0.0/16"), block_length=26)

OWN: list[tuple[str, Any, Any]] = [
    ("Register", pb.RegisterRequest, REGISTER),
    ("Claim", pb.ClaimRequest, CLAIM),
    ("Release", pb.ReleaseRequest, RELEASE),
    ("Mirror", pb.MirrorRequest, MIRROR),
    ("Audit", pb.AuditRequest, AUDIT),
    ("Leave", pb.LeaveRequest, LEAVE),
]
ADMINISTRATION: list[tuple[str, Any, Any]] = [
    ("Init", pb.InitRequest(if_new=True), calls.Init(if_new=True)),
    ("PutPool", pb.PutPoolRequest(pool=render(pb.PoolSpec, POOL), create=True), (POOL, True)),
    (
        "ChangePool",
        pb.ChangePoolRequest(
            pool=pb.PoolSpec(name="p", reservations=["10.0.1.0/24"], order=0),
            fields=["reservations", "selector", "order"],
        ),
        ("p", {"reservations": (ip_network("10.0.1.0/24"),), "selector": {}, "order": 0}),
    ),
    ("DeletePool", pb.DeletePoolRequest(name="p"), "p"),
    (
        "PutSettings",
        pb.PutSettingsRequest(settings=pb.SettingsSpec(quarantine_s=0)),
        {"quarantine_s": 0.0},
    ),
    (
        "Drain",
        pb.DrainRequest(node="a", fenced=True, force=True),
        calls.Drain(
            node="a", fenced=True, force=True, by="isthmus:admin at 2026-01-01T12:00:00+00:00"
        ),
    ),
    (
        "Pin",
        pb.PinRequest(node="a", cidr="10.0.0.0/26", undo=True),
        calls.Pin(node="a", cidr=BLOCK.cidr, undo=True),
    ),
    (
        "ReleaseBlock",
        pb.ReleaseBlockRequest(cidr="10.0.0.0/26", mod_revision=4),
        (BLOCK.cidr, 4),
    ),
    ("ReleaseMirror", pb.ReleaseMirrorRequest(node="a", mod_revision=4), ("a", 4)),
    ("Show", pb.ShowRequest(what="nodes", argument="a"), ("nodes", "a")),
    ("Check", pb.CheckRequest(), "check"),
]


def run(directory: Path, play: Callable[[Site], Awaitable[None]], **limits: Any) -> None:
    async def whole() -> None:
        async with served(directory, **limits) as site:
            await play(site)

    asyncio.run(whole())


def test_an_update_is_sent_as_its_message_made_once_for_all_streams() -> None:
    rows = tuple(
        calls.TableRow(cidr=cidr, node="a", epoch=1, addresses=(HOST,), state=BlockState.ACTIVE)
        for cidr in ip_network("10.0.0.0/24").subnets(new_prefix=26)
    )
    update = calls.Update(
        revision=7,
        whole=True,
        rows=rows,
        gone=(ip_network("10.1.0.0/26"),),
        with_pools=True,
        pools=(calls.PoolRow(name="p", cidr=ip_network("10.0.0.0/16"), masquerade=True),),
    )
    messages = Messages()
    message = messages.of(update)
    for revision in range(2 * SHARED):
        messages.of(calls.Update(revision=revision))

    assert pb.WatchReply.FromString(message) == render(pb.WatchReply, update)
    assert messages.of(update) == message
    assert messages.of(update) is messages.of(update)


@pytest.mark.parametrize(("method", "kind", "asked"), OWN)
def test_a_node_speaks_for_itself_alone(tmp_path: Path, method: str, kind: Any, asked: Any) -> None:
    async def play(site: Site) -> None:
        await site.ask(site.signer.node("a"), method, render(kind, asked))
        with pytest.raises(NotAllowed, match="isthmus:node:b cannot speak for node 'a'"):
            await site.ask(site.signer.node("b"), method, render(kind, asked))
        with pytest.raises(NotAllowed, match="isthmus:admin is no node"):
            await site.ask(site.signer.admin(), method, render(kind, asked))

        assert site.decisions.asked == [asked]

    run(tmp_path, play)


@pytest.mark.parametrize(("method", "request_", "asked"), ADMINISTRATION)
def test_administration_needs_an_administrator(
    tmp_path: Path, method: str, request_: Any, asked: Any
) -> None:
    async def play(site: Site) -> None:
        await site.ask(site.signer.admin(), method, request_)
        with pytest.raises(NotAllowed, match="isthmus:node:a is no administrator"):
            await site.ask(site.signer.node("a"), method, request_)

        assert site.decisions.asked == [asked]

    run(tmp_path, play)


def test_answers_have_what_was_decided(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        node, admin = site.signer.node("a"), site.signer.admin()
        claimed = await site.ask(node, "Claim", render(pb.ClaimRequest, CLAIM))
        released = await site.ask(node, "Release", render(pb.ReleaseRequest, RELEASE))
        mirrored = await site.ask(node, "Mirror", render(pb.MirrorRequest, MIRROR))
        shown = await site.ask(admin, "Show", pb.ShowRequest(what="nodes", argument="a"))
        checked = await site.ask(admin, "Check", pb.CheckRequest())

        assert [block.cidr for block in claimed.blocks] == ["10.0.0.0/26"]
        assert list(released.released) == ["10.0.0.0/26"]
        assert mirrored.sequence == 8
        assert shown.json == '[{"name": "a"}]'
        assert [finding.kind for finding in checked.findings] == ["leak"]

    run(tmp_path, play)


def test_key_of_any_bytes_can_be_told_of(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        key = b"/isthmus/\xff\n".decode(errors="surrogateescape")
        site.decisions.findings = (
            calls.Finding(kind=calls.FindingKind.FOREIGN, subject=key, text="t" * 5000),
        )
        checked = await site.ask(site.signer.admin(), "Check", pb.CheckRequest())
        (finding,) = (parse(calls.Finding, one) for one in checked.findings)

        assert finding.subject == "/isthmus/\\udcff\\n"
        assert finding.text.startswith("ttt")

    run(tmp_path, play)


async def forever() -> None:
    await asyncio.Event().wait()


async def _refuse_by(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (refusals.Unknown("no node"), grpc.StatusCode.NOT_FOUND),
        (refusals.Stale("older"), grpc.StatusCode.FAILED_PRECONDITION),
        (refusals.SecondBoot("twice"), grpc.StatusCode.FAILED_PRECONDITION),
        (refusals.Exhausted("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (refusals.NotReady("later"), grpc.StatusCode.UNAVAILABLE),
        (kv.KVUnavailable("gone"), grpc.StatusCode.UNAVAILABLE),
        (kv.Denied("password"), grpc.StatusCode.UNAVAILABLE),
        (kv.Ambiguous("perhaps"), grpc.StatusCode.ABORTED),
    ],
)
def test_a_refusal_has_a_status_and_comes_back_as_itself(
    tmp_path: Path, error: IPAMError, status: grpc.StatusCode
) -> None:
    async def play(site: Site) -> None:
        site.decisions.instead = lambda: _refuse_by(error)
        async with site.channels(site.signer.node("a")) as channels:
            with pytest.raises(type(error), match=str(error)) as caught:
                await channels.call("Claim", render(pb.ClaimRequest, CLAIM), within_s=10)

        assert isinstance(caught.value.__cause__, aio.AioRpcError)
        assert caught.value.__cause__.code() is status

    run(tmp_path, play)


def test_a_refusal_that_repeats_much_is_cut_not_lost(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        site.decisions.instead = lambda: _refuse_by(refusals.Unknown("no node " + "n" * 100_000))
        with pytest.raises(refusals.Unknown, match=r"no node n{1000}n* …"):
            await site.ask(site.signer.node("a"), "Claim", render(pb.ClaimRequest, CLAIM))

    run(tmp_path, play)


def test_a_bug_is_logged_and_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play(site: Site) -> None:
        site.decisions.instead = lambda: _refuse_by(RuntimeError("secret"))
        with pytest.raises(IpamdFault, match="internal error") as caught:
            await site.ask(site.signer.node("a"), "Claim", render(pb.ClaimRequest, CLAIM))

        assert "secret" not in str(caught.value)

    run(tmp_path, play)

    assert "RuntimeError: secret" in caplog.text


def test_a_call_that_does_not_end_is_ended(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        site.decisions.instead = forever
        with pytest.raises(Ambiguous, match=r"no end within 0\.05 s"):
            await site.ask(site.signer.node("a"), "Claim", render(pb.ClaimRequest, CLAIM))
        with pytest.raises(Ambiguous, match=r"no end within 0\.2 s"):
            await site.ask(site.signer.admin(), "Check", pb.CheckRequest())

    run(tmp_path, play, longest_call_s=0.05)


@pytest.mark.parametrize(
    ("common_name", "uris"),
    [
        ("", ["isthmus:node:a", "isthmus:node:b"]),
        ("isthmus:admin", ["isthmus:node:a"]),
        ("web-server", []),
    ],
)
def test_a_certificate_that_names_nobody_is_told_what_it_should(
    tmp_path: Path, common_name: str, uris: list[str]
) -> None:
    async def play(site: Site) -> None:
        files = site.signer.issue("odd", common_name=common_name, uris=uris)
        with pytest.raises(Unidentified, match="must name one of isthmus:node:NAME and"):
            await site.ask(files, "Check", pb.CheckRequest())

        assert site.decisions.asked == []

    run(tmp_path, play)


def test_a_name_that_only_looks_like_one_of_ours_is_nobody(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        files = site.signer.issue("dns", common_name="x", hosts=["isthmus:admin"])
        with pytest.raises(Unidentified, match="names x"):
            await site.ask(files, "Check", pb.CheckRequest())

    run(tmp_path, play)


def test_expired_forged_and_foreign_certificates_are_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    async def play(site: Site) -> None:
        expired = site.signer.issue("old", uris=["isthmus:node:a"], days=-1)
        with pytest.raises(
            IpamdAway, match=r"having seen our certificate .*old.pem: certificate has expired"
        ):
            await site.ask(expired, "Check", pb.CheckRequest())
        other = Authority(tmp_path / "other", "another authority")
        foreign = replace(other.admin(), ca=site.signer.file)
        with pytest.raises(IpamdAway, match=r"admin\.pem: unable to get local issuer certificate"):
            await site.ask(foreign, "Check", pb.CheckRequest())
        forged = Authority(tmp_path / "forger", "test authority").admin()
        with pytest.raises(IpamdAway, match=r"admin\.pem: certificate signature failure"):
            await site.ask(replace(forged, ca=site.signer.file), "Check", pb.CheckRequest())
        distrusting = replace(site.signer.admin(), ca=other.file)
        with pytest.raises(IpamdAway, match="its certificate is refused here"):
            await site.ask(distrusting, "Check", pb.CheckRequest())

        assert site.decisions.asked == []

    run(tmp_path, play)


def test_without_a_certificate_nothing_is_answered(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        credentials = grpc.ssl_channel_credentials(site.signer.file.read_bytes())
        async with aio.secure_channel(site.endpoint, credentials) as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                await IPAMStub(channel).Check(pb.CheckRequest(), timeout=10)

        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert site.decisions.asked == []

    run(tmp_path, play)


def test_malformed_and_oversized_requests_are_refused(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        files = site.signer.node("a")
        pem = files.read()
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
        async with aio.secure_channel(site.endpoint, credentials) as channel:
            call = channel.unary_unary("/isthmus.ipam.v1.IPAM/Register")
            with pytest.raises(aio.AioRpcError) as malformed:
                await call(b"\xff\xff\xff", timeout=10)
            with pytest.raises(aio.AioRpcError) as oversized:
                await call(b"\x0a" + b"a" * (MAX_REQUEST + 1), timeout=10)
            with pytest.raises(aio.AioRpcError) as unknown:
                await channel.unary_unary("/isthmus.ipam.v1.IPAM/Frob")(b"", timeout=10)
        with pytest.raises(Invalid, match=r"addresses: 'x' does not appear to be"):
            await site.ask(files, "Register", pb.RegisterRequest(node="a", addresses=["x"]))

        assert malformed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert oversized.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert site.decisions.asked == []

    run(tmp_path, play)


def test_a_new_certificate_is_used_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(site: Site) -> None:
        admin = site.signer.admin()
        await site.ask(admin, "Check", pb.CheckRequest())
        successor = Authority(tmp_path / "successor")
        _exchange(site.files, successor.server())
        with pytest.raises(IpamdAway, match=r"hung up having seen our certificate .*admin.pem"):
            await site.ask(admin, "Check", pb.CheckRequest())
        await site.ask(successor.admin(), "Check", pb.CheckRequest())
        site.files.key.write_text("half a key")
        await site.ask(successor.admin(), "Check", pb.CheckRequest())

        assert site.decisions.asked == ["check"] * 3

    with caplog.at_level("INFO"):
        run(tmp_path, play)

    assert [record.getMessage() for record in caplog.records if "new cert" in record.msg] == [
        "new certificate in use",
        "new certificate not used",
    ]


def _exchange(old: TLSFiles, new: TLSFiles) -> None:
    for there, fresh in ((old.certificate, new.certificate), (old.key, new.key), (old.ca, new.ca)):
        os.replace(fresh, there) if fresh != new.ca else there.write_bytes(fresh.read_bytes())


def test_a_node_watches_until_the_replica_leaves(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        site.decisions.instead = forever
        revisions = []
        async with site.channels(site.signer.node("a")) as channels:

            async def watch() -> None:
                async with channels.stub() as stub:
                    async for update in stub.Watch(pb.WatchRequest(after=3, frozen=True)):
                        revisions.append(update.revision)
                        site.edge.leave()

            with pytest.raises(NotReady, match="going away"):
                await watch()
            with pytest.raises(NotReady, match="going away"):
                await watch()

        assert (revisions, site.decisions.asked, site.decisions.ended) == (
            [5],
            [("a", 3, True)],
            ["a"],
        )

    run(tmp_path, play)


def test_a_stream_that_is_given_up_ends_here_too(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        site.decisions.instead = forever
        async with site.channels(site.signer.node("a")) as channels, channels.stub() as stub:
            watch = stub.Watch(pb.WatchRequest())
            await watch.read()
            watch.cancel()
        async with asyncio.timeout(10):
            await site.decisions.one_ended.wait()

        assert site.decisions.ended == ["a"]

    run(tmp_path, play)


def test_an_administrator_does_not_watch(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        async with site.channels(site.signer.admin()) as channels:
            with pytest.raises(NotAllowed, match="is no node"):
                async with channels.stub() as stub:
                    await stub.Watch(pb.WatchRequest()).read()

    run(tmp_path, play)


def test_too_many_calls_at_once_are_told_to_come_back(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        release, refused = asyncio.Event(), []
        site.decisions.instead = release.wait
        nodes = [site.signer.node(name) for name in "abcdefgh"]

        async def claim(files: TLSFiles, name: str) -> None:
            request = render(pb.ClaimRequest, replace(CLAIM, node=name))
            async with site.channels(files) as channels:
                waiting = [channels.call("Claim", request, within_s=20) for _ in range(10)]
                for first in asyncio.as_completed(waiting):
                    try:
                        await first
                    except Contended:
                        release.set()
                        refused.append(name)

        await asyncio.gather(*map(claim, nodes, "abcdefgh"))

        assert refused
        assert len(site.decisions.asked) + len(refused) == 80

    run(tmp_path, play)
