"""What becomes of Kubernetes' Nodes, told to the authority: gone ones drain, some are fenced.

    Node deleted, or made anew            its node drains; fenced where the cluster's settings
                                          say that deletion means the machine is gone
    taint node.kubernetes.io/out-of-service   fenced: the operator's word that it is off
    Node there again                      a drain that was begun here ends

Decided from what there is, again and again, by every replica: each step looks whether it is still
to be done, and is a guarded transaction.  Only nodes that an agent said are Kubernetes' are
looked at: it registers with the uid of its Node among its labels.  A node that is seen alive is
never fenced, and an absence is asked for once more, past the copy, before it is acted on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Protocol

from ipam.calls import Drain, Drained
from ipam.cluster import KUBERNETES, NODE_UID, Node, NodeState, Settings
from ipam.errors import IPAMError
from ipam.refusals import Forbidden
from ipam.view import View
from kube import nodes as kube_nodes
from kube import objects
from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.reflector import Reflector, Selection

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
TICK_S = 5.0

log = logging.getLogger(__name__)


class Authority(Protocol):
    """Who decides, see ipam.authority.Authority."""

    async def drain(self, asked: Drain) -> Drained: ...


@dataclass(frozen=True, slots=True)
class KubeNode:
    """What matters here of a Node."""

    uid: str
    out_of_service: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about one node, and why; *is_gone* has to be asked for once more."""

    asked: Drain
    is_gone: bool = False


def small(node: objects.Node) -> KubeNode:
    taints = node.spec.taints or ()
    return KubeNode(node.metadata.uid, any(taint.key == OUT_OF_SERVICE for taint in taints))


def plan(
    nodes: Mapping[str, Node], there: Mapping[str, KubeNode], settings: Settings, at: str
) -> Iterator[Step]:
    """Every step that what there is calls for; *at* is now, for the record."""
    for name, node in sorted(nodes.items()):
        uid = node.labels.get(NODE_UID, "")
        if not uid:
            continue
        found = there.get(name)
        if found is None or found.uid != uid:
            yield from _gone(node, settings, at)
        elif found.out_of_service:
            if node.state is not NodeState.FENCED:
                yield Step(
                    Drain(node=name, fenced=True, by=f"{KUBERNETES}: {OUT_OF_SERVICE} at {at}")
                )
        elif node.state is NodeState.DRAINING and node.drained_by.startswith(f"{KUBERNETES}:"):
            yield Step(Drain(node=name, undo=True))


def _gone(node: Node, settings: Settings, at: str) -> Iterator[Step]:
    by = f"{KUBERNETES}: Node {node.labels[NODE_UID]} deleted, seen at {at}"
    if node.state is NodeState.ACTIVE:
        yield Step(Drain(node=node.name, by=by), is_gone=True)
    if node.state is not NodeState.FENCED and settings.node_deletion_fences:
        yield Step(Drain(node=node.name, fenced=True, by=by), is_gone=True)


class NodeWatch:
    """One for a replica; it does nothing while the API server or the store is away."""

    def __init__(
        self,
        client: Client,
        authority: Authority,
        view: Callable[[], View | None],
        *,
        random: Random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """*view*: the store as it is followed, None while it is not."""
        self._client = client
        self._authority = authority
        self._view = view
        self._now = now
        self._told: dict[str, str] = {}
        selection = Selection(path=kube_nodes.NODES, kind=objects.Node, keep=small)
        self.reflector = Reflector(client, selection, random=random)

    async def run(self) -> None:
        """Follow the Nodes and act until cancelled."""
        await self.reflector.drive(self.tick, every_s=TICK_S)

    async def tick(self) -> None:
        """Do what is to be done now; what fails is tried again at the next."""
        view = self._view()
        if view is None or view.config is None or self.reflector.trouble:
            return
        at = self._now().isoformat(timespec="seconds")
        steps = list(plan(view.nodes, self.reflector.objects, view.config.settings, at))
        for step in steps:
            await self._take(step, view.nodes[step.asked.node].labels[NODE_UID])
        self._told = {key: why for key, why in self._told.items() if key in _keys(steps)}

    async def _take(self, step: Step, uid: str) -> None:
        try:
            if step.is_gone and await self._is_there(step.asked.node, uid):
                return
            await self._authority.drain(step.asked)
        except (IPAMError, KubeError) as exc:
            self._complain(step, exc)
            return
        what = "fenced" if step.asked.fenced else "active again" if step.asked.undo else "drains"
        log.warning("node %s", what, extra={"node": step.asked.node, "by": step.asked.by})

    async def _is_there(self, name: str, uid: str) -> bool:
        try:
            node = await self._client.get(f"{kube_nodes.NODES}/{name}", objects.Node)
        except NotFound:
            return False
        return node.metadata.uid == uid

    def _complain(self, step: Step, exc: Exception) -> None:
        """Once for as long as it is so."""
        key = _key(step)
        if self._told.get(key) == str(exc):
            return
        self._told[key] = str(exc)
        refused = isinstance(exc, Forbidden)
        log.log(
            logging.WARNING if refused else logging.INFO,
            "node is not fenced or drained yet",
            extra={"node": step.asked.node, "error": str(exc)},
        )


def _key(step: Step) -> str:
    return f"{step.asked.node} {step.asked.fenced}"


def _keys(steps: list[Step]) -> set[str]:
    return {_key(step) for step in steps}
