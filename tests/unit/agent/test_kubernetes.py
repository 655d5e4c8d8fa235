"""The agent's part in Kubernetes, over a real connection to a server of a few resources."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from agent.config import KubernetesConfig
from agent.kubernetes import Kubernetes, Surroundings, Where, where
from agent.own_node import NOT_READY
from cni.args import Pod
from cni.errors import CNIError
from cni.request import Request, Response
from cni.wishes import POOL
from ipam.cluster import NODE_UID
from ipam.errors import NotServed
from ipam.holdings import OwnBlock
from kube import objects
from kube.client import Client
from tests.kube_api import NAMESPACES, NODES, PODS, FakeAPI, until

EVENTS = "/api/v1/events"
OWN_SLICES = "/apis/discovery.k8s.io/v1/namespaces/isthmus/endpointslices"
NODE = {
    "metadata": {"name": "a", "uid": "u-1", "labels": {"zone": "east"}},
    "spec": {"taints": [{"key": NOT_READY, "effect": "NoSchedule"}]},
    "status": {
        "addresses": [
            {"type": "Hostname", "address": "a"},
            {"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "InternalIP", "address": "2001:db8::1"},
        ]
    },
}
WEB = Pod(namespace="shop", name="web", uid="p-1")
BLOCK = OwnBlock(cidr=ip_network("10.1.0.0/24"), pool="p", epoch=1, revision=1)


def pod(name: str, uid: str, node: str = "a", **annotations: str) -> dict[str, Any]:
    meta = {"namespace": "shop", "name": name, "uid": uid, "annotations": annotations}
    return {"metadata": meta, "spec": {"nodeName": node}}


@dataclass
class Site:
    api: FakeAPI
    directory: Path
    unready: str = ""
    blocks: tuple[OwnBlock, ...] = (BLOCK,)
    changes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kubernetes = self.begin()

    def begin(self, service: str = "isthmus/ipamd") -> Kubernetes:
        return Kubernetes(
            KubernetesConfig(node="a", service=service),
            Client(self.api.access),
            self.directory / "said.json",
            Surroundings(
                unready=lambda: self.unready,
                blocks=lambda: self.blocks,
                changed=lambda: self.changes.append(self.kubernetes.node.uid),
                clock=lambda: 0.0,
                random=Random(1),
                now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            ),
        )

    def own(self) -> dict[str, Any]:
        return self.api.objects[NODES]["a"]

    async def synced(self) -> None:
        await until(lambda: all(one.synced.is_set() for one in self.kubernetes._reflectors()))


def played(directory: Path, scene: Callable[[Site], Awaitable[None]], *, run: bool = True) -> None:
    async def play() -> None:
        async with FakeAPI() as api, asyncio.TaskGroup() as tasks:
            api.objects[OWN_SLICES] = {}
            api.put(NODES, NODE)
            api.put(NAMESPACES, {"metadata": {"name": "shop", "annotations": {"other": "x"}}})
            site = Site(api, directory)
            running = tasks.create_task(site.kubernetes.run()) if run else None
            try:
                await scene(site)
            finally:
                if running:
                    running.cancel()

    asyncio.run(play())


def test_the_node_is_told_its_cidrs_that_it_serves_and_loses_its_taint(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        await until(lambda: not at.own()["spec"].get("taints"))

        assert at.own()["spec"]["podCIDRs"] == ["10.1.0.0/24"]
        (condition,) = at.own()["status"]["conditions"]
        assert (condition["type"], condition["status"]) == ("NetworkUnavailable", "False")
        await until(lambda: bool(at.kubernetes.pod_cidrs()))
        assert at.kubernetes.pod_cidrs() == {ip_network("10.1.0.0/24")}
        writes = at.api.count("PATCH")
        at.api.put(NODES, {**at.own(), "status": {**at.own()["status"], "images": []}})
        await asyncio.sleep(0.05)
        assert at.api.count("PATCH") == writes

    played(tmp_path, scene)


def test_a_node_that_cannot_serve_keeps_its_taint_and_says_why(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        at.unready, at.blocks = "ipamd was never reached", ()
        await until(lambda: "conditions" in at.own()["status"])

        (condition,) = at.own()["status"]["conditions"]
        assert (condition["status"], condition["message"]) == ("True", "ipamd was never reached")
        assert at.own()["spec"]["taints"]
        assert "podCIDRs" not in at.own()["spec"]

    played(tmp_path, scene)


def test_ipamd_is_told_of_the_node_as_kubernetes_has_it(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        with pytest.raises(NotServed, match="Node a is not known yet"):
            at.kubernetes.labels()
        await until(lambda: bool(at.kubernetes.node.uid))

        assert at.kubernetes.labels() == {"zone": "east", NODE_UID: "u-1"}
        assert at.kubernetes.addresses() == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
        await until(lambda: not at.own()["spec"].get("taints"))
        at.api.put(NODES, {**at.own(), "metadata": {"name": "a", "uid": "u-1", "labels": {}}})
        await until(lambda: at.kubernetes.labels() == {NODE_UID: "u-1"})
        await until(lambda: bool(at.changes))
        at.api.delete(NODES, "a")
        await until(lambda: not at.kubernetes.node.uid)
        assert at.kubernetes.labels() == {NODE_UID: "u-1"}
        assert at.kubernetes.pod_cidrs() == frozenset()

    played(tmp_path, scene)


def test_a_node_that_never_was_is_waited_for(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        at.api.delete(NODES, "a")
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(at.kubernetes.run())
            await until(at.kubernetes._node.synced.is_set)
            with pytest.raises(NotServed, match="Kubernetes has no Node a"):
                at.kubernetes.labels()
            running.cancel()

    played(tmp_path, scene, run=False)


def test_annotations_of_own_pods_and_namespaces_reach_a_verbs_thread(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        at.api.put(PODS, pod("web", "p-1", **{POOL: "blue"}))
        at.api.put(PODS, pod("far", "p-2", node="b"))
        await until(lambda: "shop/web" in at.kubernetes._pods.objects)
        await until(lambda: "shop" in at.kubernetes._namespaces.objects)

        wishes = await asyncio.to_thread(at.kubernetes.pods.wishes, WEB, within_s=1.0)

        assert wishes.pools == ("blue",)
        assert at.api.count("GET", f"{NAMESPACES}/shop") == 0
        assert set(at.kubernetes._pods.objects) == {"shop/web"}

    played(tmp_path, scene)


def test_a_pod_that_the_watch_has_not_brought_is_asked_for(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        await at.synced()
        # As if it were in time to be asked for, and too late to be heard of.
        at.api.objects.setdefault(PODS, {})["shop/web"] = pod("web", "p-1", **{POOL: "blue"})

        wishes = await asyncio.to_thread(at.kubernetes.pods.wishes, WEB, within_s=1.0)
        nobody = Pod(namespace="shop", name="nobody", uid="p-9")
        none = await asyncio.to_thread(at.kubernetes.pods.wishes, nobody, within_s=1.0)

        assert wishes.pools == ("blue",)
        assert none.pools == ()

    played(tmp_path, scene)


def test_a_start_without_the_server_has_what_was_said_last(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        at.api.put(PODS, pod("web", "p-1", **{POOL: "blue"}))
        at.api.put(OWN_SLICES, slice_("192.0.2.7"))
        await at.synced()
        await until(lambda: bool(at.kubernetes.pod_cidrs()) and bool(at.kubernetes.endpoints()))
        await until(lambda: "shop/web" in at.kubernetes._pods.objects)
        at.kubernetes.keep()
        await at.api.stop()
        async with asyncio.TaskGroup() as tasks:
            again = at.begin()
            running = tasks.create_task(again.run())
            await asyncio.sleep(0)
            wishes = await asyncio.to_thread(again.pods.wishes, WEB, within_s=0.2)
            later = Pod(namespace="shop", name="later", uid="p-9")
            with pytest.raises(CNIError, match="what pod shop/later asks for") as caught:
                await asyncio.to_thread(again.pods.wishes, later, within_s=0.2)
            running.cancel()
        await at.api.start()

        assert wishes.pools == ("blue",)
        assert caught.value.code == 11
        assert again.labels() == {"zone": "east", NODE_UID: "u-1"}
        assert again.endpoints() == ("192.0.2.7:9476",)
        assert again.enroll_endpoints() == ("192.0.2.7:9475",)
        assert again.pod_cidrs() == {ip_network("10.1.0.0/24")}

    played(tmp_path, scene)


def test_before_it_runs_and_after_nobody_is_asked(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        with pytest.raises(CNIError, match="the agent ends, or has just begun"):
            await asyncio.to_thread(at.kubernetes.pods.wishes, WEB, within_s=1.0)

    played(tmp_path, scene, run=False)


def slice_(*addresses: str, ready: bool | None = None, name: str = "s") -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "isthmus",
            "name": name,
            "labels": {"kubernetes.io/service-name": "ipamd"},
        },
        "endpoints": [{"addresses": [one], "conditions": {"ready": ready}} for one in addresses],
        "ports": [{"name": "ipamd", "port": 9476}, {"name": "enroll", "port": 9475}],
    }


def test_ipamd_is_where_its_slices_say(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        at.api.put(OWN_SLICES, slice_("192.0.2.8", "192.0.2.7"))
        at.api.put(OWN_SLICES, slice_("2001:db8::7", name="s6"))
        await until(lambda: len(at.kubernetes.endpoints()) == 3)

        assert sorted(at.kubernetes.endpoints()) == [
            "192.0.2.7:9476",
            "192.0.2.8:9476",
            "[2001:db8::7]:9476",
        ]

    played(tmp_path, scene)


def test_an_endpoint_that_is_not_ready_is_left_out_and_a_port_may_be_missing() -> None:
    def of(document: dict[str, Any]) -> Where:
        return where(msgspec.convert(document, objects.EndpointSlice))

    assert of(slice_("192.0.2.7", ready=False)) == Where()
    assert of({**slice_("192.0.2.7"), "ports": None}) == Where((), ())


def test_an_add_that_fails_is_an_event_on_its_pod(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        await at.synced()
        args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=p-1"
        request = Request(
            program="isthmus",
            environment={"CNI_COMMAND": "ADD", "CNI_ARGS": args},
            stdin=b"",
            started_ns=0,
            boot_id="b",
        )
        refusal = b'{"code": 100, "msg": "no free address in 10.1.0.0/24"}'
        await asyncio.to_thread(at.kubernetes.served, request, Response(1, refusal))
        await until(lambda: bool(at.api.objects.get(EVENTS)))

        (event,) = at.api.objects[EVENTS].values()
        assert (event["reason"], event["involvedObject"]["name"]) == ("NoFreeAddress", "web")

    played(tmp_path, scene)


def test_what_it_may_not_do_is_among_the_problems(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        at.api.denied = lambda asked: asked.method == "PATCH" or asked.path == PODS
        await until(lambda: len(at.kubernetes.problems()) == 2)

        assert all(line.startswith("Kubernetes: ") for line in at.kubernetes.problems())
        assert "cannot GET /api/v1/pods" in "".join(at.kubernetes.problems())
        assert at.kubernetes.describe()["trouble"]

    played(tmp_path, scene)


def test_a_disk_that_is_full_costs_the_memory_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(at: Site) -> None:
        at.kubernetes = at.begin(service="")
        at.kubernetes._file = tmp_path / "none" / "said.json"
        at.kubernetes._is_kept = False
        for one in at.kubernetes._reflectors():
            one.synced.set()
        at.kubernetes.keep()

        assert "is not kept" in caplog.text
        assert not at.kubernetes._is_kept

    played(tmp_path, scene, run=False)


def test_an_unknown_annotation_is_an_event_on_its_pod(tmp_path: Path) -> None:
    async def scene(at: Site) -> None:
        at.api.put(PODS, pod("web", "p-1", **{"isthmus.dev/pol": "x"}))
        await at.synced()
        await until(lambda: "shop/web" in at.kubernetes._pods.objects)
        await asyncio.to_thread(at.kubernetes.pods.wishes, WEB, within_s=1.0)
        await until(lambda: bool(at.api.objects.get(EVENTS)))

        (event,) = at.api.objects[EVENTS].values()
        assert event["reason"] == "UnknownAnnotation"
        assert "did you mean isthmus.dev/pool?" in event["message"]

    played(tmp_path, scene)
