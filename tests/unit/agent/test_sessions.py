"""Keys between two nodes on loopback: what certificates are for, and what is refused."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.sessions import LIFE_S, NobodyThere, NotReached, Sessions
from announcement.frames import Unreadable
from announcement.model import Heartbeat, State
from ipam.tls import TLSFiles
from tests.certificates import Authority
from tests.unit.agent.test_health_checks import free_port

HERE, THERE = ip_address("127.0.0.1"), ip_address("127.0.0.2")
SAID = Heartbeat(state=State(frozenset({ip_address("192.0.2.1")})))


def between(
    a: TLSFiles, b: TLSFiles, scene: Callable[[Sessions, Sessions], Awaitable[None]]
) -> None:
    async def play() -> None:
        port = free_port()
        one = Sessions("a", a, port, clock=time.monotonic, host=str(HERE))
        other = Sessions("b", b, port, clock=time.monotonic, host=str(THERE))
        await one.serve()
        await other.serve()
        try:
            await scene(one, other)
        finally:
            one.close()
            other.close()

    asyncio.run(play())


def test_two_nodes_have_a_key_of_their_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def scene(a: Sessions, b: Sessions) -> None:
        await a.begin("b", THERE)
        here, there = a.of("b"), b.of("a")
        assert here is not None
        assert there is not None

        assert b.find(here.seal(SAID)) is there
        assert there.open(here.seal(SAID)) == SAID
        assert here.open(there.seal(SAID)) == SAID

    between(authority.node("a"), authority.node("b"), scene)


def test_both_may_begin_and_each_understands_the_other(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def scene(a: Sessions, b: Sessions) -> None:
        for _ in range(3):
            await asyncio.gather(a.begin("b", THERE), b.begin("a", HERE))

            for one, other, name in ((a, b, "b"), (b, a, "a")):
                session = one.of(name)
                assert session is not None
                datagram = session.seal(SAID)
                assert other.find(datagram).open(datagram) == SAID

    between(authority.node("a"), authority.node("b"), scene)


def test_what_is_of_a_session_that_is_over_is_not_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def scene(a: Sessions, b: Sessions) -> None:
        await a.begin("b", THERE)
        old = a.of("b")
        assert old is not None
        for _ in range(2):
            await a.begin("b", THERE)

        with pytest.raises(Unreadable, match="a session that is over"):
            b.find(old.seal(SAID))

    between(authority.node("a"), authority.node("b"), scene)


def test_who_is_not_the_node_that_was_meant_gets_no_key(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def scene(a: Sessions, b: Sessions) -> None:
        with pytest.raises(NotReached, match=r"127.0.0.2 is node c, and not b"):
            await a.begin("b", THERE)

        assert b.of("a") is None

    between(authority.node("a"), authority.node("c"), scene)


def test_a_certificate_of_another_authority_is_refused_on_both_sides(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")

    async def scene(a: Sessions, b: Sessions) -> None:
        for one, other, place in ((a, "b", THERE), (b, "a", HERE)):
            with pytest.raises(NotReached):
                await one.begin(other, place)

        assert a.of("b") is None
        assert b.of("a") is None

    between(ours.node("a"), theirs.node("b"), scene)


@pytest.mark.parametrize("which", ["expired", "admin"])
def test_a_certificate_that_is_over_or_no_nodes_is_refused(tmp_path: Path, which: str) -> None:
    authority = Authority(tmp_path)
    bad = (
        authority.issue("old", uris=["isthmus:node:a"], days=-1)
        if which == "expired"
        else authority.admin()
    )

    async def scene(a: Sessions, b: Sessions) -> None:
        with pytest.raises(NotReached):
            await a.begin("b", THERE)

        assert b.of("a") is None

    between(bad, authority.node("b"), scene)


def test_where_nobody_listens_that_is_told_apart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def scene(a: Sessions, _: Sessions) -> None:
        with pytest.raises(NobodyThere, match="nobody listens at "):
            await a.begin("c", ip_address("127.0.0.3"))

    between(authority.node("a"), authority.node("b"), scene)


def test_files_that_are_no_credentials_are_told_and_read_again_when_they_change(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    files = authority.node("a")
    key = files.key.read_bytes()
    files.key.write_bytes(b"nothing")

    async def scene(a: Sessions, b: Sessions) -> None:
        assert "no sessions with other nodes" in a.trouble
        with pytest.raises(NotReached, match=r"node-a.pem"):
            await a.begin("b", THERE)
        files.key.write_bytes(key)
        await a.serve()

        assert a.trouble == ""
        await b.begin("a", HERE)

    between(files, authority.node("b"), scene)


def test_a_session_is_old_after_an_hour_and_where_there_is_none(tmp_path: Path) -> None:
    authority, now = Authority(tmp_path), [0.0]

    async def play() -> None:
        port = free_port()
        a = Sessions("a", authority.node("a"), port, clock=lambda: now[0], host=str(HERE))
        b = Sessions("b", authority.node("b"), port, clock=lambda: now[0], host=str(THERE))
        await b.serve()
        assert a.is_old("b")
        await a.begin("b", THERE)
        assert not a.is_old("b")
        now[0] = LIFE_S + 1
        assert a.is_old("b")
        b.close()

    asyncio.run(play())
