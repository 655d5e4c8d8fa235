"""Whoever watches etcd itself, to know when something was committed."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable

from hosts import BenchError

from ipam.etcd import EtcdKV
from ipam.etcd_config import EtcdConfig
from ipam.kv import Event, KVError

_ROOT = "/isthmus/v1/default/"


class Observer:
    """Notes when a key below *part* of the cluster's was put, or deleted: "-KEY".  A thread."""

    def __init__(self, url: str, part: str) -> None:
        self._config = EtcdConfig(endpoints=(url,), prefix=_ROOT)
        self._prefix = _ROOT + part
        self._times: dict[str, float] = {}
        self._news = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._task = self._loop.create_task(self._follow())
            self._loop.run_until_complete(self._task)

    async def _follow(self) -> None:
        kv = EtcdKV(self._config)
        try:
            after = (await kv.identity()).revision
            while True:
                with contextlib.suppress(KVError):
                    async for batch in kv.watch(self._prefix, after=after):
                        after = batch.revision
                        self._note(batch.events)
                await asyncio.sleep(0.05)  # etcd is away, which is what is measured
        finally:
            await kv.close()

    def _note(self, events: Iterable[Event]) -> None:
        now = time.monotonic()
        with self._news:
            for event in events:
                key = event.key.removeprefix(self._prefix)
                self._times[key if event.entry else f"-{key}"] = now
            self._news.notify_all()

    def times(self, count: int, *, within_s: float) -> dict[str, float]:
        """When each of *count* keys was last changed, once there are as many; then forgotten.

        Raises BenchError.
        """
        with self._news:
            if not self._news.wait_for(lambda: len(self._times) >= count, within_s):
                raise BenchError(f"etcd had {len(self._times)} of {count} keys in {within_s:g} s")
            found, self._times = self._times, {}
            return found

    def __enter__(self) -> "Observer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
