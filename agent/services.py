"""The node's part in Services: from the API server's word to the kernel's tables.

    Services ────────┐  reflectors            one thread
    EndpointSlices ──┼─► agent.catalogue ──► proxy.reconciler ──► nftables, conntrack
    ServiceCIDRs ────┤
    our Node, pools ─┘

Nothing is written before Services and slices were listed whole: what is not known yet would be
taken for gone.  While the API server is away, or the agent, all stays as it was.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from agent import service_report
from agent.catalogue import Catalogue, Changes
from agent.departures import Conntrack, Departures
from agent.health_checks import Check, HealthChecks, check_of
from agent.known import KnownNode
from agent.monitor import is_touched
from agent.pace import Pace
from agent.service_metrics import ServiceMetrics
from agent.service_pages import ServicePages
from dataplane import memory
from dataplane.errors import DataplaneError
from dataplane.inspect import own_addresses
from kube.client import Client
from kube.reflector import Reflector, Selection
from net.address import IPNetwork
from proxy import objects, translate
from proxy.model import NodeView, ServiceName
from proxy.reconciler import Reconciler, Wanted
from proxy.settings import Settings
from proxy.tables import MOST_REMEMBERED, TABLE
from proxy.view import view_of
from proxy.walk import packet_of

LONGEST_REST_S = 0.005
HUNG_S = 60.0
_WITHOUT_RANGES_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What Services are tied to.

    *node*: our Node as it was said last; *pools*: where pods have addresses; *make*: the tables,
    for a view of the node; *clock*: monotonic seconds; *leaving*: the Node is about to be removed;
    *conntrack*: the flows of this node; *others*: in which modes a kube-proxy has rules here;
    *ports*: netlink ports by which the tables are changed; *open_firewall*: lets pods through
    forward chains of others, and returns which were shut.
    """

    name: str
    node: Callable[[], KnownNode]
    pools: Callable[[], tuple[IPNetwork, ...]]
    make: Callable[[NodeView], Reconciler]
    leaving: Callable[[], bool]
    clock: Callable[[], float]
    random: Random
    conntrack: Conntrack | None = None
    others: Callable[[], Sequence[str]] = tuple
    ports: Collection[int] = ()
    open_firewall: Callable[[], list[str]] = list
    interval_s: float = 60.0


class Services:
    """One for the life of an agent."""

    def __init__(self, settings: Settings, client: Client, seams: Seams) -> None:
        self._settings, self._client, self._seams = settings, client, seams
        ours = {"labelSelector": objects.NOT_OURS}
        self._services = self._reflector(
            objects.SERVICES, objects.Service, _kept, self._service_changed, ours
        )
        self._slices = self._reflector(
            objects.SLICES, objects.EndpointSlice, translate.slice_, self._slice_changed, ours
        )
        self._ranges = self._reflector(
            objects.SERVICE_CIDRS, objects.ServiceCIDR, lambda one: one, lambda *_: self.wake(), {}
        )
        self._catalogue = Catalogue(self._services.objects, self._slices.objects)
        self._pace = Pace(seams.random, longest_rest_s=LONGEST_REST_S, longest_s=seams.interval_s)
        self._checks: dict[ServiceName, tuple[int, Check]] = {}
        self._health = HealthChecks(lambda: not self.unhealthy())
        self._departures = Departures(client, seams.conntrack, seams.random)
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._reconciler: Reconciler | None = None
        self._is_begun = False
        self._trouble = ""
        self._others: Sequence[str] = ()
        self._forgetting = 0
        self._shut = ""
        self._well_at: datetime | None = None
        self._round_begun: float | None = None
        self.metrics = ServiceMetrics()
        self._follower: Callable[[ServiceName, Wanted | None], None] = lambda name, wanted: None

    def follow(self, told: Callable[[ServiceName, Wanted | None], None]) -> None:
        """Let *told* know of each Service as it is now, in the thread that works on the tables."""
        self._follower = told

    def _reflector(
        self,
        path: str,
        kind: type[Any],
        keep: Callable[[Any], Any],
        changed: Callable[[str, Any], None],
        params: Mapping[str, str],
    ) -> Reflector[Any, Any]:
        selection = Selection(path=path, kind=kind, keep=keep, params=params)
        return Reflector(self._client, selection, random=self._seams.random, changed=changed)

    def _service_changed(self, key: str, _: object) -> None:
        self._catalogue.service_changed(key, self._seams.clock())
        self._news.set()

    def _slice_changed(self, key: str, found: translate.Slice | None) -> None:
        self._catalogue.slice_changed(key, found, self._seams.clock())
        self._news.set()

    # What others tell, from any thread.

    def wake(self) -> None:
        """Have a round."""
        if loop := self._loop:
            with suppress(RuntimeError):  # the agent ends
                loop.call_soon_threadsafe(self._news.set)

    def drifted(self) -> None:
        """The kernel is not as it was."""
        self._pace.hurry()
        self.wake()

    def is_news(self, kind: int, payload: memoryview) -> bool:
        """Whether an nftables message, of somebody else's change, says that our tables changed."""
        return is_touched(kind, payload, TABLE)

    @property
    def ports(self) -> Collection[int]:
        """By which our own changes of the tables are told from those of others."""
        return self._seams.ports

    # What goes on.

    async def run(self) -> None:
        """Follow and program until cancelled; whatever the API server does ends nothing."""
        self._loop = asyncio.get_running_loop()
        pages = ServicePages(self, self._settings)
        try:
            async with asyncio.TaskGroup() as tasks:
                for reflector in self._reflectors():
                    tasks.create_task(reflector.run())
                tasks.create_task(pages.run())
                tasks.create_task(self._departures.run())
                tasks.create_task(self._work_for_ever())
        finally:
            self._loop = None
            self._health.close()
            self._client.close()

    def _reflectors(self) -> Iterator[Reflector[Any, Any]]:
        yield from (self._services, self._slices)
        if not self._settings.service_cidrs:
            yield self._ranges

    async def _work_for_ever(self) -> None:
        await self._hear_all()
        with ThreadPoolExecutor(1, thread_name_prefix="services") as worker:
            while True:
                await self._rest()
                await self.work_once(worker)

    async def _hear_all(self) -> None:
        """Wait for whatever an absence would be concluded from."""
        await self._services.synced.wait()
        await self._slices.synced.wait()
        if not self._settings.service_cidrs:
            # Servers before 1.33 have none of them; unused addresses then are not dropped.
            with suppress(TimeoutError):
                async with asyncio.timeout(_WITHOUT_RANGES_S):
                    await self._ranges.synced.wait()

    async def _rest(self) -> None:
        while True:
            has_news = self._news.is_set()
            wait_s = self._pace.wait_s(self._seams.clock(), has_news=has_news)
            if not wait_s:
                return
            if has_news:
                await asyncio.sleep(wait_s)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()

    async def work_once(self, worker: ThreadPoolExecutor) -> None:
        """Bring to the kernel what changed; all of it when that is due, or nothing is there."""
        begun = self._seams.clock()
        is_whole = self._pace.begin(begun)
        self._news.clear()
        changes = self._catalogue.take()
        self._round_begun = changes.since if changes.since is not None else begun
        loop = asyncio.get_running_loop()
        well = await loop.run_in_executor(worker, self._round, changes, is_whole)
        now = self._seams.clock()
        self._round_begun = None
        self._pace.end(now, well=well)
        if well:
            self._well_at = datetime.now(UTC)
            self.metrics.programmed(changes.triggered)
        await self._health.settle(dict(self._checks.values()))

    def _round(self, changes: Changes, is_whole: bool) -> bool:
        """In the one thread that works on the tables; returns whether all went well."""
        begun, mended = self._seams.clock(), 0
        trouble = ""
        with self._lock:
            try:
                mended = self._bring(changes, is_whole)
            except DataplaneError as exc:
                trouble = str(exc)
            except Exception as exc:  # the edge: a bug here must not end the service of others
                log.exception("Services are not programmed, will retry")
                trouble = f"internal error: {exc}"
            reconciler = self._reconciler
            if reconciler is not None and not trouble:
                refused = [f"{name}: {why}" for name, why in reconciler.refused.items()]
                trouble = "; ".join(refused[:1]) or reconciler.trouble
                self.metrics.refused.set(len(refused))
        if trouble and trouble != self._trouble:
            log.warning("Services are not all programmed, will retry", extra={"error": trouble})
        self._trouble = trouble
        self.metrics.heard(changes.services, changes.slices)
        self.metrics.round(self._seams.clock() - begun, well=not trouble, mended=mended)
        self.metrics.services.set(len(self._services.objects))
        return not trouble

    def _bring(self, changes: Changes, is_whole: bool) -> int:
        view, reconciler = self.view(), self._reconciler
        if is_whole:
            self._look_for_others()
            self._open_firewall()
        if reconciler is None or not self._is_begun:
            self._begin(view)
            return 0
        reconciler.look(view)
        news = {name: self._wanted(name, view) for name in changes.names}
        if news:
            self._departures.note(reconciler.change(news))
        mended = reconciler.repair() if is_whole else 0
        if is_whole:
            self._forgetting = self.metrics.overflown(reconciler.overflown())
        if mended:
            log.warning("Services were not as planned: mended", extra={"elements": mended})
        return mended

    def _look_for_others(self) -> None:
        before = self._others
        with suppress(DataplaneError):  # that they cannot be looked for is no trouble of ours
            self._others = self._seams.others()
        if self._others and self._others != before:
            log.warning("kube-proxy has rules here", extra={"modes": self._others})

    def _open_firewall(self) -> None:
        try:
            if opened := self._seams.open_firewall():
                log.warning("others' chains let pods through now", extra={"chains": opened})
            self._shut = ""
        except DataplaneError as exc:
            if str(exc) != self._shut:
                log.warning("others' chains are not opened", extra={"error": str(exc)})
            self._shut = str(exc)

    def _begin(self, view: NodeView) -> None:
        self._reconciler = reconciler = self._seams.make(view)
        everyone = {name: self._wanted(name, view) for name in self._catalogue.names()}
        found = {name: wanted for name, wanted in everyone.items() if wanted is not None}
        self._departures.note(reconciler.begin(found))
        self._is_begun = True
        memory.give_back()
        log.info("Services programmed", extra={"services": len(found)})

    def _wanted(self, name: ServiceName, view: NodeView) -> Wanted | None:
        wanted = self._catalogue.wanted(name, view.service_cidrs)
        if wanted is not None and (port := wanted.service.health_check_node_port):
            self._checks[name] = port, check_of(wanted, self._seams.name)
        else:
            self._checks.pop(name, None)
        self._follower(name, wanted)
        return wanted

    def view(self) -> NodeView:
        """This node, as translation has to know it."""
        node, settings = self._seams.node(), self._settings
        return view_of(
            self._seams.name,
            labels=node.labels,
            addresses=node.addresses,
            pods=settings.pod_cidrs or self._seams.pools(),
            service_cidrs=settings.service_cidrs
            or translate.cidrs(list(self._ranges.objects.values())),
            nodeport_addresses=settings.nodeport_addresses,
        )

    # What is told of it, from any thread.

    def unhealthy(self) -> str:
        """Why this node does not serve Services, or ""."""
        if not self._is_begun:
            return "Services are not programmed yet"
        begun = self._round_begun
        if begun is not None and self._seams.clock() - begun > HUNG_S:
            return "changes wait for too long"
        return ""

    def is_leaving(self) -> bool:
        return self._seams.leaving()

    @property
    def well_at(self) -> datetime | None:
        """When all was as planned last."""
        return self._well_at

    @property
    def trouble(self) -> str:
        said = (one.trouble for one in (self._services, self._slices))
        return self._trouble or next(filter(None, said), "")

    def describe(self) -> dict[str, Any]:
        return {
            "programmed": self._is_begun,
            "services": len(self._services.objects),
            "slices": len(self._slices.objects),
            "trouble": self.trouble,
        }

    def report(self, wanted: str = "", *, compare: bool = True) -> list[dict[str, Any]]:
        """What is programmed, and with *compare* what the kernel has otherwise.

        Of the Service *wanted* (a name, or namespace/name) alone if given.  Raises DataplaneError.
        """
        with self._lock:
            if self._reconciler is None:
                return []
            return service_report.rows(
                self._reconciler, self._catalogue.troubles(), wanted, compare=compare
            )

    def explain(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What becomes of the packet that *asked* names.  Raises ValueError, DataplaneError."""
        flow = service_report.flow_of(asked)
        with self._lock:
            if self._reconciler is None or not self._is_begun:
                raise ValueError("Services are not programmed yet")
            packet = packet_of(flow, self.view().pods, own=own_addresses())
            found = self._reconciler.explain(packet)
            troubles = self._catalogue.troubles().get(found.service, ()) if found.service else ()
            return service_report.explained(found, troubles)

    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        found = [f"Services: {self.trouble}"] if self.trouble else []
        found += [
            f"a kube-proxy ({mode}) runs here, or left its rules: isthmus remove-kube-proxy"
            for mode in self._others
        ]
        if self._forgetting:
            found.append(
                f"Services: {self._forgetting} connections were not remembered for session "
                f"affinity of late: {MOST_REMEMBERED} clients of each family are"
            )
        if self._shut:
            found.append(f"Services: firewalls of others are not opened: {self._shut}")
        with self._lock:
            if self._reconciler is not None:
                found += service_report.conflicts(self._reconciler)
        for name, troubles in self._catalogue.troubles().items():
            found += [f"Service {name}: {trouble}" for trouble in troubles]
        found += [
            f"health check at port {port}: {why}" for port, why in self._health.troubles.items()
        ]
        return found


def _kept(found: objects.Service) -> translate.Translated | None:
    translated = translate.service(found)
    return translated if translated.service is not None or translated.troubles else None
