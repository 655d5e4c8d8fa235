"""The API server, as a self-test asks for it."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from connectivity.errors import ConnectivityError, Missing, Refused
from kube.access import from_kubeconfig
from kube.client import Client
from kube.errors import Conflict, Denied, KubeError, NotFound, Rejected


class KubernetesAPI:
    """connectivity.campaign.API, by the kubeconfig that *client* was made from."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, path: str) -> dict[str, Any]:
        with _translated():
            return await self._client.get(path, dict[str, Any])

    async def text(self, path: str) -> str:
        with _translated():
            return await self._client.text(path)

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        with _translated():
            await self._client.create(path, body, dict[str, Any])

    async def delete(self, path: str) -> None:
        with _translated():
            await self._client.delete(path)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except NotFound as exc:
        raise Missing(str(exc)) from exc
    except (Denied, Conflict, Rejected) as exc:
        raise Refused(str(exc)) from exc
    except KubeError as exc:
        raise ConnectivityError(str(exc)) from exc


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[KubernetesAPI]:
    """The API server that the file names; everything raises ConnectivityError."""
    client = Client(lambda: from_kubeconfig(kubeconfig))
    try:
        yield KubernetesAPI(client)
    finally:
        client.close()
