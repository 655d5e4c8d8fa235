"""The node's part in the cluster's network: routes to other nodes' pods, and what leaves it.

Follows the table that ipamd streams, its pools, our own blocks and the kernel's news.  All work is
done by one thread of its own; what fails is tried again, and stays as it was until then.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Protocol

import masquerade.model
import masquerade.reconciler
import masquerade.settings
import routing.model
import routing.reconciler
from agent.monitor import is_lost_part
from agent.talk import Pause
from dataplane.errors import DataplaneError
from ipam.calls import PoolRow, TableRow
from ipam.holdings import Holdings
from masquerade.names import TABLE
from net.address import IPNetwork

# What comes within it is one round.
GAP_S = 0.02
# Nobody tells that the table is no more a former life's, that time for what is kept has passed,
# or that a file has changed.
SOON_S = 1.0
LOOK_S = 5.0

log = logging.getLogger(__name__)


class Blocks(Protocol):
    """See ipam.blocks.Blocks."""

    @property
    def table(self) -> Mapping[IPNetwork, TableRow]: ...
    @property
    def pools(self) -> tuple[PoolRow, ...]: ...
    @property
    def holdings(self) -> Holdings: ...
    def follow(self, told: Callable[[], None]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What the mesh is tied to.

    *in_sync*: the table was streamed in this life; *doubt*: why it may lack something; *settings*
    are of the translation, looked up each time, *complaint* says what is wrong with them, or "";
    *limit_mtu* is told what pods may send at once;
    *readdressed* is called when others reach this node by other addresses than before; *clock*
    is monotonic seconds.
    """

    in_sync: Callable[[], bool]
    doubt: Callable[[], str]
    settings: Callable[[], masquerade.settings.Settings | None]
    complaint: Callable[[], str]
    limit_mtu: Callable[[int], None]
    readdressed: Callable[[], None]
    clock: Callable[[], float]
    random: Random
    interval_s: float = 60.0


class Mesh:
    """One for the life of an agent; *router* None: others route, and what we made is gone."""

    def __init__(
        self,
        blocks: Blocks,
        router: routing.reconciler.Reconciler | None,
        masquerader: masquerade.reconciler.Reconciler,
        seams: Seams,
    ) -> None:
        self._blocks = blocks
        self._router = router
        self._masquerader = masquerader
        self._seams = seams
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look_at = 0.0
        self._addresses: tuple[str, ...] = ()
        self._trouble = ""
        self._lock = threading.Lock()
        blocks.follow(self.wake)

    def wake(self) -> None:
        """Have a round; from any thread."""
        if loop := self._loop:
            try:
                loop.call_soon_threadsafe(self._news.set)
            except RuntimeError:
                log.debug("nobody to wake: the agent ends")

    def drifted(self) -> None:
        """The kernel is not as it was; from any thread."""
        self._look_at = 0.0
        self.wake()

    def is_news(self, kind: int, payload: memoryview) -> bool:
        """Whether an rtnetlink message is of our concern; from any thread."""
        if is_lost_part(kind, payload, TABLE):
            return True
        return self._router is not None and self._router.is_news(kind, payload)

    def round(self) -> bool:
        """Bring everything in line once; returns whether it is to be tried again soon."""
        with self._lock:
            self._doubt_in_time()
            troubles = [self._attempt(self._route), self._attempt(self._translate)]
        trouble = "; ".join(filter(None, troubles))
        if trouble and trouble != self._trouble:
            log.warning("network of the cluster, will retry", extra={"error": trouble})
        self._trouble = trouble
        return bool(trouble)

    async def run(self) -> None:
        """Have rounds until cancelled."""
        self._loop = asyncio.get_running_loop()
        pause = Pause(self._seams.random)
        with ThreadPoolExecutor(1, thread_name_prefix="mesh") as worker:
            while True:
                self._news.clear()
                again = await self._loop.run_in_executor(worker, self.round)
                if again:
                    await asyncio.sleep(pause.longer())
                    continue
                pause.reset()
                await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S if self._seams.in_sync() else SOON_S):
                await self._news.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GAP_S)

    def _doubt_in_time(self) -> None:
        now = self._seams.clock()
        if now < self._look_at:
            return
        self._look_at = now + self._seams.interval_s
        self._masquerader.doubt()
        if self._router:
            self._router.doubt()

    def _attempt(self, work: Callable[[], str]) -> str:
        try:
            return work()
        except DataplaneError as exc:
            return str(exc)
        except Exception as exc:  # the edge: a bug here must not end the service of others
            log.exception("network of the cluster, will retry")
            return f"internal error: {exc}"

    def _route(self) -> str:
        if not self._router:
            return ""
        seams = self._seams
        in_sync = seams.in_sync()
        outcome = self._router.reconcile(
            routing.model.Told(
                rows=self._blocks.table,
                blocks=self._blocks.holdings.blocks,
                in_sync=in_sync,
                trusted=not seams.doubt(),
            )
        )
        state = self._router.state
        seams.limit_mtu(state.mtu)
        if self._addresses and state.addresses != self._addresses:
            self._tell_readdressed()
        self._addresses = state.addresses
        return "; ".join(state.refused) if outcome is routing.reconciler.Outcome.RETRY else ""

    def _tell_readdressed(self) -> None:
        if loop := self._loop:
            loop.call_soon_threadsafe(self._seams.readdressed)

    def _translate(self) -> str:
        told = masquerade.model.Told(pools=self._blocks.pools, rows=self._blocks.table)
        self._masquerader.reconcile(told, self._seams.settings())
        return ""

    def describe(self) -> dict[str, Any]:
        """How it is, as an operator sees it; from any thread."""
        settings = self._seams.settings()
        return {
            "routing": asdict(self._router.state) if self._router else None,
            "masquerade": None
            if settings is None
            else {
                "pools": [pool.name for pool in self._blocks.pools if pool.masquerade],
                "kept": [str(cidr) for cidr in settings.non_masquerade_cidrs],
                "elements": self._masquerader.elements,
            },
            "trouble": self._trouble,
        }

    def problems(self) -> list[str]:
        """What is wrong, a line each; from any thread."""
        found = list(self._router.state.problems) if self._router else []
        found += [line for line in (self._trouble, self._seams.complaint()) if line]
        return list(dict.fromkeys(found))
