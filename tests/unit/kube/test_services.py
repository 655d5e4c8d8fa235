import asyncio
from typing import Any

import pytest

from kube import services
from kube.client import Client
from kube.errors import Conflict, NotFound
from kube.objects import ASSIGNED, Condition
from kube.services import find_condition
from tests.kube_api import SERVICES, FakeAPI

GIVEN = Condition(type=ASSIGNED, status="True", reason="Assigned", message="m")
WEB: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "type": "LoadBalancer",
        "loadBalancerIP": "192.0.2.1",
        "ipFamilies": ["IPv4"],
        "externalTrafficPolicy": "Local",
    },
    "status": {
        "loadBalancer": {"ingress": [{"hostname": "old.example"}]},
        "conditions": [{"type": "other", "status": "True"}],
    },
}


def with_client(scene: Any) -> None:
    async def play() -> None:
        async with FakeAPI() as api:
            api.put(SERVICES, WEB)
            client = Client(api.access)
            try:
                await scene(api, client)
            finally:
                client.close()

    asyncio.run(play())


def test_addresses_and_condition_are_put_and_what_others_say_stays() -> None:
    async def scene(api: FakeAPI, client: Client) -> None:
        found = await services.get(client, "shop", "web")
        assert (found.spec.load_balancer_ip, found.spec.external_policy) == ("192.0.2.1", "Local")
        assert not found.is_virtual

        await services.show_addresses(client, found, ["192.0.2.1", "2001:db8::1"], GIVEN, at="now")

        status = api.objects[SERVICES]["shop/web"]["status"]
        assert status["loadBalancer"]["ingress"] == [
            {"ip": "192.0.2.1", "ipMode": "VIP"},
            {"ip": "2001:db8::1", "ipMode": "VIP"},
        ]
        assert [one["type"] for one in status["conditions"]] == ["other", ASSIGNED]
        assert status["conditions"][1]["lastTransitionTime"] == "now"
        again = await services.get(client, "shop", "web")
        assert (again.shown, again.is_virtual) == (("192.0.2.1", "2001:db8::1"), True)
        assert find_condition(again) == GIVEN

    with_client(scene)


def test_the_time_of_a_condition_changes_with_its_status_alone() -> None:
    async def scene(api: FakeAPI, client: Client) -> None:
        for at, status in (("1", "True"), ("2", "True"), ("3", "False")):
            found = await services.get(client, "shop", "web")
            condition = Condition(type=ASSIGNED, status=status, reason="R", message=at)
            await services.show_addresses(client, found, [], condition, at=at)
            (said,) = api.objects[SERVICES]["shop/web"]["status"]["conditions"][1:]
            assert said["lastTransitionTime"] == {"1": "1", "2": "1", "3": "3"}[at]

    with_client(scene)


def test_a_service_that_was_changed_meanwhile_is_not_written_over() -> None:
    async def scene(api: FakeAPI, client: Client) -> None:
        found = await services.get(client, "shop", "web")
        api.put(SERVICES, WEB)
        with pytest.raises(Conflict):
            await services.show_addresses(client, found, [], GIVEN, at="now")
        with pytest.raises(NotFound):
            await services.get(client, "shop", "other")

    with_client(scene)
