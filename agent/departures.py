"""Connections to pods that are gone end; those to pods that merely left a Service go on.

    an endpoint left ─► does a connection lead there? ─► has its pod the address still?
                          no: done                         yes: both are asked again later
                                                           no:  conntrack forgets the connection

So the API server is asked of pods that somebody on this node is connected to, and of no others;
while it is away nothing ends.  Of a pod that left while no agent ran only the address is known.
"""

import asyncio
import logging
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import ip_address
from random import Random
from typing import Protocol

from dataplane.errors import DataplaneError
from dataplane.flows import Flows
from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.objects import Pod
from net.address import IPAddress
from proxy.stale_flows import Departed

SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
_PODS, _PODS_OF = "/api/v1/pods", "/api/v1/namespaces"
_ENDED = ("Succeeded", "Failed")

log = logging.getLogger(__name__)


class Conntrack(Protocol):
    """As dataplane.conntrack.Conntrack; raises DataplaneError."""

    def find(self, which: Collection[Flows]) -> set[Flows]: ...
    def forget(self, which: Collection[Flows]) -> None: ...


class Departures:
    """*conntrack* None: nobody's connections are known, and none are ended."""

    def __init__(self, client: Client, conntrack: Conntrack | None, random: Random) -> None:
        self._client, self._conntrack, self._random = client, conntrack, random
        self._lock = threading.Lock()
        self._new: list[Departed] = []
        self._waiting: list[Departed] = []
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def note(self, departed: Collection[Departed]) -> None:
        """These left; from any thread."""
        if not departed or self._loop is None:
            return
        with self._lock:
            self._new += departed
        with suppress(RuntimeError):  # the agent ends
            self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """End what is to end, until cancelled."""
        if self._conntrack is None:
            return
        self._loop = asyncio.get_running_loop()
        pause_s = SHORTEST_PAUSE_S
        while True:
            within_s = pause_s * (0.75 + 0.5 * self._random.random())
            try:
                async with asyncio.timeout(within_s if self._waiting else None):
                    await self._news.wait()
            except TimeoutError:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._waiting = await self._settle(self._conntrack, self._waiting)
                continue
            self._news.clear()
            with self._lock:
                new, self._new = self._new, []
            self._waiting += await self._settle(self._conntrack, new)
            pause_s = SHORTEST_PAUSE_S

    async def _settle(self, conntrack: Conntrack, departed: Collection[Departed]) -> list[Departed]:
        """End the connections to pods that are gone; returns those to be looked at again."""
        try:
            leading = await asyncio.to_thread(conntrack.find, _flows(departed))
            concerned = [one for one in departed if not leading.isdisjoint(one.flows)]
            gone = [one for one in concerned if await self._is_gone(one)]
            await asyncio.to_thread(conntrack.forget, _flows(gone))
        except DataplaneError as exc:
            log.warning("connections to former pods are not looked at", extra={"error": str(exc)})
            return list(departed)
        for one in gone:
            log.info(
                "connections to a pod that is gone are ended",
                extra={"service": str(one.service), "pod": one.pod, "address": str(one.address)},
            )
        return [one for one in concerned if one not in gone]

    async def _is_gone(self, one: Departed) -> bool:
        """Whether no pod has its address; what cannot be said is taken for no."""
        try:
            if not one.pod:
                return not await self._is_anybodys(one)
            path = f"{_PODS_OF}/{one.service.namespace}/pods/{one.pod}"
            return not _has(await self._client.get(path, Pod), one.address)
        except NotFound:
            return True
        except KubeError:
            return False

    async def _is_anybodys(self, one: Departed) -> bool:
        """Pods can be asked for by their first address alone: of the second, who is likely."""
        for field in (f"status.podIP={one.address}", f"metadata.namespace={one.service.namespace}"):
            async for page in self._client.pages(_PODS, Pod, params={"fieldSelector": field}):
                if any(_has(each, one.address) for each in page.items or ()):
                    return True
        return False


def _has(pod: Pod, address: IPAddress) -> bool:
    addresses = {ip_address(each.ip) for each in pod.status.pod_ips or ()}
    return pod.status.phase not in _ENDED and address in addresses


def _flows(departed: Iterable[Departed]) -> list[Flows]:
    return [each for one in departed for each in one.flows]
