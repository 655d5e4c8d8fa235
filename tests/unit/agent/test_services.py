"""When Services are programmed, and what is told of it; packets are in tests/kernel."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

from agent.known import KnownNode
from agent.services import Seams, Services
from dataplane.errors import DataplaneError, NetlinkError, NftError
from kube.client import Client
from proxy.model import NodeView, ServiceName
from proxy.reconciler import Reconciler, Wanted
from proxy.settings import Settings
from tests.kube_api import SERVICES, SLICES, FakeAPI, until
from tests.service_objects import service, slice_
from tests.unit.dataplane.nft.fake import FakeTable

WEB = ServiceName("shop", "web")


class Site:
    """Services over a fake API server and a table in memory."""

    def __init__(self, api: FakeAPI, table: FakeTable) -> None:
        self.api, self.table = api, table
        self.node = KnownNode(uid="u", addresses=("192.0.2.1",))
        self.views: list[NodeView] = []
        self.others: list[str] = []
        self.shut: list[str] = []
        self.unopened: DataplaneError | None = None
        settings = Settings(healthz_address="", metrics_address="", service_cidrs=())
        self.services = Services(
            settings,
            Client(api.access),
            Seams(
                name="here",
                node=lambda: self.node,
                pools=lambda: (),
                make=self.make,
                leaving=lambda: False,
                others=lambda: list(self.others),
                open_firewall=self.open_firewall,
                clock=time.monotonic,
                random=Random(1),
            ),
        )

    def make(self, view: NodeView) -> Reconciler:
        self.views.append(view)
        return Reconciler({4: self.table}, view)

    def open_firewall(self) -> list[str]:
        if self.unopened:
            raise self.unopened
        opened, self.shut = self.shut, []
        return opened

    def endpoints(self) -> list[str]:
        return sorted(
            str(each) for each in self.table.elements or () if each.of.name == "endpoints"
        )

    def put(self, *items: dict[str, Any]) -> None:
        for item in items:
            self.api.put(SLICES if "endpoints" in item else SERVICES, item)


@asynccontextmanager
async def running(api: FakeAPI, table: FakeTable) -> AsyncIterator[Site]:
    site = Site(api, table)
    task = asyncio.ensure_future(site.services.run())
    try:
        yield site
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def run(play: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with FakeAPI() as api, running(api, FakeTable()) as site:
            await play(site)

    asyncio.run(main())


def test_nothing_is_written_before_services_and_slices_are_known() -> None:
    async def main() -> None:
        away = [True]
        api = FakeAPI(trouble=lambda asked: 500 if away[0] and asked.path == SLICES else 0)
        async with api, running(api, FakeTable()) as at:
            at.put(service("web", "10.96.0.20"), slice_("web", "10.244.1.1"))
            await until(lambda: bool(at.services.trouble) and api.count("GET", SERVICES) > 0)
            assert at.table.elements is None
            assert at.services.unhealthy() == "Services are not programmed yet"
            away[0] = False
            await until(lambda: at.services.unhealthy() == "")

            assert len(at.endpoints()) == 2

    asyncio.run(main())


def test_a_change_that_the_kernel_refuses_is_tried_again() -> None:
    async def play(at: Site) -> None:
        await until(lambda: not at.services.unhealthy())
        refusal = NetlinkError(errno.ENFILE, "nftables transaction")
        at.table.failures = [refusal] * 2
        at.put(service("web", "10.96.0.20"), slice_("web", "10.244.1.1"))

        await until(lambda: len(at.endpoints()) == 2)
        await until(lambda: at.services.trouble == "")

    run(play)


def test_who_follows_is_told_of_each_service_as_it_is_and_when_it_goes() -> None:
    async def play(at: Site) -> None:
        told: dict[ServiceName, int | None] = {}

        def note(name: ServiceName, wanted: Wanted | None) -> None:
            told[name] = None if wanted is None else len(wanted.endpoints)

        at.services.follow(note)
        at.put(service("web", "10.96.0.20"), slice_("web", "10.244.1.1"))
        await until(lambda: told == {WEB: 2})
        at.api.delete(SERVICES, "shop/web")
        await until(lambda: told == {WEB: None})

    run(play)


def test_a_kube_proxy_beside_it_is_complained_of_until_it_is_gone() -> None:
    async def play(at: Site) -> None:
        at.others = ["nftables"]
        await until(lambda: not at.services.unhealthy())
        complaint = (
            "a kube-proxy (nftables) runs here, or left its rules: isthmus remove-kube-proxy"
        )
        assert complaint in at.services.problems()
        at.others = []
        at.services.drifted()

        await until(lambda: at.services.problems() == [])

    run(play)


def test_firewalls_of_others_are_opened_again_and_again_and_trouble_with_them_is_told() -> None:
    async def play(at: Site) -> None:
        at.shut = ["ip filter FORWARD"]
        await until(lambda: not at.services.unhealthy())
        await until(lambda: not at.shut)
        at.unopened = NftError("not of ours")
        at.services.drifted()
        complaint = "Services: firewalls of others are not opened: not of ours"
        await until(lambda: at.services.problems() == [complaint])
        at.unopened, at.shut = None, ["ip filter FORWARD"]
        at.services.drifted()

        await until(lambda: not at.shut and at.services.problems() == [])

    run(play)


def test_another_address_of_the_node_is_followed() -> None:
    async def play(at: Site) -> None:
        await until(lambda: not at.services.unhealthy())
        at.node = KnownNode(uid="u", addresses=("192.0.2.2", "192.0.2.3"))
        at.services.wake()

        await until(
            lambda: (
                [str(e) for e in at.table.elements or () if e.of.name == "node-addresses"]
                == ["node-addresses { 192.0.2.2 }"]
            )
        )

    run(play)


def test_what_drifted_is_mended_when_it_is_told() -> None:
    async def play(at: Site) -> None:
        at.put(service("web", "10.96.0.20"), slice_("web", "10.244.1.1"))
        await until(lambda: len(at.endpoints()) == 2)
        at.table.elements = None

        at.services.drifted()

        await until(lambda: len(at.endpoints()) == 2)

    run(play)


def test_services_of_another_proxy_and_headless_ones_are_not_even_asked_for() -> None:
    async def play(at: Site) -> None:
        await until(lambda: not at.services.unhealthy())
        lists = [each for each in at.api.asked if each.path in (SERVICES, SLICES)]

        assert {each.params["labelSelector"] for each in lists} == {
            "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
        }
        assert at.services.report("web") == []
        assert at.services.describe()["programmed"] is True
        assert at.services.problems() == []

    run(play)
