"""Services as an agent has them, over a fake API server: beside a test, or in a process of its own.

python -m tests.kernel.service_running PORT     until it is killed; a byte for each step
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from agent.known import KnownNode
from agent.monitor import Monitor
from agent.services import Seams, Services
from dataplane.conntrack import Conntrack
from dataplane.nft.elements import Elements
from dataplane.nft.objects import Element
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from kube.access import Access
from kube.client import Client
from proxy.reconciler import Reconciler
from proxy.settings import Settings
from proxy.tables import skeleton
from tests.kernel.agents import ROOT
from tests.kernel.service_site import NODE, VIEW, Site, pod_address
from tests.kube_api import SERVICE_CIDRS, SERVICES, SLICES, FakeAPI, until
from tests.service_objects import service, slice_

WEB_IP, OTHER_IP = "10.96.0.20", "10.96.0.21"
P1, P2, FAR = pod_address("p1", 4), pod_address("p2", 4), f"{pod_address('far', 4)}@there"


@dataclass(slots=True)
class Running:
    site: Site
    api: FakeAPI
    services: Services

    def put(self, *items: dict[str, Any]) -> None:
        put(self.api, *items)

    async def answers(self, address: str, port: int = 80, times: int = 1) -> Counter[str]:
        client = self.site.pods["p2"]
        return await asyncio.to_thread(self.site.answers, client, address, port, times)

    async def until_answered(self, by: set[str], address: str, port: int = 80) -> None:
        """Until exactly these answer, each soon."""
        end = time.monotonic() + 20
        while (found := set(await self.answers(address, port, 12))) != by:
            assert time.monotonic() < end, (found, self.services.trouble)


def put(api: FakeAPI, *items: dict[str, Any]) -> None:
    for item in items:
        api.put(SLICES if "endpoints" in item else SERVICES, item)


@asynccontextmanager
async def api_server() -> AsyncIterator[FakeAPI]:
    """One that knows the ranges of Services, and none of them yet."""
    async with FakeAPI() as api:
        ranges = {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}
        api.put(SERVICE_CIDRS, {"metadata": {"name": "kubernetes"}, "spec": ranges})
        yield api


@contextmanager
def made(
    access: Callable[[], Access],
    *,
    table: type[NftTable] = NftTable,
    interval_s: float = 60.0,
    **settings: Any,
) -> Iterator[Services]:
    """Services of the namespace that this thread is in; *settings* as an operator's."""
    with Elements() as four, Elements() as six, Conntrack() as conntrack:
        tables = {
            version: table(skeleton(version), NftRunner(), elements)
            for version, elements in ((4, four), (6, six))
        }
        seams = Seams(
            name="here",
            node=lambda: KnownNode(uid="u", addresses=tuple(NODE.values())),
            pools=lambda: VIEW.pods,
            make=lambda view: Reconciler(tables, view, conntrack),
            leaving=lambda: False,
            clock=time.monotonic,
            random=Random(),
            conntrack=conntrack,
            ports=(four.port, six.port),
            interval_s=interval_s,
        )
        services = Services(
            Settings(healthz_address="127.0.0.1:10256", **settings), Client(access), seams
        )
        Monitor(services.drifted, services.is_news, ours=services.ports).start()
        yield services


@asynccontextmanager
async def serving(here: Site, api: FakeAPI, **options: Any) -> AsyncIterator[Running]:
    with made(api.access, **options) as services:
        task = asyncio.ensure_future(services.run())
        try:
            await until(lambda: not services.unhealthy())
            yield Running(here, api, services)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def run(here: Site, play: Callable[[Running], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        async with api_server() as api, serving(here, api, **options) as running:
            await play(running)

    asyncio.run(main())


class Telling(NftTable):
    """Says that it begins to look at a table, and of each change of elements that it is done."""

    def observe(self) -> frozenset[Element] | None:
        os.write(1, b".")
        return super().observe()

    def apply(self, **changes: Any) -> None:
        super().apply(**changes)
        os.write(1, b".")


class Worker:
    """Services in a process of its own."""

    def __init__(self, here: Site, port: int) -> None:
        argv = ["ip", "netns", "exec", here.node.name, sys.executable,
                "-m", "tests.kernel.service_running", str(port)]  # fmt: skip
        self._process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._said = self._process.stdout

    async def steps(self, count: int) -> None:
        """Until it was at the tables so many times more."""
        async with asyncio.timeout(60):
            for _ in range(count):
                assert await asyncio.to_thread(os.read, self._said.fileno(), 1)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._said.close()


@asynccontextmanager
async def a_service() -> AsyncIterator[FakeAPI]:
    """An API server with one Service, whose endpoint is p1."""
    async with api_server() as api:
        put(api, service("web", WEB_IP), slice_("web", P1))
        yield api


def main(port: int) -> None:
    access = Access(server=f"http://127.0.0.1:{port}")
    with made(lambda: access, table=Telling, metrics_address="") as services:
        asyncio.run(services.run())


if __name__ == "__main__":
    main(int(sys.argv[1]))
