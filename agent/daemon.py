"""The agent's life: wire, reconcile, serve, and leave the data plane as it is."""

import asyncio
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from agent import admin
from agent import log as logs
from agent.boot import now_ns
from agent.config import DEFAULT_PATH, AgentConfig, load
from agent.joining import (
    announce,
    enroll,
    introduce,
    join,
    leave_clusters,
    leave_services,
    translate_services,
    weave,
)
from agent.live import Live
from agent.metrics import Readings, Requests, Rounds, families
from agent.monitor import Monitor
from agent.notify import Notifier
from agent.placement import Placement
from agent.rounds import Report
from agent.server import Handlers, Server, listen
from agent.version import VERSION
from agent.wiring import StateLocked, Wired, wire_within
from cni import undo
from cni.dispatch import serve
from cni.document import decode
from cni.errors import CNIError
from cni.request import Request, Response
from dataplane import memory
from dataplane.errors import DataplaneError
from dataplane.sysctl import make_writable
from ipam.errors import IPAMError
from ipam.holdings import OwnState
from ipam.leases import Attachment, Record, State
from ipam.pages import serve as serve_pages
from net.settings import ConfigError

log = logging.getLogger(__name__)

_TICK_S = 1.0
_LOCK_WAIT_S = 2.0  # a standalone call may be at work
_DRIFT_PAUSE_S = 5.0
_HUNG_NS = 600_000_000_000
_OUTCOME_OK = "0"
# A verb that wakes up must not wait 5 ms for another thread's Python to yield; but the threads
# that wait for their turn at it wake up as often, at 0.5 ms for a tenth of the processor.
_SWITCH_INTERVAL_S = 0.002


def main(path: Path | None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status: 0, 1 for trouble, 2 for usage.

    1 also means that a supervisor should start it again (a store that could not be opened can).
    """
    if path == DEFAULT_PATH and not path.exists():
        path = None
    try:
        config = load(path)
    except ConfigError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    logs.configure(config)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    _allow_descriptors()
    if not make_writable():
        log.warning("/proc/sys is read-only: what a setting is needed for will fail, and say so")
    try:
        wired = wire_within(config, _LOCK_WAIT_S)
        if config.ipamd is None:
            leave_clusters()
        if config.services is None:
            leave_services()
    except (StateLocked, DataplaneError, OSError) as exc:
        log.error("agent cannot start", extra={"error": str(exc)})
        return 1
    daemon = Daemon(wired, path or DEFAULT_PATH)
    try:
        asyncio.run(daemon.run())
    except (DataplaneError, OSError) as exc:
        log.error("agent stopped", extra={"error": str(exc)})
        return 1
    finally:
        wired.close()
    return 1 if daemon.begins_anew else 0


class Runs(Protocol):
    """What goes on as long as the agent serves; what is wrong with it, a line each."""

    async def run(self) -> None: ...
    def problems(self) -> Sequence[str]: ...


class Daemon:
    """One run of the agent over a wired node."""

    def __init__(self, wired: Wired, path: Path | None = None) -> None:
        self._wired = wired
        self._config: AgentConfig = wired.config
        self._requests = Requests()
        self._rounds = Rounds()
        self._started_ns = now_ns()
        self._last_round_ns: int | None = None
        self._tick_begun_ns: int | None = None
        self._drift = threading.Event()
        self._stopping = asyncio.Event()
        self.begins_anew = False
        self._notifier = Notifier()
        self._placement = Placement(self._config.install) if self._config.install else None
        self._is_placed = self._placement is None
        self._kubernetes = introduce(wired, self._tell_ipamd)
        self._enrolment = enroll(wired, self._kubernetes, self._tell_ipamd)
        self._cluster = join(wired, self._kubernetes)
        self._mesh = weave(wired, self._cluster, Live(wired.config, path), self._kubernetes)
        self._services = translate_services(wired, self._kubernetes)
        self._announcing = announce(wired, self._services, self._kubernetes)
        self._pools = wired.node.pools
        if wired.blocks:
            wired.blocks.follow(self._look_at_pools)
        self._server = Server(
            Handlers(self._serve, self._undo, self._admin),
            max_parallel=self._config.max_parallel,
            max_queued=self._config.max_queued,
        )

    async def run(self) -> None:
        """Reconcile, then serve until told to stop.

        The socket is there only once everything is in line: until then launchers wait for it.
        """
        stopping = self._stopping
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        self._wired.mend_store()
        self._note(self._wired.reconciler.start())
        if self._cluster:
            self._cluster.enforce_now()
        if self._mesh:
            Monitor(self._mesh.drifted, self._mesh.is_news, with_links=True).start()
            # Before any ADD: it asks how much the way to other nodes carries.
            self._mesh.round()
        if self._services:
            services = self._services
            Monitor(services.drifted, services.is_news, ours=services.ports).start()
        Monitor(self._lost).start()
        self._serve_metrics()
        listening = listen(self._config.socket)
        self._notifier.tell("READY=1", f"STATUS=serving {self._config.socket}")
        log.info("serving", extra={"socket": str(self._config.socket), "pid": os.getpid()})
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._upkeep()),
                    tasks.create_task(self._give_signs_of_life()),
                    *(tasks.create_task(one.run()) for one in self._parts() if one),
                ]
                await self._server.run(listening, stopping)
                for task in beside:
                    task.cancel()
        finally:
            self._notifier.tell("STOPPING=1")
            listening.close()
        log.info("stopped; attachments stay as they are")

    def _parts(self) -> tuple[Runs | None, ...]:
        network = self._cluster, self._mesh, self._kubernetes, self._enrolment
        return *network, self._services, self._announcing

    def _tell_ipamd(self) -> None:
        if self._cluster:
            self._cluster.renew()
        if self._mesh:
            self._mesh.drifted()  # others may reach us by other addresses

    async def _upkeep(self) -> None:
        """Each second the spool and expired reservations; a round when it is due."""
        while True:
            await asyncio.sleep(_TICK_S)
            self._tick_begun_ns = now_ns()
            await asyncio.to_thread(self._tick)
            self._tick_begun_ns = None
            if self.begins_anew:
                self._stopping.set()

    async def _give_signs_of_life(self) -> None:
        """Tell systemd that we live, unless upkeep hangs: many deletions may take it minutes."""
        while self._notifier.watchdog_s:
            if not self._hung():
                self._notifier.tell("WATCHDOG=1")
            await asyncio.sleep(self._notifier.watchdog_s)

    def _tick(self) -> None:
        try:
            self._wired.leases.expire()
            self._wired.mend_store()
            if self._wired.can_begin_anew():
                log.warning("store can be opened: ending, to be started with it")
                self.begins_anew = True
                return
            if self._wired.node.spool.waiting():
                self._wired.reconciler.replay()
            if not self._is_placed:
                self._is_placed = self._place()
            if self._is_due():
                self._is_placed = self._placement is None
                # What changes from here on calls for another round; what is remembered of the
                # host is looked at anew, since not every change is told (an uplink's MTU).
                self._drift.clear()
                self._wired.host.forget()
                self._note(self._wired.reconciler.round())
                memory.give_back()
        except (DataplaneError, IPAMError, OSError) as exc:
            log.warning("upkeep failed, will retry", extra={"error": str(exc)})
            self._rounds.failed += 1
        except Exception:  # the edge: what one record does must not end the service of others
            log.exception("upkeep failed, will retry")
            self._rounds.failed += 1

    def _place(self) -> bool:
        """Put the plugin, and the network list if an ADD can be served; returns whether it was.

        For the first pods of a new node there has to be a block, too.
        """
        if self._placement is None:
            return True
        self._placement.put_plugins()
        blocks = self._wired.blocks
        without = blocks is not None and not blocks.holdings.of_state(OwnState.ACTIVE)
        if without or self._wired.node.ready():
            return False
        self._placement.put_network_list()
        return True

    def _is_due(self) -> bool:
        last = self._last_round_ns or self._started_ns
        passed = (now_ns() - last) / 1e9
        # Without an ADD that can be served, what is amiss is looked at again soon.
        urgent = self._drift.is_set() or bool(self._wired.leases.degraded)
        return (urgent and passed >= _DRIFT_PAUSE_S) or passed >= self._config.reconcile_interval_s

    def _lost(self) -> None:
        self._wired.links.forget_bridges()
        self._wired.host.forget()
        self._drift.set()

    def _look_at_pools(self) -> None:
        """Pods keep their addresses towards all pools, so nftables follows them."""
        if (pools := self._wired.node.pools) != self._pools:
            self._pools = pools
            self._drift.set()

    def _note(self, report: Report) -> None:
        self._last_round_ns = now_ns()
        self._rounds.rounds += 1
        for name in ("adopted", "ended", "removed", "repaired", "failed"):
            setattr(self._rounds, name, getattr(self._rounds, name) + getattr(report, name))
        if report:
            log.info(
                "reconciled",
                extra={
                    "adopted": report.adopted,
                    "ended": report.ended,
                    "removed": report.removed,
                    "repaired": report.repaired,
                    "failed": report.failed,
                },
            )

    def _serve(self, request: Request) -> Response:
        begun = now_ns()
        response = serve(request, self._wired.node)
        seconds = (now_ns() - begun) / 1e9
        verb = request.environment.get("CNI_COMMAND", "")[:16]
        outcome = _OUTCOME_OK if response.status == 0 else _code_of(response)
        self._requests.count(verb, outcome, seconds)
        if verb != "STATUS" or response.status:
            log.info(
                "request",
                extra={
                    "verb": verb,
                    "container_id": request.environment.get("CNI_CONTAINERID", "")[:80],
                    "ifname": request.environment.get("CNI_IFNAME", "")[:16],
                    "code": outcome,
                    "ms": round(seconds * 1000, 2),
                    **(
                        {"error": response.stdout.decode(errors="replace")}
                        if response.status
                        else {}
                    ),
                },
            )
        if response.status and self._kubernetes:
            self._kubernetes.served(request, response)
        return response

    def _undo(self, request: Request) -> None:
        undo.undelivered(request, self._wired.node)

    def _admin(self, question: dict[str, object]) -> dict[str, object]:
        watched = [one for one in self._parts() if one]
        return admin.answer(question, Operated(self._wired, self.status, watched, self._services))

    def status(self) -> admin.Status:
        """How the agent is, from memory and one look at the spool."""
        wired = self._wired
        records = wired.leases.records()
        reason = wired.node.ready()
        last = self._last_round_ns
        return admin.Status(
            version=VERSION,
            pid=os.getpid(),
            boot_id=wired.node.boot_id,
            uptime_s=(now_ns() - self._started_ns) / 1e9,
            serving=not reason,
            reasons=(reason,) if reason else (),
            attachments=sum(record.state is State.HELD for record in records),
            reservations=sum(record.state is State.RESERVED for record in records),
            in_flight=self._server.load.in_work,
            queued=self._server.load.queued,
            spooled=wired.node.spool.waiting(),
            last_reconcile_s=None if last is None else (now_ns() - last) / 1e9,
            resident_bytes=resident_bytes(),
            store=str(self._config.database),
            cluster=self._cluster.describe() if self._cluster else None,
            mesh=self._mesh.describe() if self._mesh else None,
            kubernetes=self._kubernetes.describe() if self._kubernetes else None,
            announcing=self._announcing.describe() if self._announcing else None,
        )

    def collect(self) -> Iterator[object]:
        """One reading of all metrics, as prometheus_client asks its collectors."""
        status = self.status()
        yield from families(
            Readings(
                requests=self._requests,
                counters=self._wired.leases.counters,
                usage=self._wired.leases.usage(),
                rounds=self._rounds,
                attachments=status.attachments,
                in_work=status.in_flight,
                queued=status.queued,
                spooled=status.spooled,
                ready=status.serving,
                cluster=status.cluster,
                mesh=status.mesh,
                announcing=status.announcing,
            )
        )

    def _serve_metrics(self) -> None:
        if not self._config.metrics_address:
            return
        serve_pages(self._config.metrics_address, self, alive=self._hung, ready=self._unready)

    def _hung(self) -> str:
        """Why a supervisor should end us: for whoever asks over HTTP, as systemd is told."""
        begun = self._tick_begun_ns
        if begun is not None and now_ns() - begun > _HUNG_NS:
            return "upkeep hangs"
        return ""

    def _unready(self) -> str:
        """Why others should not rely on this node's agent yet."""
        services = self._services.unhealthy() if self._services else ""
        return self._wired.node.ready() or services


def _allow_descriptors() -> None:
    """As many as we may have: a request holds three, and most systems start with 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Operated:
    """The node as the operator's questions see it."""

    def __init__(
        self,
        wired: Wired,
        status: Callable[[], admin.Status],
        watched: Sequence[Runs] = (),
        services: admin.Services | None = None,
    ) -> None:
        self.leases = wired.leases
        self.services = services
        self.status = status
        self._reconciler = wired.reconciler
        self._watched = watched

    def check(self) -> list[str]:
        return self._reconciler.check() + [p for one in self._watched for p in one.problems()]

    def is_alive(self, record: Record) -> bool:
        return self._reconciler.is_alive(record)

    def release(self, who: Attachment) -> None:
        self._reconciler.release(who)


def resident_bytes() -> int:
    """This process's resident memory (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _code_of(response: Response) -> str:
    try:
        return str(decode(response.stdout).raw("code"))
    except CNIError:
        return "?"
