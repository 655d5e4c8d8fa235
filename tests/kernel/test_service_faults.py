"""What goes wrong around Services: the last good rules stay, and then all is as it shall be."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from queue import Queue
from random import Random

import pytest

from agent.monitor import Monitor, is_touched
from dataplane.nft.elements import Elements
from dataplane.nft.objects import Protocol, element
from proxy.model import Endpoint, Service, ServiceName, ServicePort
from proxy.reconciler import Wanted
from proxy.tables import CLASSES, MAPS, NUMBERS, TABLE
from tests.kernel.conftest import Namespace
from tests.kernel.service_running import (
    FAR,
    OTHER_IP,
    P1,
    WEB_IP,
    Running,
    Worker,
    a_service,
    put,
    run,
    serving,
)
from tests.kernel.service_site import OUTSIDE, PORT, Site, pod_address, site
from tests.kube_api import SERVICES, SLICES, FakeAPI, until
from tests.service_objects import service, slice_

pytestmark = pytest.mark.kernel

WEB = Service(
    name=ServiceName("shop", "web"),
    ports=(ServicePort(name="http", protocol=Protocol.TCP, port=80),),
    cluster_ips=(ip_address(WEB_IP),),
)


@pytest.fixture
def here(namespaces: Callable[[str], Namespace]) -> Iterator[Site]:
    with site(namespaces) as made:
        made.node.run("ip", "link", "set", "lo", "up")
        yield made


def crowd(count: int) -> tuple[Endpoint, ...]:
    """So many endpoints, of which nobody answers but the first."""
    addresses = [ip_address(pod_address("p1", 4))]
    addresses += [ip_address("10.244.64.0") + number for number in range(1, count)]
    return tuple(Endpoint(address=each, port=PORT, node="there") for each in addresses)


def test_a_service_with_ten_thousand_endpoints_is_as_any_other(here: Site) -> None:
    everyone, port = crowd(10_000), ("http", Protocol.TCP)
    here.put(WEB, {port: everyone})
    whole = here.reconciler.repair()
    for members in (everyone[:-1], everyone, everyone[:1]):
        here.put(WEB, {port: members})
    left = here.reconciler.repair()

    assert (whole, left) == (0, 0)
    assert here.answers(here.pods["p2"], WEB_IP, 80, 3) == {"p1": 3}


def test_more_endpoints_than_a_frontend_takes_are_told_of_and_left_out(here: Site) -> None:
    here.put(WEB, {("http", Protocol.TCP): crowd(CLASSES[-1] + 10)})

    planned = here.reconciler.planned(WEB.name)
    assert planned is not None
    assert planned.overfull == ("shop/web tcp 80: 16394 endpoints, of which 16384 are used",)
    assert here.reconciler.repair() == 0


def in_the_way(here: Site) -> None:
    """An entry of somebody's own where the Service's would be, that the kernel does not replace."""
    key, data = (ip_address(WEB_IP), Protocol.TCP, 80), (NUMBERS["discard"],)
    with Elements() as elements:  # the fixture's thread is in the node's namespace
        elements.apply(add=[element(MAPS[4].services, key, data)])


def test_what_the_kernel_refuses_of_one_service_is_told_and_holds_up_no_other(here: Site) -> None:
    in_the_way(here)
    other = replace(WEB, name=ServiceName("shop", "other"), cluster_ips=(ip_address(OTHER_IP),))
    both = {each.name: (each, {("http", Protocol.TCP): crowd(1)}) for each in (WEB, other)}

    here.reconciler.change({name: Wanted(*each) for name, each in both.items()})

    assert set(here.reconciler.refused) == {WEB.name}
    assert here.answers(here.pods["p2"], OTHER_IP, 80) == {"p1": 1}
    assert here.reconciler.repair() > 0
    assert here.reconciler.refused == {}
    assert here.answers(here.pods["p2"], WEB_IP, 80) == {"p1": 1}


def test_an_agent_comes_round_to_a_service_that_was_refused(here: Site) -> None:
    async def play(at: Running) -> None:
        in_the_way(here)
        at.put(service("web", WEB_IP), slice_("web", P1))
        at.put(service("other", OTHER_IP), slice_("other", P1))

        await at.until_answered({"p1"}, OTHER_IP)
        await at.until_answered({"p1"}, WEB_IP)
        await until(lambda: at.services.trouble == "")

    run(here, play)


@pytest.mark.parametrize(
    "hand",
    [
        "delete table ip isthmus-services",
        "flush table ip isthmus-services",
        "flush chain ip isthmus-services services",
        "flush map ip isthmus-services services",
        "delete element ip isthmus-services cluster-ips { 10.96.0.20 }",
        "flush ruleset",
    ],
)
def test_what_somebody_flushes_is_mended_on_notice(here: Site, hand: str) -> None:
    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP), slice_("web", P1))
        await at.until_answered({"p1"}, WEB_IP)

        here.node.run("nft", hand)

        await at.until_answered({"p1"}, WEB_IP)

    run(here, play, interval_s=3600)  # which nobody waits for


def test_what_somebody_adds_goes_on_notice(here: Site) -> None:
    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP), slice_("web", P1))
        await at.until_answered({"p1"}, WEB_IP)
        at.put(service("other", OTHER_IP), slice_("other", P1))
        await at.until_answered({"p1"}, OTHER_IP)
        address = f"{{ {OUTSIDE[4]} }}"

        here.node.run("nft", "add", "element", "ip", "isthmus-services", "cluster-ips", address)

        await until(lambda: OUTSIDE[4] not in here.node.run(
            "nft", "list", "set", "ip", "isthmus-services", "cluster-ips"))  # fmt: skip

    run(here, play, interval_s=3600)


def test_changes_of_our_own_are_no_news(here: Site) -> None:
    one = element(MAPS[4].cluster_ips, (ip_address(WEB_IP),))
    news: Queue[None] = Queue()
    with Elements() as ours, Elements() as others:
        Monitor(
            lambda: news.put(None),
            lambda kind, payload: is_touched(kind, payload, TABLE),
            ours=[ours.port],
        ).start()
        ours.apply(add=[one])
        ours.apply(delete=[one])
        others.apply(add=[one])
        news.get(timeout=20)

        assert news.empty()


def test_what_nobody_was_told_of_is_mended_at_the_interval(here: Site) -> None:
    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP), slice_("web", P1))
        await at.until_answered({"p1"}, WEB_IP)
        at.services.is_news = lambda kind, payload: False  # type: ignore[method-assign]

        here.node.run("nft", "flush", "map", "ip", "isthmus-services", "services")

        await at.until_answered({"p1"}, WEB_IP)

    run(here, play, interval_s=0.5)


@pytest.mark.parametrize("circle", [WEB_IP, OTHER_IP, "10.96.7.7"])
def test_an_endpoint_that_is_an_address_of_services_leads_nobody_in_a_circle(
    here: Site, circle: str
) -> None:
    async def play(at: Running) -> None:
        at.put(service("other", OTHER_IP), slice_("other", P1))
        at.put(service("web", WEB_IP), slice_("web", circle))
        await at.until_answered({"p1"}, OTHER_IP)

        await at.until_answered({"ConnectionRefusedError"}, WEB_IP)
        assert at.services.problems() == [
            f"Service shop/web: endpoint {circle}: is an address of Services"
        ]
        at.put(slice_("web", circle, P1))
        await at.until_answered({"p1"}, WEB_IP)

    run(here, play)


def test_while_the_api_server_is_away_the_last_rules_stay_and_then_all_is_made_up_for(
    here: Site,
) -> None:
    async def play(at: Running) -> None:
        at.put(service("web", WEB_IP), slice_("web", P1))
        at.put(service("other", OTHER_IP), slice_("other", P1))
        await at.until_answered({"p1"}, WEB_IP)
        await at.until_answered({"p1"}, OTHER_IP)
        at.api.trouble = lambda asked: 500
        at.api.cut()
        await until(lambda: "trouble on demand" in at.services.trouble)
        at.put(slice_("web", FAR))
        at.api.delete(SERVICES, "shop/other")
        at.api.delete(SLICES, "shop/other-a")
        assert set(await at.answers(WEB_IP, 80, 6)) == {"p1"}
        assert set(await at.answers(OTHER_IP, 80, 6)) == {"p1"}

        # Neither can the watch go on from where it was.
        at.api.forget()
        at.api.trouble = lambda asked: 0

        await at.until_answered({"far"}, WEB_IP)
        await at.until_answered({"TimeoutError"}, OTHER_IP)

    run(here, play)


def test_a_kill_in_the_middle_of_changes_leaves_good_rules_and_the_next_life_goes_on(
    here: Site,
) -> None:
    random = Random(7)

    def churn(api: FakeAPI) -> None:
        """Some thousand elements that come and go."""
        for number in range(20):
            some = random.sample(range(1, 251), random.choice([0, 1, 40, 240]))
            pods = [f"10.244.{64 + number}.{each}" for each in some]
            name = f"many-{number}"
            put(api, service(name, f"10.96.1.{number + 1}"), slice_(name, *pods))

    async def main() -> None:
        async with a_service() as api:
            for _ in range(6):
                worker = Worker(here, api.port)
                try:
                    await worker.steps(1)
                    churn(api)
                    await worker.steps(random.randint(1, 4))
                finally:
                    worker.kill()
                answered = await asyncio.to_thread(here.answers, here.pods["p2"], WEB_IP, 80, 10)
                assert answered == {"p1": 10}
            async with serving(here, api) as at:
                at.put(slice_("many-3", FAR))
                await at.until_answered({"far"}, "10.96.1.4")
                assert [row["name"] for row in at.services.report() if row["differing"]] == []
                assert at.services.problems() == []

    asyncio.run(main())
