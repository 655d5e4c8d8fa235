"""Nodes asked through any replica, over a store in memory."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ipam import auditing, authority
from ipam.auditing import pack, unpack
from ipam.authority import Authority
from ipam.calls import Audit, Finding, FindingKind, Mirror, MirroredLease
from ipam.memory_kv import Faults, MemoryKV
from ipam.refusals import Contended, Invalid, Stale
from tests.unit.ipam.ipamd_cases import KEYS, Site, node, site
from tests.unit.ipam.test_mirror import LEASES


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(auditing, "WITHIN_S", 0.3)
    monkeypatch.setattr(authority, "AGAIN_S", 0.0)
    with site(tmp_path) as made:
        made.begin()
        yield made


Say = Callable[[Authority, str], Awaitable[None]]


def check(cluster: Site, **nodes: Say) -> list[tuple[str, str]]:
    """Check at the first replica, while *nodes* follow the second."""

    async def follow(name: str, say: Say) -> None:
        async for update in cluster.replicas[1].watch(name):
            if update.audit:
                await say(cluster.replicas[1], update.audit)

    async def work() -> tuple[Finding, ...]:
        others = [follow(name, say) for name, say in nodes.items()]
        running = [asyncio.create_task(one.run()) for one in cluster.replicas]
        running += [asyncio.create_task(one) for one in others]  # type: ignore[arg-type]
        while not all(one.replica.synced for one in cluster.replicas):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        found = await cluster.replicas[0].check()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return found

    return [(one.kind.value, one.subject) for one in cluster.run(work())]


def says(name: str, *leases: MirroredLease) -> Say:
    async def say(at: Authority, call: str) -> None:
        held = tuple(at.replica.view.held(one) for one in at.replica.view.of_node(name))
        await at.audited(
            Audit(node=name, uid=f"uid-{name}", epoch=1, audit=call, blocks=held, leases=leases)
        )

    return say


async def mute(at: Authority, call: str) -> None:
    pass


def test_nodes_that_hold_what_the_store_says_answer_and_nothing_is_left(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.claim("a")

    assert check(cluster, a=says("a")) == []
    assert [key for key in cluster.store.entries if "answer" in key or "audit" in key] == []


def test_whoever_does_not_answer_in_time_is_named(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.register(node("b"))

    assert check(cluster, a=says("a"), b=mute) == [("silent", "b")]


def test_what_stays_different_is_told(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.do(
        lambda a: a.mirror(Mirror(node="a", uid="uid-a", epoch=1, sequence=1, leases=LEASES[4:5]))
    )

    assert ("lag", "a") in check(cluster, a=says("a"))


def test_what_was_different_only_once_is_not_told(cluster: Site) -> None:
    cluster.register(node("a"))
    answers = iter((says("a", LEASES[4]), says("a")))

    async def say(at: Authority, call: str) -> None:
        await next(answers)(at, call)

    assert check(cluster, a=say) == []


def test_an_answer_to_no_call_is_refused(cluster: Site) -> None:
    cluster.register(node("a"))
    late = Audit(node="a", uid="uid-a", epoch=1, audit="x")
    with pytest.raises(Stale, match="audit 'x' is over"):
        cluster.do(lambda a: a.audited(late))
    with pytest.raises(Stale, match="not registered"):
        cluster.do(lambda a: a.audited(Audit(node="b", uid="u", epoch=1, audit="x")))


def test_an_answer_has_a_largest_size(cluster: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "LARGEST", 100)
    cluster.register(node("a"))
    leases = tuple(
        MirroredLease(network=secrets.token_hex(20), container_id="c", ifname="e") for _ in range(9)
    )
    refused: list[str] = []

    async def say(at: Authority, call: str) -> None:
        try:
            await says("a", *leases)(at, call)
        except Invalid as exc:
            refused.append(str(exc))

    assert check(cluster, a=say) == [("silent", "a")]
    assert refused[0] == "9 leases are too many for one answer"


def test_all_answers_together_have_a_largest_size(
    cluster: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "MOST", 10)
    cluster.register(node("a"))

    assert check(cluster, a=says("a")) == [("silent", "a")]


def test_two_checks_at_once_are_not_mixed_up(cluster: Site) -> None:
    cluster.register(node("a"))

    async def both() -> list[object]:
        return await asyncio.gather(
            *(one.check() for one in cluster.replicas), return_exceptions=True
        )

    cluster.follow()
    done = cluster.run(both())

    assert [type(one) for one in done].count(Contended) == 1


def test_a_store_that_takes_no_writes_is_checked_without_the_nodes(cluster: Site) -> None:
    cluster.register(node("a"))
    kv = cluster.replicas[0].replica.kv
    assert isinstance(kv, MemoryKV)
    cluster.follow()
    kv.faults = Faults(full=True)
    found = cluster.run(cluster.replicas[0].check())

    assert [(one.kind, one.subject) for one in found] == [(FindingKind.SILENT, "nodes")]
    assert "could not be asked what they hold" in found[0].text


def test_an_answer_that_cannot_be_read_is_its_own_problem() -> None:
    said = Audit(node="a", uid="u", epoch=1, audit="", leases=LEASES[:3], problems=("p",))

    assert unpack("a", pack(said)) == said
    for value in (b"", b"x", pack(said)[:9], KEYS.root.encode()):
        (problem,) = unpack("a", value).problems
        assert problem.startswith("answer unreadable")
