"""A cluster in miniature: one store, replicas of ipamd, nodes, and a network that loses things.

A node here is what the real agent must be: what it keeps is durable before it is used, it has
one call under way at a time, and takes no answer to a call that it has given up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from ipam.authority import Authority
from ipam.calls import Claim, Claimed, Held, Register, Registered, Release
from ipam.cluster import BlockState
from ipam.errors import IPAMError
from ipam.kv import Batch
from ipam.memory import DaemonMemory, Remembered
from ipam.memory_kv import Faults, MemoryCluster, MemoryKV
from net.address import IPNetwork

T = TypeVar("T")

Call = Register | Claim | Release
Answer = Registered | Claimed | tuple[IPNetwork, ...]


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


@dataclass(slots=True)
class Node:
    """*blocks*, uid, epoch, generation, counter and confirmed are what its disk has."""

    name: str
    uid: str
    epoch: int = 0
    generation: str = ""
    counter: int = 0
    confirmed: str = ""
    blocks: dict[IPNetwork, Held] = field(default_factory=dict)
    boot: int = 0
    instance: int = 0
    running: bool = True
    powered: bool = True
    cut: bool = False
    # Since when its traffic is kept off the network, whatever it believes; None: it is not.
    isolated: int | None = None
    spoke: int = -1
    pods: set[IPNetwork] = field(default_factory=set)
    dropped: set[IPNetwork] = field(default_factory=set)
    waiting: int | None = None
    nonce: str = ""

    @property
    def boot_id(self) -> str:
        return f"{self.uid}-{self.boot}"

    def may_add(self, cidr: IPNetwork) -> bool:
        held = self.blocks.get(cidr)
        return (
            self.running
            and self.confirmed == self.boot_id
            and held is not None
            and held.state is BlockState.ACTIVE
        )

    def uses(self, cidr: IPNetwork) -> bool:
        """Tell whether packets of pods in *cidr* can leave this node, now or after an ADD."""
        if self.cut or not self.powered or self.isolated is not None:
            return False
        return (cidr in self.pods and cidr not in self.dropped) or self.may_add(cidr)

    def give_back(self, pick: int) -> Release | None:
        """Mark an empty block, on disk, and ask to be rid of all that are marked."""
        empty = [held for cidr, held in self.blocks.items() if cidr not in self.pods]
        if not empty:
            return None
        held = empty[pick % len(empty)]
        self.blocks[held.cidr] = replace(held, state=BlockState.DRAINING)
        leaving = (held for held in self.blocks.values() if held.state is BlockState.DRAINING)
        return Release(node=self.name, uid=self.uid, epoch=self.epoch, blocks=tuple(leaving))

    def crash(self) -> None:
        self.running, self.waiting, self.nonce = False, None, ""

    def power_off(self) -> None:
        self.crash()
        self.powered = False
        self.pods.clear()
        self.dropped.clear()

    def start(self) -> None:
        if not self.powered:
            self.boot += 1
            # What was in flight is for another instance, so an isolation ends with the boot.
            self.isolated = None
        self.powered = self.running = True
        self.instance += 1

    def register(self) -> Register:
        return Register(
            node=self.name,
            uid=self.uid,
            boot_id=self.boot_id,
            instance=str(self.instance),
            epoch=self.epoch,
            generation=self.generation,
            counter=self.counter,
            blocks=tuple(self.blocks.values()),
        )

    def hear(self, answer: Answer, processed: int) -> None:
        """Take an answer, and make it durable in the same step."""
        match answer:
            case Registered():
                self._registered(answer, processed)
            case Claimed():
                for held in answer.blocks:
                    self._claimed(held)
                self.nonce = ""
                self.counter = max(self.counter, answer.counter)
            case _:
                for cidr in answer:
                    if cidr in self.blocks and self.blocks[cidr].state is BlockState.DRAINING:
                        del self.blocks[cidr]

    def _claimed(self, held: Held) -> None:
        """Take it, unless it is being given back: a copy of that call may still be under way."""
        mine = self.blocks.get(held.cidr)
        leaving = mine is not None and mine.revision == held.revision
        if held.epoch == self.epoch and held.state is BlockState.ACTIVE and not leaving:
            self.blocks[held.cidr] = held
            self.dropped.discard(held.cidr)

    def _registered(self, answer: Registered, processed: int) -> None:
        self.spoke = processed
        for cidr in answer.lost:
            self._lose(cidr)
        if answer.frozen:
            return
        if answer.generation != self.generation:
            self.counter = 0
        self.epoch, self.generation = answer.epoch, answer.generation
        self.counter = max(self.counter, answer.counter)
        self.confirmed = self.boot_id
        for held in answer.blocks:
            mine = self.blocks.get(held.cidr)
            # One that it does not know is the rest of a claim that it gave up, and is taken.
            leaving = mine is not None and mine.state is BlockState.DRAINING
            same = mine is not None and mine.revision == held.revision
            if held.state is BlockState.QUARANTINED or (leaving and same):
                continue
            self.blocks[held.cidr] = replace(held, state=BlockState.ACTIVE)
            self.dropped.discard(held.cidr)
        for cidr in [cidr for cidr, held in self.blocks.items() if held.epoch < self.epoch]:
            self._lose(cidr)
        if self.isolated is not None and processed > self.isolated:
            self.isolated = None

    def _lose(self, cidr: IPNetwork) -> None:
        self.blocks.pop(cidr, None)
        if cidr in self.pods:
            self.dropped.add(cidr)


async def perform(authority: Authority, call: Call) -> Answer | None:
    """Carry out *call*; None where it is refused."""
    try:
        match call:
            case Register():
                return await authority.register(call)
            case Claim():
                return await authority.claim(call)
            case Release():
                return await authority.release(call)
    except IPAMError:
        return None


def run(runner: asyncio.Runner, work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return runner.run(main())
