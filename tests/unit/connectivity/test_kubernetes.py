"""A self-test's API server is the fake one here; what it refuses are errors of the self-test."""

import asyncio

import pytest

from connectivity.errors import ConnectivityError, Missing, Refused
from connectivity.kubernetes import KubernetesAPI
from kube.client import Client
from tests.kube_api import NODES, FakeAPI

NODE = {"metadata": {"name": "a"}}


async def with_fake(fake: FakeAPI, path: str) -> dict[str, object]:
    client = Client(fake.access)
    try:
        return await KubernetesAPI(client).get(path)
    finally:
        client.close()


def test_what_is_there_is_given() -> None:
    async def check() -> dict[str, object]:
        async with FakeAPI() as fake:
            fake.put(NODES, NODE)
            return await with_fake(fake, f"{NODES}/a")

    found = asyncio.run(check())

    assert found["metadata"]["name"] == "a"  # type: ignore[index]


def test_absence_and_refusal_are_told_apart() -> None:
    async def check(path: str, *, denied: bool) -> None:
        async with FakeAPI() as fake:
            fake.denied = lambda _: denied
            await with_fake(fake, path)

    with pytest.raises(Missing):
        asyncio.run(check(f"{NODES}/b", denied=False))
    with pytest.raises(Refused):
        asyncio.run(check(f"{NODES}/b", denied=True))


def test_a_server_that_went_away_is_an_error_of_the_self_test() -> None:
    async def check() -> None:
        async with FakeAPI() as fake:
            access = fake.access()
        await KubernetesAPI(Client(lambda: access)).get(NODES)

    with pytest.raises(ConnectivityError):
        asyncio.run(check())
