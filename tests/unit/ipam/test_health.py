"""What a health probe with a certificate is told."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from tests.unit.ipam.edges import Site, served

# HealthCheckRequest and HealthCheckResponse as any client of grpc.health.v1 encodes them.
WHOLE, OURS, OTHER = b"", b"\x0a\x14isthmus.ipam.v1.IPAM", b"\x0a\x01x"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def run(directory: Path, play: Any) -> None:
    async def whole() -> None:
        async with served(directory) as site:
            pem = site.signer.node("a").read()
            credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
            async with aio.secure_channel(site.endpoint, credentials) as channel:
                await play(site, channel)

    asyncio.run(whole())


def test_a_probe_is_told_whether_this_replica_serves(tmp_path: Path) -> None:
    async def play(site: Site, channel: aio.Channel) -> None:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        before = await check(WHOLE, timeout=10)
        await site.health.set(serving=True)
        after = [await check(request, timeout=10) for request in (WHOLE, OURS)]
        with pytest.raises(aio.AioRpcError) as caught:
            await check(OTHER, timeout=10)

        assert (before, after) == (NOT_SERVING, [SERVING, SERVING])
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    run(tmp_path, play)


def test_a_watcher_is_told_each_change(tmp_path: Path) -> None:
    async def play(site: Site, channel: aio.Channel) -> None:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(OURS)
        told = [await watch.read()]
        for serving in (True, False):
            await site.health.set(serving=serving)
            told.append(await watch.read())
        watch.cancel()

        assert told == [NOT_SERVING, SERVING, NOT_SERVING]

    run(tmp_path, play)
