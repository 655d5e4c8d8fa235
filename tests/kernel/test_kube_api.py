"""A real API server does what the fake one does, and vouches for the tokens of pods."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from cli.manifest_access import AGENT, IPAMD, access
from cli.places import CONF
from kube import nodes, services
from kube.access import Material
from kube.client import Client
from kube.errors import Conflict, Denied
from kube.events import About, Recorder, Told
from kube.objects import ASSIGNED, Condition, Node, Object
from kube.reflector import Reflector, Selection
from kube.tokens import Bearer, NotAuthenticated, review
from tests.kernel import kube_server
from tests.kernel.agents import ROOT
from tests.kernel.kube_server import AUDIENCE, GUEST, Server, make, pod_token
from tests.kube_contract import CONTRACT, NAMESPACES, NODES, Site

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with kube_server.running(tmp_path_factory.mktemp("kube")) as server:
        yield server


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_a_real_server_keeps_the_contract(
    server: Server, clause: Callable[[Site], Awaitable[None]]
) -> None:
    async def check() -> None:
        clients = [server.client(), server.client("nobody's"), server.client(GUEST)]
        try:
            await clause(Site(client=clients[0], stranger=clients[1], guest=clients[2]))
        finally:
            for client in clients:
                client.close()

    asyncio.run(check())


def test_a_pods_token_names_its_node(server: Server) -> None:
    async def scene(client: Client) -> None:
        token = await pod_token(client, "n1")
        node = await client.get(f"{NODES}/n1", Node)

        assert await review(client, token, AUDIENCE) == Bearer(
            account="isthmus/agent", node="n1", node_uid=node.metadata.uid
        )

    server.ask(scene)


def test_tokens_that_are_for_others_or_forged_are_refused(server: Server) -> None:
    async def scene(client: Client) -> None:
        other = await pod_token(client, "n2", audience="somebody-else")
        good = await pod_token(client, "n2")
        old = kube_server.expired(server, good)
        for token in (other, old, good[:-4] + "AAAA", kube_server.ADMIN, "nonsense"):
            with pytest.raises(NotAuthenticated):
                await review(client, token, AUDIENCE)

    server.ask(scene)


def test_a_token_that_has_expired_is_told_and_the_next_one_goes_on(
    server: Server, tmp_path: Path
) -> None:
    async def scene(client: Client) -> None:
        good = await pod_token(client, "n4", audience=kube_server.ISSUER)
        file = tmp_path / "token"
        file.write_text(kube_server.expired(server, good))
        access = replace(server.access(""), token=Material(file))
        following = Client(lambda: access)
        reflector = Reflector(
            following,
            Selection(path=NAMESPACES, kind=Object, keep=lambda one: one.metadata.name),
            random=Random(1),
        )
        running = asyncio.create_task(reflector.run())
        try:
            async with asyncio.timeout(30):
                while not reflector.trouble:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                told = reflector.trouble
                # As the kubelet does; this account may list nothing, and is known for that.
                file.write_text(good)
                while "forbidden" not in reflector.trouble:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            following.close()

        assert "Unauthorized" in told
        assert "system:serviceaccount:isthmus:agent" in reflector.trouble

    server.ask(scene)


def test_the_token_of_a_pod_that_is_gone_is_refused(server: Server) -> None:
    async def scene(client: Client) -> None:
        token = await pod_token(client, "n3")
        pods = f"{NAMESPACES}/isthmus/pods"
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": "agent-n3"},
            "deleteOptions": {"gracePeriodSeconds": 0},
        }
        await client.create(f"{pods}/agent-n3/eviction", body, dict)
        with pytest.raises(NotAuthenticated):
            await review(client, token, AUDIENCE)

    server.ask(scene)


def test_a_node_is_told_its_cidrs_its_condition_and_loses_one_taint(server: Server) -> None:
    async def scene(client: Client) -> None:
        await make(client, NODES, metadata={"name": "told"})
        taints = [
            {"key": "node.isthmus.dev/agent-not-ready", "effect": "NoSchedule"},
            {"key": "other", "value": "x", "effect": "NoExecute"},
        ]
        node = await client.patch(f"{NODES}/told", {"spec": {"taints": taints}}, Node)
        node = await nodes.set_pod_cidrs(client, node, ["10.7.0.0/24", "fd07::/112"])
        at = datetime(2026, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        wanted = Condition(type="NetworkUnavailable", status="False", reason="R", message="M")
        node = await nodes.set_condition(client, node, wanted, at=at)
        node = await nodes.remove_taint(client, node, "node.isthmus.dev/agent-not-ready")

        assert node.spec.pod_cidrs == ("10.7.0.0/24", "fd07::/112")
        assert nodes.find_condition(node, "NetworkUnavailable") == wanted
        assert [(taint.key, taint.value) for taint in node.spec.taints or ()] == [("other", "x")]

    server.ask(scene)


def test_events_are_written_and_counted(server: Server) -> None:
    async def scene(client: Client) -> None:
        await make(client, NAMESPACES, metadata={"name": "isthmus"})
        now = [0.0]
        recorder = Recorder(client, host="n1", clock=lambda: now[0])
        told = Told(
            about=About(kind="Pod", name="web", namespace="isthmus", uid="u"),
            reason="NoFreeAddress",
            message="no free address",
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(recorder.run())
            await asyncio.sleep(0)
            recorder.tell(told)
            path = f"{NAMESPACES}/isthmus/events"
            found: list[Any] = []

            async def look() -> list[Any]:
                return list((await client.get(path, dict))["items"])

            async with asyncio.timeout(20):
                while not (found := await look()):
                    pass
                now[0] += 60
                recorder.tell(told)
                while (found := await look())[0]["count"] < 2:
                    pass
            running.cancel()

        assert len(found) == 1
        assert found[0]["reason"] == "NoFreeAddress"

    server.ask(scene)


_PLACES = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ValidatingAdmissionPolicy": (
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    ),
    "ValidatingAdmissionPolicyBinding": (
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
    ),
}


def test_an_agent_changes_the_node_that_it_runs_on_and_no_other(server: Server) -> None:
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    serves = Condition(type="NetworkUnavailable", status="False", reason="Test", message="")

    async def change(agent: Client, name: str) -> None:
        node = await agent.get(f"{NODES}/{name}", Node)
        node = await nodes.set_condition(agent, node, serves, at=at)
        await nodes.remove_taint(agent, node, "there-is-none")

    async def scene(client: Client) -> None:
        for one in access():
            place = _PLACES[one["kind"]].format(**one["metadata"])
            await make(client, place, **one)
        token = await pod_token(client, "own", audience=kube_server.ISSUER, account=AGENT)
        await make(client, NODES, metadata={"name": "other"})
        agent = server.client(token)
        try:
            async with asyncio.timeout(30):  # until the server has compiled the policy
                while True:
                    try:
                        await change(agent, "other")
                    except Denied as exc:
                        refused = str(exc)
                        break
            await change(agent, "own")
        finally:
            agent.close()
        await change(client, "other")  # others are no matter of the policy

        assert "an agent changes the Node that it runs on, and no other" in refused

    server.ask(scene)


def test_a_service_is_told_its_addresses_by_the_rights_of_ipamd(server: Server) -> None:
    async def scene(client: Client) -> None:
        for one in access():
            await make(client, _PLACES[one["kind"]].format(**one["metadata"]), **one)
        place = f"{NAMESPACES}/isthmus/services"
        spec = {
            "type": "LoadBalancer",
            "loadBalancerClass": "isthmus.dev/lb",
            "loadBalancerIP": "192.0.2.1",
            "ports": [{"port": 80}],
        }
        await make(client, place, metadata={"name": "web"}, spec=spec)
        ipamd = server.client(
            await pod_token(client, "n5", audience=kube_server.ISSUER, account=IPAMD)
        )
        good = Condition(type=ASSIGNED, status="True", reason="Assigned", message="m")
        try:
            found = await services.get(ipamd, "isthmus", "web")
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            await services.show_addresses(ipamd, found, ["192.0.2.1", "fd00::1"], good, at=at)
            with pytest.raises(Conflict):
                await services.show_addresses(ipamd, found, [], good, at=at)
            shown = await services.get(ipamd, "isthmus", "web")
            change = {"type": "NodePort", "loadBalancerClass": None}
            await client.patch(f"{place}/web", {"spec": change}, Object)
            changed = await services.get(ipamd, "isthmus", "web")
            bad = Condition(type=ASSIGNED, status="False", reason="NotOurs", message="given back")
            await services.show_addresses(ipamd, changed, [], bad, at=at)
            last = await services.get(ipamd, "isthmus", "web")
        finally:
            ipamd.close()

        assert found.spec.load_balancer_class == "isthmus.dev/lb"
        assert found.spec.ip_families == ("IPv4",)
        assert (shown.shown, shown.is_virtual) == (("192.0.2.1", "fd00::1"), True)
        assert services.find_condition(shown) == good
        assert (last.shown, services.find_condition(last)) == ((), bad)

    server.ask(scene)


def test_kustomize_makes_the_manifest_of_the_base() -> None:
    kubectl = ROOT / "build/peers/bin/kubectl"
    made = subprocess.run(
        [kubectl, "kustomize", CONF], check=True, capture_output=True, text=True, timeout=60
    ).stdout

    def named(text: str) -> dict[str, Any]:
        return {f"{o['kind']} {o['metadata']['name']}": o for o in yaml.safe_load_all(text)}

    assert named(made) == named((CONF / "isthmus.yaml").read_text())
