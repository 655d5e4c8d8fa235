"""The agent's part in Kubernetes: follows what concerns this node, and says how the node is.

    our Node              labels choose pools, addresses are ours, its uid goes to ipamd
    pods of this node     their annotations                         (agent.pods)
    namespaces            their annotations
    ipamd's EndpointSlices   where ipamd is, if configuration says so

Nothing here is on the path of a DEL, and nothing on that of an ADD but one bounded question where
the copies do not know a pod.  While the API server is away all stays as it was said last, also
over a restart of the agent, by one file.
"""

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from agent import failures, known, own_node
from agent.config import KubernetesConfig
from agent.known import Annotations, Known, KnownNode, KnownPod
from agent.pods import CannotSay, Pods, known_pod, wanted
from cni.args import Pod
from cni.request import Request, Response
from ipam.cluster import NODE_UID
from ipam.errors import NotServed
from ipam.holdings import OwnBlock
from kube import objects
from kube.client import Client
from kube.errors import Conflict, KubeError, NotFound
from kube.events import About, Recorder, Told
from kube.nodes import NODES
from kube.reflector import Reflector, Selection
from net.address import IPAddress, IPNetwork

TICK_S = 0.5
LONGEST_PAUSE_S = 60.0
KEEP_S = 5.0
SEEN_S = 2.0
WORDING_S = 10.0
SERVICE_NAME = "kubernetes.io/service-name"
LEAVING = "ToBeDeletedByClusterAutoscaler"
IPAMD_PORT, ENROLL_PORT = "ipamd", "enroll"

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What of this node is told: why it cannot serve, or "", and its blocks.

    *families* are those of which it is to have a block, None where that is not known.

    *changed* is called when ipamd should hear of our Node again; *clock*: monotonic seconds.
    """

    unready: Callable[[], str]
    blocks: Callable[[], Collection[OwnBlock]]
    changed: Callable[[], None]
    clock: Callable[[], float]
    random: Random
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    families: Callable[[], Collection[int] | None] = tuple


@dataclass(frozen=True, slots=True)
class Where:
    """Endpoints of ipamd, as HOST:PORT."""

    endpoints: tuple[str, ...] = ()
    enroll: tuple[str, ...] = ()


class Kubernetes:
    """One for the life of an agent."""

    def __init__(
        self, config: KubernetesConfig, client: Client, file: Path, around: Surroundings
    ) -> None:
        self._config, self._client, self._file, self._around = config, client, file, around
        self._kept = known.load(file)
        self._last = self._kept.node
        self._is_kept = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._told = ""
        self._worded_at = float("-inf")
        self.recorder = Recorder(client, host=config.node, clock=around.clock)
        self._node: Reflector[objects.Node, objects.Node] = self._reflector(
            NODES, objects.Node, lambda node: node, fieldSelector=f"metadata.name={config.node}"
        )
        self._pods = self._reflector(
            "/api/v1/pods", objects.Pod, known_pod, fieldSelector=f"spec.nodeName={config.node}"
        )
        self._namespaces = self._reflector(
            "/api/v1/namespaces", objects.Object, lambda one: wanted(one.metadata.annotations)
        )
        namespace, _, service = config.service.partition("/")
        self._slices = self._reflector(
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            objects.EndpointSlice,
            where,
            labelSelector=f"{SERVICE_NAME}={service}",
        )
        self.pods = Pods(
            self._pods.objects,
            self._namespaces.objects,
            self._kept,
            self._ask_pod,
            self._ask_namespace,
            tell=self._tell_unheeded,
        )

    def _reflector(
        self, path: str, kind: type[Any], keep: Callable[[Any], Any], **params: str
    ) -> Reflector[Any, Any]:
        return Reflector(
            self._client,
            Selection(path=path, kind=kind, keep=keep, params=params),
            random=self._around.random,
            changed=self._changed,
        )

    def _changed(self, key: str, kept: object) -> None:
        self._is_kept = False
        self._news.set()
        if isinstance(kept, objects.Node):
            self._last = known_node(kept)

    # What others ask, from any thread.

    @property
    def node(self) -> KnownNode:
        """Our Node as it was said last; all empty where it never was, or is deleted."""
        found = self._node.objects.get(self._config.node)
        if found is None:
            return KnownNode() if self._node.synced.is_set() else self._kept.node
        return known_node(found)

    def labels(self) -> Mapping[str, str]:
        """Our Node's labels, and its uid among them.  Raises NotServed where it never was known.

        Of a Node that was deleted the last ones: whoever drains us has to hear of us.
        """
        last = self._last
        if not last.uid:
            raise NotServed(
                f"Kubernetes has no Node {self._config.node}"
                if self._node.synced.is_set()
                else f"Node {self._config.node} is not known yet: {self.trouble or 'asking'}"
            )
        return {**last.labels, NODE_UID: last.uid}

    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(ip_address(text) for text in self._last.addresses)

    def pod_cidrs(self) -> frozenset[IPNetwork]:
        """The blocks that stand in our Node: as long as it is there they are not given back."""
        return frozenset(ip_network(text) for text in self.node.pod_cidrs)

    def is_leaving(self) -> bool:
        """Our Node is about to be removed: load balancers are to send it nothing new."""
        node = self._node.objects.get(self._config.node)
        return node is not None and any(one.key == LEAVING for one in node.spec.taints or ())

    def endpoints(self) -> tuple[str, ...]:
        return self._where().endpoints

    def enroll_endpoints(self) -> tuple[str, ...]:
        return self._where().enroll

    def _where(self) -> Where:
        found = list(self._slices.objects.values())
        both = Where(
            self._in_turn(one for slice_ in found for one in slice_.endpoints),
            self._in_turn(one for slice_ in found for one in slice_.enroll),
        )
        # None at all is a Service without pods for now: those of before may be back sooner.
        return both if both.endpoints else Where(self._kept.endpoints, self._kept.enroll)

    def _in_turn(self, endpoints: Iterable[str]) -> tuple[str, ...]:
        """In an order of this node's own: not all nodes are to begin with the same ipamd."""

        def place(endpoint: str) -> bytes:
            return sha256(f"{self._config.node} {endpoint}".encode()).digest()

        return tuple(sorted(set(endpoints), key=place))

    @property
    def trouble(self) -> str:
        """What keeps us from the API server, or ""."""
        return next((one.trouble for one in self._reflectors() if one.trouble), "")

    def served(self, request: Request, response: Response) -> None:
        """Let a pod's user know of an ADD that failed."""
        if (told := failures.told(request, response)) is not None:
            self.recorder.tell(told)

    def _tell_unheeded(self, pod: Pod, message: str) -> None:
        about = About(kind="Pod", name=pod.name, namespace=pod.namespace, uid=pod.uid)
        self.recorder.tell(Told(about=about, reason="UnknownAnnotation", message=message))

    def describe(self) -> dict[str, Any]:
        return {
            "node": self._config.node,
            "uid": self.node.uid,
            "pod_cidrs": list(self.node.pod_cidrs),
            "pods": len(self._pods.objects),
            "trouble": self.trouble or self._told,
            "events_dropped": self.recorder.dropped,
        }

    def problems(self) -> list[str]:
        """What is wrong between us and the API server, a line each."""
        found = dict.fromkeys([*(one.trouble for one in self._reflectors()), self._told])
        return [f"Kubernetes: {trouble}" for trouble in found if trouble]

    # What goes on beside.

    async def run(self) -> None:
        """Follow and tell until cancelled; whatever the API server does ends nothing."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as tasks:
                for reflector in self._reflectors():
                    tasks.create_task(reflector.run())
                tasks.create_task(self.recorder.run())
                tasks.create_task(self._keep_for_ever())
                tasks.create_task(self._tell_for_ever())
        finally:
            self._loop = None
            self._client.close()

    def _reflectors(self) -> Iterator[Reflector[Any, Any]]:
        yield from (self._node, self._pods, self._namespaces)
        if self._config.service:
            yield self._slices

    async def _keep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            await asyncio.to_thread(self.keep)

    def keep(self) -> None:
        """Write down what was said, once all of it was."""
        if self._is_kept or not all(one.synced.is_set() for one in self._reflectors()):
            return
        self._is_kept = True
        now = Known(
            node=self._last if self.node.uid else replace(self._last, pod_cidrs=()),
            endpoints=self.endpoints(),
            enroll=self.enroll_endpoints(),
            pods=dict(self._pods.objects),
            namespaces={name: said for name, said in list(self._namespaces.objects.items())},
        )
        try:
            known.keep(self._file, now)
        except OSError as exc:
            self._is_kept = False
            log.warning("what Kubernetes said is not kept", extra={"error": str(exc)})

    async def _tell_for_ever(self) -> None:
        await self._node.synced.wait()
        pause, before = TICK_S, KnownNode()
        while True:
            self._news.clear()
            if (now := self.node) != before:
                before = now
                self._around.changed()
            pause = TICK_S if await self.tell() else min(2 * pause, LONGEST_PAUSE_S)
            await _wait(self._news, pause * (0.75 + 0.5 * self._around.random.random()))
            if pause > TICK_S:  # what fails is not tried at each change of a pod
                await asyncio.sleep(pause * self._around.random.random())

    async def tell(self) -> bool:
        """Write into our Node what is not there yet; False where that failed."""
        node = self._node.objects.get(self._config.node)
        if node is None:
            return True
        around = self._around
        duty = own_node.plan(
            node, unready=around.unready(), blocks=around.blocks(), families=around.families()
        )
        if not duty or self._is_told_often(node, duty):
            self._told = ""
            return True
        at = self._around.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            written = await own_node.carry_out(self._client, node, duty, at=at)
        except Conflict:
            return True  # the watch brings what changed
        except KubeError as exc:
            if str(exc) != self._told:
                log.warning("Node is not told how we are, will retry", extra={"error": str(exc)})
            self._told = str(exc)
            return False
        log.info(
            "told our Node",
            extra={
                "pod_cidrs": duty.pod_cidrs,
                "unavailable": duty.condition.status if duty.condition else "",
                "taint_removed": duty.is_tainted,
            },
        )
        self._worded_at = self._around.clock()
        await self._see(written.metadata.resource_version)
        return True

    def _is_told_often(self, node: objects.Node, duty: own_node.Duty) -> bool:
        """Whether this would be another wording of what was told a moment ago."""
        wording = own_node.is_wording(node, duty)
        return wording and self._around.clock() - self._worded_at < WORDING_S

    async def _see(self, revision: str) -> None:
        """Wait for the watch to bring what we wrote: it is not to be written twice."""
        end = asyncio.get_running_loop().time() + SEEN_S
        while (left := end - asyncio.get_running_loop().time()) > 0:
            node = self._node.objects.get(self._config.node)
            if node is None or node.metadata.resource_version == revision:
                return
            self._news.clear()
            await _wait(self._news, left)

    # The one question of an ADD.

    def _ask_pod(self, namespace: str, name: str, within_s: float) -> KnownPod | None:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        found = self._ask(lambda: self._client.get(path, objects.Pod, within_s=within_s), within_s)
        return known_pod(found) if found else None

    def _ask_namespace(self, name: str, within_s: float) -> Annotations | None:
        path = f"/api/v1/namespaces/{name}"
        found = self._ask(
            lambda: self._client.get(path, objects.Object, within_s=within_s), within_s
        )
        return wanted(found.metadata.annotations) if found else None

    def _ask(self, question: Callable[[], Awaitable[Answer]], within_s: float) -> Answer | None:
        """Ask from a verb's thread.  Raises CannotSay."""

        async def ask() -> Answer | None:
            try:
                return await question()
            except NotFound:
                return None

        if (loop := self._loop) is None:
            raise CannotSay("the agent ends, or has just begun")
        answer = asyncio.run_coroutine_threadsafe(ask(), loop)
        try:
            return answer.result(within_s + 1)
        except KubeError as exc:
            raise CannotSay(str(exc)) from exc
        except (concurrent.futures.CancelledError, TimeoutError) as exc:
            raise CannotSay("the API server did not answer in time") from exc


def known_node(node: objects.Node) -> KnownNode:
    return KnownNode(
        uid=node.metadata.uid,
        labels=node.metadata.labels or known.NONE,
        addresses=tuple(
            one.address for one in node.status.addresses or () if one.type == "InternalIP"
        ),
        pod_cidrs=node.spec.pod_cidrs or (),
    )


def where(slice_: objects.EndpointSlice) -> Where:
    """Every endpoint that does not say that it is not ready."""
    ports = {one.name: one.port for one in slice_.ports or () if one.port}
    hosts = [
        f"[{address}]" if ":" in address else address
        for endpoint in slice_.endpoints or ()
        if endpoint.conditions.ready is not False
        for address in endpoint.addresses
    ]
    found = {
        name: tuple(f"{host}:{ports[name]}" for host in hosts) if name in ports else ()
        for name in (IPAMD_PORT, ENROLL_PORT)
    }
    return Where(found[IPAMD_PORT], found[ENROLL_PORT])


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
