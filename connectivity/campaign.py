"""A self-test from its namespace's making to its end: servers, clients, what clients printed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol

from connectivity.errors import ConnectivityError, Missing, Refused
from connectivity.model import Outcome, Server
from connectivity.plan import targets_of
from connectivity.pods import LABEL, LABEL_VALUE, Program, client, name_of, namespace, server
from net.address import IPAddress

POLL_S = 0.5
_AGENTS = "isthmus-agent"
_PODS_AT_ONCE = 16


class API(Protocol):
    """The API server, by paths such as /api/v1/nodes.

    Answers are JSON objects; raises Missing for what is not there, Refused, and other
    ConnectivityError where nothing answers.
    """

    async def get(self, path: str) -> dict[str, Any]: ...
    async def text(self, path: str) -> str: ...
    async def create(self, path: str, body: Mapping[str, Any]) -> None: ...
    async def delete(self, path: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """*outside*: a host and port beyond the cluster, or None; *patience_s*: for each stage."""

    namespace: str
    program: Program
    outside: tuple[str, int] | None
    patience_s: float
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    addresses: tuple[IPAddress, ...]


class Campaign:
    """One self-test; *say* tells a person what goes on."""

    def __init__(self, api: API, options: Options, say: Callable[[str], None]) -> None:
        self._api = api
        self._options = options
        self._say = say
        self._pods = f"/api/v1/namespaces/{options.namespace}/pods"

    async def run(self) -> tuple[Outcome, ...]:
        """Try every path between all nodes that are ready.

        Raises ConnectivityError, naming the pods, when some do not start or do not end.
        """
        nodes = await self._nodes()
        self._say(f"{len(nodes)} nodes: {', '.join(node.name for node in nodes)}")
        async with self._namespace():
            servers = await self._servers(nodes)
            self._say(f"{len(servers)} servers answer; clients try them")
            return await self._clients(nodes, servers)

    async def _nodes(self) -> tuple[Node, ...]:
        nodes = [
            Node(
                each["metadata"]["name"],
                tuple(
                    ip_address(address["address"])
                    for address in each["status"].get("addresses", ())
                    if address["type"] == "InternalIP"
                ),
            )
            for each in (await self._api.get("/api/v1/nodes"))["items"]
            if _is_ready(each)
        ]
        if not nodes:
            raise ConnectivityError("no node is ready: see `kubectl describe nodes`")
        return tuple(nodes)

    @asynccontextmanager
    async def _namespace(self) -> AsyncIterator[None]:
        """A namespace of ours, empty at first; one that is not ours is left alone."""
        path = f"/api/v1/namespaces/{self._options.namespace}"
        with suppress(Missing):
            labels = (await self._api.get(path))["metadata"].get("labels", {})
            if labels.get(LABEL) != LABEL_VALUE:
                raise Refused(
                    f"namespace {self._options.namespace} is not this test's: name another"
                )
            self._say("removing what an earlier run left")
            await self._remove(path)
        await self._api.create("/api/v1/namespaces", namespace(self._options.namespace))
        try:
            yield
        finally:
            if not self._options.is_kept:
                await self._remove(path)

    async def _remove(self, path: str) -> None:
        with suppress(Missing):
            await self._api.delete(path)
            async with self._patience("the namespace to go"):
                while True:
                    await self._api.get(path)
                    await asyncio.sleep(POLL_S)

    async def _servers(self, nodes: Sequence[Node]) -> tuple[Server, ...]:
        places = [(node, host) for node in nodes for host in (False, True)]
        program = self._options.program
        await self._create([server(node.name, program, host_network=host) for node, host in places])
        names = [name_of("server", node.name, host) for node, host in places]
        pods = await self._until(names, _is_ready, "servers to be ready")
        return tuple(
            Server(
                node=node.name,
                host_network=host,
                addresses=tuple(
                    ip_address(each["ip"]) for each in pods[name]["status"].get("podIPs", ())
                ),
                node_addresses=node.addresses,
            )
            for (node, host), name in zip(places, names, strict=True)
        )

    async def _clients(
        self, nodes: Sequence[Node], servers: Sequence[Server]
    ) -> tuple[Outcome, ...]:
        places = [(node.name, host) for node in nodes for host in (False, True)]
        outside, program = self._options.outside, self._options.program
        bodies = []
        for node, host in places:
            targets = targets_of(node, servers, from_host=host, outside=outside)
            bodies.append(client(node, program, targets, host_network=host))
        await self._create(bodies)
        names = [name_of("client", node, host) for node, host in places]
        await self._until(names, _has_ended, "clients to end")
        outcomes: list[Outcome] = []
        for name in names:
            outcomes += _outcomes(name, await self._api.text(f"{self._pods}/{name}/log"))
        return tuple(outcomes)

    async def _create(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        turns = asyncio.Semaphore(_PODS_AT_ONCE)

        async def one(body: Mapping[str, Any]) -> None:
            async with turns:
                while True:
                    try:
                        return await self._api.create(self._pods, body)
                    except Refused as exc:
                        # A new namespace has its service account a moment later.
                        if "serviceaccount" not in str(exc):
                            raise
                    await asyncio.sleep(POLL_S)

        async with self._patience("pods to be accepted"):
            await asyncio.gather(*map(one, bodies))

    async def _until(
        self, names: Sequence[str], satisfied: Callable[[Mapping[str, Any]], bool], what: str
    ) -> dict[str, Mapping[str, Any]]:
        """All pods called *names*, once each of them is as it should be."""
        pods: dict[str, Mapping[str, Any]] = {}
        waiting = set(names)
        try:
            async with asyncio.timeout(self._options.patience_s):
                while waiting:
                    listed = (await self._api.get(self._pods))["items"]
                    pods = {each["metadata"]["name"]: each for each in listed}
                    waiting = {
                        name for name in names if name not in pods or not satisfied(pods[name])
                    }
                    if waiting:
                        await asyncio.sleep(POLL_S)
        except TimeoutError as exc:
            why = "\n".join(f"  {_state(name, pods.get(name))}" for name in sorted(waiting))
            raise ConnectivityError(
                f"waited {self._options.patience_s:g} s for {what}; still waiting for\n{why}"
            ) from exc
        return pods

    @asynccontextmanager
    async def _patience(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._options.patience_s):
                yield
        except TimeoutError as exc:
            raise ConnectivityError(f"waited {self._options.patience_s:g} s for {what}") from exc


async def agents_program(api: API, namespace: str) -> Program:
    """The image and command of the agents that run in the cluster.  Raises ConnectivityError."""
    listed = (await api.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets"))["items"]
    found = [each for each in listed if each["metadata"].get("labels", {}).get(LABEL) == _AGENTS]
    if not found:
        raise ConnectivityError(
            f"no agents in namespace {namespace}: name an image by --image, which needs "
            "isthmus's program in it, or the agents' namespace by --agents"
        )
    container = found[0]["spec"]["template"]["spec"]["containers"][0]
    return Program(container["image"], tuple(container.get("command", ("isthmus",)))[:1])


def _is_ready(thing: Mapping[str, Any]) -> bool:
    """A node or a pod."""
    return any(
        each["type"] == "Ready" and each["status"] == "True"
        for each in thing["status"].get("conditions", ())
    )


def _has_ended(pod: Mapping[str, Any]) -> bool:
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def _state(name: str, pod: Mapping[str, Any] | None) -> str:
    """Where a pod is and what keeps it, in a line."""
    if pod is None:
        return f"{name}: not there"
    words = [pod["status"].get("phase", "?")]
    for container in pod["status"].get("containerStatuses", ()):
        for state in container.get("state", {}).values():
            words += [state[key] for key in ("reason", "message") if state.get(key)]
    return f"{name} on {pod['spec'].get('nodeName', '?')}: {', '.join(words)}"


def _outcomes(name: str, log: str) -> list[Outcome]:
    """What the client *name* printed.  Raises ConnectivityError for anything else."""
    try:
        return [Outcome.from_json(json.loads(line)) for line in log.splitlines()]
    except (ValueError, KeyError, TypeError) as exc:
        raise ConnectivityError(f"{name} printed what is no outcome: {log[-300:]!r}") from exc
