"""What needs no link; the rest is in tests/kernel/test_load_balancers.py."""

import asyncio
from ipaddress import ip_address

import pytest

from agent import answers
from agent.answers import Answers
from dataplane.errors import DumpInterrupted


def settled(*wanted: str) -> Answers:
    made = Answers(wanted, lambda: [ip_address("192.0.2.1")], lambda said, link: None)

    async def play() -> None:
        made.settle()
        made.announce({ip_address("192.0.2.9")})
        made.listen_for({ip_address("2001:db8::9")})
        made.close()

    asyncio.run(play())
    return made


def test_a_link_that_cannot_be_used_is_told() -> None:
    made = settled("isthnothere")

    assert "isthnothere" in made.troubles["isthnothere"]
    assert made.macs == frozenset()


def test_where_no_link_has_an_address_of_the_node_that_is_told() -> None:
    assert settled().troubles == {"links": "no link has an address of this node"}


def test_links_that_cannot_be_listed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise DumpInterrupted("five times")

    monkeypatch.setattr(answers, "interfaces", interrupted)

    assert settled().troubles == {"links": "five times"}
