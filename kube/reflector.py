"""A copy of one kind of objects that follows the API server: list, watch, go on, list again.

    list (pages) ──► watch ──► the server ends it: watch on from the last revision
         ▲             ├─────► the connection ends: the same, after a pause
         └─────────────┴─────► 410, or an hour has passed: list anew, and compare

Nothing is known before the first list is whole, so whoever concludes something from an absence
waits for `synced`.  While the server is away the copy stays as it was.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from kube.client import Client, EventKind
from kube.errors import Expired, KubeError
from kube.objects import Meta

SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
WATCH_S = 300
RELIST_S = 3600.0

log = logging.getLogger(__name__)


class Named(Protocol):
    """Any object of Kubernetes."""

    @property
    def metadata(self) -> Meta: ...


Seen = TypeVar("Seen", bound=Named)
Kept = TypeVar("Kept")


def key_of(meta: Meta) -> str:
    """namespace/name, or the name where the kind has no namespaces."""
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(Generic[Seen, Kept]):
    """Which objects, and what is kept of each; *params* as `fieldSelector`."""

    path: str
    kind: type[Seen]
    keep: Callable[[Seen], Kept]
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """For status and metrics."""

    lists: int = 0
    watches: int = 0
    failures: int = 0


class Reflector(Generic[Seen, Kept]):
    """*objects* may be read from any thread; *changed* is called in the loop, with None at an end.

    *changed* is told of nothing twice: what a new list has as before is no change.
    """

    def __init__(
        self,
        client: Client,
        selection: Selection[Seen, Kept],
        *,
        random: Random,
        changed: Callable[[str, Kept | None], None] = lambda key, kept: None,
    ) -> None:
        self.objects: dict[str, Kept] = {}
        self.synced = asyncio.Event()
        self.trouble = ""
        self.revision = ""
        self.tally = Tally()
        self._client = client
        self._selection = selection
        self._random = random
        self._changed = changed
        self._list_at = 0.0
        self._pause_s = SHORTEST_PAUSE_S
        self._news = asyncio.Event()

    async def drive(self, tick: Callable[[], Awaitable[None]], *, every_s: float) -> None:
        """Follow, and *tick* once all is there, after news, and each *every_s*, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.run())
            await self.synced.wait()
            while True:
                self._news.clear()
                await tick()
                with suppress(TimeoutError):
                    async with asyncio.timeout(every_s * (0.75 + 0.5 * self._random.random())):
                        await self._news.wait()

    async def run(self) -> None:
        """Follow until cancelled; whatever the server does ends nothing."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                await self.follow_once(begun)
                # A server that ends each watch at once must not be asked without end.
                if loop.time() - begun >= 1:
                    self._pause_s = SHORTEST_PAUSE_S
                    continue
            except Expired:
                self.revision = ""
                log.info("too far behind: listing anew", extra={"what": self._selection.path})
            except KubeError as exc:
                self._failed(exc)
            await asyncio.sleep(self._pause_s * (0.5 + self._random.random()))
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _failed(self, exc: KubeError) -> None:
        self.tally.failures += 1
        if str(exc) != self.trouble:
            log.warning(
                "the API server does not answer as it should, will retry",
                extra={"what": self._selection.path, "error": str(exc)},
            )
        self.trouble = str(exc)

    async def follow_once(self, now: float) -> None:
        """List if need be, then watch until the server ends it.  Raises KubeError."""
        if not self.revision or now >= self._list_at:
            await self.list_all()
            self._list_at = now + RELIST_S * (0.75 + 0.5 * self._random.random())
        await self._watch()

    async def list_all(self) -> None:
        """Bring the copy in line with all there is.  Raises KubeError."""
        # Not forgotten until the new list is whole: the next attempt lists again.
        self.revision = ""
        seen: set[str] = set()
        revision = ""
        selection = self._selection
        pages = self._client.pages(selection.path, selection.kind, params=selection.params)
        async with aclosing(pages) as whole:
            async for page in whole:
                revision = page.metadata.version
                for item in page.items or ():
                    seen.add(self._put(item))
                await asyncio.sleep(0)  # others have a turn between pages
        for key in [key for key in self.objects if key not in seen]:
            self._drop(key)
        self.revision = revision
        self.tally.lists += 1
        self._well()

    async def _watch(self) -> None:
        selection = self._selection
        events: Any = self._client.watch(
            selection.path,
            selection.kind,
            after=self.revision,
            for_s=int(WATCH_S * (1 + self._random.random())),
            params=selection.params,
        )
        self.tally.watches += 1
        async with aclosing(events):
            async for kind, item in events:
                self._take(kind, item)
        self._well()

    def _take(self, kind: EventKind, item: Seen) -> None:
        match kind:
            case EventKind.ADDED | EventKind.MODIFIED:
                self._put(item)
            case EventKind.DELETED:
                self._drop(key_of(item.metadata))
            case EventKind.BOOKMARK:
                pass
        self.revision = item.metadata.resource_version or self.revision
        self._well()

    def _put(self, item: Seen) -> str:
        key, kept = key_of(item.metadata), self._selection.keep(item)
        if self.objects.get(key) != kept:
            self.objects[key] = kept
            self._tell(key, kept)
        return key

    def _drop(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self._tell(key, None)

    def _tell(self, key: str, kept: Kept | None) -> None:
        self._news.set()
        self._changed(key, kept)

    def _well(self) -> None:
        if self.trouble:
            log.info("the API server answers again", extra={"what": self._selection.path})
        self.trouble = ""
        self._pause_s = SHORTEST_PAUSE_S
        self.synced.set()
