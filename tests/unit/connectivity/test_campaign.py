"""A self-test against an API server in miniature: made, watched, read, removed."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from connectivity.campaign import Campaign, Options, agents_program
from connectivity.errors import ConnectivityError, Missing, Refused
from connectivity.model import Outcome, Path, Target
from connectivity.plan import summary
from connectivity.pods import Program

PROGRAM = Program("isthmus:1", ("/opt/isthmus/isthmus",))
NAMESPACE = "/api/v1/namespaces/connectivity"


@pytest.fixture(autouse=True)
def polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectivity.campaign.POLL_S", 0.01)


def node(name: str, address: str, *, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


class Cluster:
    """Namespaces and pods by path.  Pods on a node of *stuck* never start."""

    def __init__(self, *nodes: Mapping[str, Any], stuck: str = "") -> None:
        self.things: dict[str, Any] = {}
        self._nodes = nodes
        self._stuck = stuck
        self.has_service_account = False

    async def get(self, path: str) -> dict[str, Any]:
        if path == "/api/v1/nodes":
            return {"items": list(self._nodes)}
        if path.endswith("/pods"):
            return {"items": [self._seen(v) for k, v in self.things.items() if f"{path}/" in k]}
        if path not in self.things:
            raise Missing(path)
        thing: dict[str, Any] = self.things[path]
        return thing

    async def text(self, path: str) -> str:
        args = self.things[path.removesuffix("/log")]["spec"]["containers"][0]["args"]
        given = dict(re.split("=", arg, maxsplit=1) for arg in args if "=" in arg)
        lines = []
        for target in map(Target.from_json, json.loads(given["--targets"])):
            for trial in target.trials:
                outcome = Outcome(
                    path=target.path, trial=trial, client_node=given["--node"],
                    node=target.node, address=target.address, seconds=0.1,
                )  # fmt: skip
                lines.append(json.dumps(outcome.to_json()))
        return "\n".join(lines)

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        if path.endswith("/pods") and not self.has_service_account:
            self.has_service_account = True
            raise Refused('error looking up: serviceaccount "default" not found')
        self.things[f"{path}/{body['metadata']['name']}"] = dict(body)

    async def delete(self, path: str) -> None:
        for name in [each for each in self.things if each.startswith(path)]:
            del self.things[name]

    def _seen(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        place = pod["spec"]["nodeName"]
        if place == self._stuck:
            waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
            return {
                **pod,
                "status": {"phase": "Pending", "containerStatuses": [{"state": waiting}]},
            }
        is_client = pod["metadata"]["name"].startswith("client")
        number = [each["metadata"]["name"] for each in self._nodes].index(place)
        return {
            **pod,
            "status": {
                "phase": "Succeeded" if is_client else "Running",
                "conditions": [{"type": "Ready", "status": str(not is_client)}],
                "podIPs": [{"ip": f"10.244.{number}.2"}, {"ip": f"fd00:{number}::2"}],
            },
        }


def options(**changes: Any) -> Options:
    usual: dict[str, Any] = {
        "namespace": "connectivity",
        "program": PROGRAM,
        "outside": None,
        "patience_s": 5.0,
        "is_kept": False,
    }
    return Options(**usual | changes)


def run(cluster: Cluster, **changes: Any) -> tuple[Outcome, ...]:
    return asyncio.run(Campaign(cluster, options(**changes), lambda _: None).run())


NODES = (node("n1", "172.18.0.1"), node("n2", "172.18.0.2"))


def test_every_path_is_tried_in_both_families_and_nothing_is_left() -> None:
    cluster = Cluster(*NODES)

    rows = summary(run(cluster, outside=("192.0.2.1", 443)))

    assert {row.path for row in rows} == set(Path)
    assert {row.family for row in rows if row.path is Path.POD_OTHER_NODE} == {"IPv4", "IPv6"}
    assert not any(row.failed for row in rows)
    assert cluster.things == {}


def test_a_node_that_is_not_ready_is_left_out() -> None:
    cluster = Cluster(*NODES, node("n3", "172.18.0.3", ready=False))

    found = run(cluster)

    assert {each.client_node for each in found} == {"n1", "n2"}


def test_what_does_not_start_is_named_with_its_reason_and_removed() -> None:
    cluster = Cluster(*NODES, stuck="n2")

    with pytest.raises(ConnectivityError, match="on n2: Pending, ErrImagePull, no such image"):
        run(cluster, patience_s=0.1)

    assert cluster.things == {}


def test_an_earlier_runs_rest_is_removed_and_a_namespace_of_others_is_not() -> None:
    cluster = Cluster(*NODES)
    run(cluster, is_kept=True)
    assert NAMESPACE in cluster.things

    run(cluster)
    assert cluster.things == {}

    cluster.things[NAMESPACE] = {"metadata": {"name": "connectivity"}}
    with pytest.raises(Refused, match="not this test's"):
        run(cluster)
    assert NAMESPACE in cluster.things


def test_the_program_is_the_one_that_agents_run() -> None:
    class Agents(Cluster):
        async def get(self, path: str) -> dict[str, Any]:
            assert path.startswith("/apis/apps/v1/namespaces/isthmus/daemonsets")
            container = {"image": "isthmus:2", "command": ["/opt/isthmus/isthmus", "agent"]}
            labels = {"app.kubernetes.io/name": "isthmus-agent"}
            spec = {"template": {"spec": {"containers": [container]}}}
            return {"items": [{"metadata": {"labels": labels}, "spec": spec}]}

    found = asyncio.run(agents_program(Agents(), "isthmus"))

    assert found == Program("isthmus:2", ("/opt/isthmus/isthmus",))
