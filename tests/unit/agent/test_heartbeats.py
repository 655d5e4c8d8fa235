"""Heartbeats between nodes on loopback, over real sockets."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from agent.heartbeats import Heartbeats, Peers
from agent.sessions import Sessions
from announcement.model import Heartbeat, State
from tests.certificates import Authority
from tests.kube_api import until
from tests.unit.agent.test_health_checks import free_port

PLACES: Peers = {
    name: (ip_address(f"127.0.0.{number}"),) for number, name in enumerate(("a", "b", "c"), 1)
}
SAID = Heartbeat(state=State(frozenset({ip_address("192.0.2.1")})))


@dataclass
class Node:
    sessions: Sessions
    heartbeats: Heartbeats
    heard: list[tuple[str, Heartbeat]] = field(default_factory=list)

    def close(self) -> None:
        self.heartbeats.close()
        self.sessions.close()


def node(name: str, authority: Authority, port: int) -> Node:
    host = str(PLACES[name][0])
    heard: list[tuple[str, Heartbeat]] = []
    sessions = Sessions(name, authority.node(name), port, clock=time.monotonic, host=host)
    heartbeats = Heartbeats(
        name,
        sessions,
        port,
        heard=lambda peer, said: heard.append((peer, said)),
        clock=time.monotonic,
        host=host,
    )
    return Node(sessions, heartbeats, heard)


def played(
    tmp_path: Path, scene: Callable[[Node, Node, int], Awaitable[None]], *, other: str = "b"
) -> None:
    authority = Authority(tmp_path)

    async def play() -> None:
        port = free_port()
        one, two = node("a", authority, port), node(other, authority, port)
        async with asyncio.TaskGroup() as tasks:
            for each in (one, two):
                each.heartbeats.open(tasks)
                await each.sessions.serve()
            await scene(one, two, port)
        one.close()
        two.close()

    asyncio.run(play())


def test_a_session_is_begun_and_both_hear_each_other(tmp_path: Path) -> None:
    async def scene(a: Node, b: Node, _: int) -> None:
        a.heartbeats.settle(PLACES)
        b.heartbeats.settle(PLACES)
        await until(lambda: a.sessions.of("b") is not None)
        a.heartbeats.send("b", SAID)
        await until(lambda: bool(b.heard))
        b.heartbeats.send("a", SAID)  # it knows where from what came
        await until(lambda: bool(a.heard))

        assert b.heard == [("a", SAID)]
        assert a.heard == [("b", SAID)]

    played(tmp_path, scene)


def test_who_refuses_the_connection_announces_nothing(tmp_path: Path) -> None:
    async def scene(a: Node, b: Node, _: int) -> None:
        a.heartbeats.settle(PLACES)
        await until(lambda: a.heartbeats.absent == {"c"})

        assert a.heartbeats.troubles == {}
        a.heartbeats.settle({name: PLACES[name] for name in "ab"})
        assert a.heartbeats.absent == set()

    played(tmp_path, scene)


def test_who_cannot_be_reached_is_told_with_the_reason(tmp_path: Path) -> None:
    async def scene(a: Node, c: Node, _: int) -> None:
        a.heartbeats.settle({"b": PLACES["c"]})
        await until(lambda: "b" in a.heartbeats.troubles)

        assert "127.0.0.3 is node c, and not b" in a.heartbeats.troubles["b"]
        assert a.heartbeats.absent == set()

    played(tmp_path, scene, other="c")


def test_what_is_no_heartbeat_and_what_is_of_a_stranger_changes_nothing(tmp_path: Path) -> None:
    async def scene(a: Node, b: Node, port: int) -> None:
        a.heartbeats.settle(PLACES)
        b.heartbeats.settle({})
        await until(lambda: a.sessions.of("b") is not None)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for junk in (b"", b"x", bytes(100)):
                sender.sendto(junk, ("127.0.0.2", port))
        a.heartbeats.send("b", SAID)
        b.heartbeats.settle(PLACES)
        await until(lambda: b.sessions.of("a") is not None)
        a.heartbeats.send("b", Heartbeat(state=State()))
        await until(lambda: bool(b.heard))

        assert b.heard[-1] == ("a", Heartbeat(state=State()))

    played(tmp_path, scene)


def test_to_whom_there_is_no_session_nothing_is_sent(tmp_path: Path) -> None:
    async def scene(a: Node, b: Node, _: int) -> None:
        a.heartbeats.send("b", SAID)
        await asyncio.sleep(0)

        assert b.heard == []

    played(tmp_path, scene)


def test_what_is_refused_is_counted_by_the_reason(tmp_path: Path) -> None:
    async def scene(a: Node, b: Node, port: int) -> None:
        a.heartbeats.settle(PLACES)
        b.heartbeats.settle(PLACES)
        await until(lambda: a.sessions.of("b") is not None)
        session = a.sessions.of("b")
        assert session is not None
        sealed = session.seal(SAID)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            for datagram in (b"?", sealed[:-1] + b"?", sealed, sealed):
                other.sendto(datagram, (str(PLACES["b"][0]), port))
        await until(lambda: b.heartbeats.refused.total() == 3)

        assert b.heartbeats.refused == {
            "no heartbeat": 1,
            "sealed with another key": 1,
            "said before": 1,
        }
        b.heartbeats.settle({"b": PLACES["b"]})
        a.heartbeats.send("b", SAID)
        await until(lambda: b.heartbeats.refused["of no node that we know"] == 1)

    played(tmp_path, scene)
