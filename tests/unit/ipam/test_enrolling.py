"""Of several ipamd the first that answers is enough; the rest is in test_enrolment."""

import asyncio
from pathlib import Path

import pytest

from ipam.channel import IpamdAway
from ipam.enrolling import enroll
from ipam.signing import make_authority, make_request, now
from ipam.tls import SERVER
from tests.unit.ipam.test_enrolment import Site, at_a_site


def test_one_that_is_away_is_passed_over(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        there = site.endpoint
        (site.directory / "token").write_text("good")
        got = await enroll(
            ["127.0.0.1:1", there],
            make_request().certificate,
            token=site.directory / "token",
            ca=site.directory / "ca.pem",
            server_name=SERVER,
        )

        assert got.node == "node-1"

    at_a_site(tmp_path, play)


@pytest.mark.parametrize(
    ("endpoints", "why"), [((), "not known yet"), (("127.0.0.1:1",), "127.0.0.1:1: ")]
)
def test_nobody_there_is_told(tmp_path: Path, endpoints: tuple[str, ...], why: str) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.pem").write_bytes(make_authority(now()).certificate)

    async def play() -> None:
        with pytest.raises(IpamdAway, match=why):
            await enroll(
                endpoints,
                b"",
                token=tmp_path / "token",
                ca=tmp_path / "ca.pem",
                server_name=SERVER,
            )

    asyncio.run(play())
