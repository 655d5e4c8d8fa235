import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ipam.cluster import Pool, Purpose
from ipam.kv import Batch
from ipam.load_balancers import Choice, Demand
from ipam.services import ServiceWatch
from ipam.view import View
from kube.client import Client
from kube.events import Told
from net.address import IPAddress
from tests.kube_api import SERVICES, Asked, FakeAPI, until
from tests.unit.ipam.ipamd_cases import KEYS, Site, site

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
POOL = Pool(
    name="lb", cidr=ip_network("192.0.2.0/31"), block_length=32, purpose=Purpose.LOAD_BALANCERS
)


def service(name: str, *shown: str, **spec: Any) -> dict[str, Any]:
    usual = {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]}
    ingress = [{"ip": one, "ipMode": "VIP"} for one in shown]
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {**usual, **spec},
        "status": {"loadBalancer": {"ingress": ingress}},
    }


class Assigning:
    """The real one; its replica is caught up before each call."""

    def __init__(self, cluster: Site) -> None:
        self.cluster = cluster

    def follow(self) -> None:
        for authority in self.cluster.replicas:
            replica = authority.replica
            events = self.cluster.store.events(KEYS.state, replica.view.revision)
            replica.take(Batch(events, self.cluster.store.revision))

    async def assign(self, demand: Demand, kept: Iterable[IPAddress]) -> Choice:
        self.follow()
        return await self.cluster.replicas[0].assigning.assign(demand, kept)

    async def release(self, service: str) -> None:
        self.follow()
        await self.cluster.replicas[0].assigning.release(service)


@dataclass
class Scene:
    api: FakeAPI
    assigning: Assigning
    watch: ServiceWatch
    told: list[Told] = field(default_factory=list)

    @property
    def view(self) -> View:
        return self.assigning.cluster.replicas[0].replica.view

    async def tick(self) -> None:
        """Once the copy is as the API has it."""
        wanted = str(self.api.revision)
        self.api.bookmark(SERVICES)
        await until(lambda: int(self.watch.reflector.revision or 0) > int(wanted))
        self.assigning.follow()
        await self.watch.tick()
        self.assigning.follow()

    def status(self, name: str) -> tuple[list[str], str, str]:
        """Addresses, and status and reason of our condition."""
        status = self.api.objects[SERVICES][f"shop/{name}"]["status"]
        said = (status.get("conditions") or [{"status": "", "reason": ""}])[0]
        shown = [one["ip"] for one in status["loadBalancer"]["ingress"]]
        return shown, said["status"], said["reason"]


def played(folder: Path, scene: Callable[[Scene], Awaitable[None]], *pools: Pool) -> None:
    with site(folder, 1) as cluster:
        cluster.begin(*(pools or (POOL,)))

        async def play() -> None:
            async with FakeAPI() as api, asyncio.TaskGroup() as tasks:
                client, told = Client(api.access), list[Told]()
                assigning = Assigning(cluster)
                replica = cluster.replicas[0].replica
                watch = ServiceWatch(
                    client,
                    assigning,
                    lambda: None if replica.frozen else replica.view,
                    tell=told.append,
                    random=Random(1),
                    now=lambda: NOON,
                )
                api.put(SERVICES, service("cluster-ip", type="ClusterIP"))
                running = tasks.create_task(watch.reflector.run())
                try:
                    await watch.reflector.synced.wait()
                    await scene(Scene(api, assigning, watch, told))
                finally:
                    running.cancel()
                    client.close()

        cluster.run(play())


def test_a_service_gets_an_address_in_its_status_and_an_event(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.api.put(SERVICES, service("web"))
        await s.tick()
        (address,), status, reason = s.status("web")
        await s.tick()

        assert ip_address(address) in POOL.cidr
        assert (status, reason) == ("True", "Assigned")
        assert [(one.about.name, one.reason, one.severity) for one in s.told] == [
            ("web", "Assigned", "Normal")
        ]
        assert s.api.count("PATCH") == 1

    played(tmp_path, scene)


def test_who_gets_none_is_told_once_and_gets_one_when_there_is_one(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        for name in ("a", "b", "c"):
            s.api.put(SERVICES, service(name))
        await s.tick()
        await s.tick()

        assert s.status("c") == ([], "False", "NoFreeAddress")
        assert [one.reason for one in s.told if one.about.name == "c"] == ["NoFreeAddress"]
        s.api.delete(SERVICES, "shop/a")
        await s.tick()
        await s.tick()
        assert s.status("c")[1:] == ("True", "Assigned")

    played(tmp_path, scene)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"loadBalancerIP": "203.0.113.1"}, "InvalidRequest"),
        ({"loadBalancerIP": "no"}, "InvalidRequest"),
        ({"ipFamilies": ["IPv6"]}, "NoFreeAddress"),
    ],
)
def test_a_wish_that_cannot_be_is_a_condition_with_its_reason(
    tmp_path: Path, spec: dict[str, Any], reason: str
) -> None:
    async def scene(s: Scene) -> None:
        s.api.put(SERVICES, service("web", **spec))
        await s.tick()

        assert s.status("web") == ([], "False", reason)

    played(tmp_path, scene)


def test_who_asks_for_what_another_has_loses_what_it_had(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.api.put(SERVICES, service("a"))
        s.api.put(SERVICES, service("b"))
        await s.tick()
        (of_a,), (of_b,) = s.status("a")[0], s.status("b")[0]
        s.api.put(SERVICES, service("b", of_b, loadBalancerIP=of_a))
        await s.tick()

        assert s.status("b") == ([], "False", "AddressInUse")
        assert set(s.view.services) == {"shop/a"}

    played(tmp_path, scene)


@pytest.mark.parametrize("spec", [{"type": "NodePort"}, {"loadBalancerClass": "example.com/lb"}])
def test_a_service_that_is_no_longer_ours_gives_its_address_back(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    async def scene(s: Scene) -> None:
        s.api.put(SERVICES, service("web"))
        await s.tick()
        found = s.api.objects[SERVICES]["shop/web"]
        s.api.put(SERVICES, {**found, "spec": {**found["spec"], **spec}})
        await s.tick()

        assert s.status("web") == ([], "False", "NotOurs")
        assert not s.view.services
        assert not s.view.addresses

    played(tmp_path, scene)


def test_a_service_that_is_gone_gives_its_address_back_once_the_api_confirms_it(
    tmp_path: Path,
) -> None:
    async def scene(s: Scene) -> None:
        s.api.put(SERVICES, service("web"))
        await s.tick()
        s.api.delete(SERVICES, "shop/web")
        s.api.trouble = lambda asked: 503 if asked.path.endswith("/services/web") else 0
        await s.tick()
        kept = set(s.view.services)
        s.api.trouble = lambda asked: 0
        await s.tick()

        assert kept == {"shop/web"}
        assert not s.view.services

    played(tmp_path, scene)


def test_anothers_services_are_left_alone(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        theirs = service("web", "203.0.113.9", loadBalancerClass="example.com/lb")
        s.api.put(SERVICES, theirs)
        await s.tick()

        assert s.status("web") == (["203.0.113.9"], "", "")
        assert s.api.count("PATCH") == 0

    played(tmp_path, scene)


def test_an_address_that_anothers_service_shows_is_not_given(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.api.put(SERVICES, service("theirs", "192.0.2.0", loadBalancerClass="example.com/lb"))
        for name in ("a", "b"):
            s.api.put(SERVICES, service(name))
        await s.tick()

        assert s.status("a")[0] == ["192.0.2.1"]
        assert s.status("b") == ([], "False", "NoFreeAddress")

    played(tmp_path, scene)


def test_without_pools_services_without_a_class_are_not_touched(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.api.put(SERVICES, service("plain"))
        s.api.put(SERVICES, service("ours", loadBalancerClass="isthmus.dev/lb"))
        await s.tick()

        assert s.status("plain") == ([], "", "")
        assert s.status("ours") == ([], "False", "NoFreeAddress")

    pods = replace(POOL, name="pods", cidr=ip_network("10.0.0.0/24"), block_length=26)
    played(tmp_path, scene, replace(pods, purpose=Purpose.PODS))


def test_a_store_that_forgot_gives_each_service_what_its_status_shows(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.api.put(SERVICES, service("a-new"))
        s.api.put(SERVICES, service("old", "192.0.2.1"))
        s.api.put(SERVICES, service("older", "192.0.2.0"))
        await s.tick()

        assert s.status("old")[0] == ["192.0.2.1"]
        assert s.status("older")[0] == ["192.0.2.0"]
        assert s.status("a-new") == ([], "False", "NoFreeAddress")

    played(tmp_path, scene)


def test_a_status_that_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        def forbidden(asked: Asked) -> bool:
            return asked.method == "PATCH"

        s.api.denied = forbidden
        s.api.put(SERVICES, service("web"))
        await s.tick()
        before = s.status("web")
        s.api.denied = lambda asked: False
        await s.tick()

        assert before == ([], "", "")
        assert s.status("web")[1:] == ("True", "Assigned")
        assert len(s.told) == 1

    played(tmp_path, scene)
