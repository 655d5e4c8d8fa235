"""The far side of a cluster in miniature: replicas of ipamd over one store, dying at any step."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from ipam.authority import Authority
from ipam.calls import Claim, Claimed, Mirror, Register, Registered, Release
from ipam.errors import IPAMError
from ipam.kv import Batch
from ipam.memory import DaemonMemory, Remembered
from ipam.memory_kv import Faults, MemoryCluster, MemoryKV
from net.address import IPNetwork
from tests.unit.ipam.cluster_node import Message

T = TypeVar("T")

Answer = Registered | Claimed | tuple[IPNetwork, ...] | int | IPAMError


class Crashed(Exception):
    """The process is gone, in the middle of what it did."""


class Disk(DaemonMemory):
    """A file that may see its process die just before or just after it is safe."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self.kept: Remembered | None = None
        self.crash = ""

    def load(self) -> Remembered | None:
        return self.kept

    def keep(self, remembered: Remembered) -> None:
        crash, self.crash = self.crash, ""
        if crash == "before":
            raise Crashed
        self.kept = remembered
        if crash == "after":
            raise Crashed


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong while one call is served: answers of the store lost, or a crash."""

    lost: tuple[bool, ...] = ()
    crash_at: int | None = None
    disk: str = ""


class Ipamd:
    """One replica, which can die and come back."""

    def __init__(self, store: MemoryCluster, clock: Callable[[], float], number: int) -> None:
        self.store = store
        self.disk = Disk()
        self._clock = clock
        self._random = Random(number)
        self.start()

    def start(self) -> None:
        self.kv = MemoryKV(self.store)
        self.authority = Authority(
            self.kv,
            cluster="c",
            memory=self.disk,
            clock=self._clock,
            random=self._random,
        )
        self.incarnation = -1

    async def catch_up(self) -> None:
        """Do what following the store comes to."""
        replica = self.authority.replica
        if self.incarnation != self.store.incarnation:
            await replica.resync()
            self.incarnation = self.store.incarnation
            return
        events = self.store.events(replica.keys.state, replica.view.revision)
        replica.take(Batch(events, self.store.revision))

    async def serve(self, work: Callable[[Authority], Awaitable[Any]], trouble: Trouble) -> Any:
        """Return what *work* gives, None where the caller hears nothing; errors go to it."""
        self.kv.faults = Faults(lost=trouble.lost, gate=self._gate(trouble.crash_at))
        self.disk.crash = trouble.disk
        try:
            return await work(self.authority)
        except Crashed:
            self.start()
            self.kv.faults = Faults()
            await self.catch_up()
            return None
        finally:
            self.kv.faults = Faults()
            self.disk.crash = ""

    @staticmethod
    def _gate(crash_at: int | None) -> Callable[[str], Awaitable[None]]:
        calls = 0

        async def gate(method: str) -> None:
            nonlocal calls
            calls += 1
            if crash_at is not None and calls > crash_at:
                raise Crashed

        return gate


async def perform(authority: Authority, message: Message) -> Answer:
    """Carry out *message*; a refusal is an answer too."""
    try:
        match message:
            case Register():
                return await authority.register(message)
            case Claim():
                return await authority.claim(message)
            case Release():
                return await authority.release(message)
            case Mirror():
                return await authority.mirror(message)
    except IPAMError as exc:
        return exc


def run(runner: asyncio.Runner, work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return runner.run(main())
