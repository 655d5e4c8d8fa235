"""Events on pods, for what their users should see: few, and never waited for.

    tell ──► merged with one that says the same ──► the rate of its object ──► core/v1 Event

An event that says the same of the same object again is counted, not written anew, and its count
is written at most every half minute.  What is over the rate, or finds the API server away, is
dropped: the log has it as well.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.objects import Object

COMPONENT = "isthmus"
BURST = 10
REFILL_S = 6.0
REPEAT_S = 30.0
FORGET_S = 600.0
MOST_KNOWN = 1024
LONGEST = 1024  # of a message, by the API

log = logging.getLogger(__name__)


class Severity(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Which object; *namespace* is "" for a Node, whose events are in `default`."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    about: About
    reason: str
    message: str
    severity: Severity = Severity.WARNING


@dataclass(slots=True)
class _Known:
    """One event as it is at the API server; *name* "": not written yet."""

    name: str = ""
    count: int = 0
    written_at: float = 0.0
    is_waiting: bool = False


def _rfc3339() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Recorder:
    """`tell` may be called from any thread; all else is of one event loop.

    *clock*: monotonic seconds; *now*: RFC 3339.
    """

    def __init__(
        self,
        client: Client,
        *,
        host: str,
        clock: Callable[[], float],
        now: Callable[[], str] = _rfc3339,
    ) -> None:
        self.dropped = 0
        self._client = client
        self._host = host
        self._clock, self._now = clock, now
        self._known: OrderedDict[Told, _Known] = OrderedDict()
        self._tokens, self._refilled_at = float(BURST), clock()
        self._waiting: asyncio.Queue[Told] = asyncio.Queue(maxsize=BURST * 4)
        self._loop: asyncio.AbstractEventLoop | None = None

    def tell(self, told: Told) -> None:
        """Let it be known, some time; nothing is raised."""
        if loop := self._loop:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._take, told)

    async def run(self) -> None:
        """Write until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await self._write(await self._waiting.get())
        finally:
            self._loop = None

    def _take(self, told: Told) -> None:
        known = self._known.setdefault(told, _Known())
        self._known.move_to_end(told)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        now = self._clock()
        if known.name and now - known.written_at > FORGET_S:
            known.name, known.count = "", 0
        known.count += 1
        if known.is_waiting or (known.name and now - known.written_at < REPEAT_S):
            return
        if not self._has_token(now):
            self.dropped += 1
            return
        try:
            self._waiting.put_nowait(told)
            known.is_waiting = True
        except asyncio.QueueFull:
            self.dropped += 1

    def _has_token(self, now: float) -> bool:
        gained = (now - self._refilled_at) / REFILL_S
        self._tokens, self._refilled_at = min(float(BURST), self._tokens + gained), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _write(self, told: Told) -> None:
        known = self._known.get(told) or _Known(count=1)
        known.is_waiting = False
        try:
            await self._put(told, known)
            known.written_at = self._clock()
        except KubeError as exc:
            self.dropped += 1
            log.warning("event not written", extra={"reason": told.reason, "error": str(exc)})

    async def _put(self, told: Told, known: _Known) -> None:
        path = f"/api/v1/namespaces/{told.about.namespace or 'default'}/events"
        now = self._now()
        if known.name:
            repeated = {"count": known.count, "lastTimestamp": now}
            try:
                await self._client.patch(f"{path}/{known.name}", repeated, Object)
                return
            except NotFound:  # events live for an hour
                known.name, known.count = "", 1
        made = await self._client.create(path, self._event(told, known.count, now), Object)
        known.name = made.metadata.name

    def _event(self, told: Told, count: int, now: str) -> dict[str, Any]:
        about = told.about
        namespace = about.namespace or "default"
        concerned = {
            "kind": about.kind,
            "apiVersion": "v1",
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{about.name}.", "namespace": namespace},
            "involvedObject": {key: value for key, value in concerned.items() if value},
            "reason": told.reason,
            "message": told.message[:LONGEST],
            "type": told.severity,
            "source": {"component": COMPONENT, "host": self._host},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": count,
        }
