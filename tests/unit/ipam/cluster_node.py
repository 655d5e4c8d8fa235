"""A node of the cluster in miniature: the agent's own code, over a disk and a network that fail.

What is modelled is what is around it: its disk, the kernel's pods and barrier, power, and the way
to ipamd, on which a call leaves as a message and waits until the model brings an answer.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import count
from random import Random
from typing import Any

from agent.cluster import Cluster
from agent.talk import Identity, Pause, Surroundings, Talk
from ipam import calls
from ipam.allocator import Allocator
from ipam.blocks import Blocks
from ipam.errors import IPAMError, StoreUnavailable
from ipam.holdings import Holdings, OwnState
from ipam.leases import Attachment, Record, State
from ipam.store import Change, MemoryStore, Snapshot
from net.address import IPAddress, IPNetwork

SECOND = 1_000_000_000
Message = calls.Register | calls.Claim | calls.Release | calls.Mirror
Send = Callable[[Message], int]


class Away(IPAMError):
    """No answer came, as the caller sees it."""


@dataclass(frozen=True, slots=True)
class Break:
    """What the disk does at one of the next commits: it may have been *applied* all the same.

    *ends*: the process dies there; otherwise it is told of an error, and goes on.
    """

    at: int
    applied: bool
    ends: bool


class Access:
    """One process's use of a disk that outlives it."""

    def __init__(self, disk: MemoryStore) -> None:
        self._disk = disk
        self.trouble: Break | None = None
        self.ended = False

    def load(self) -> Snapshot:
        return self._disk.load()

    def commit(self, changes: Iterable[Change]) -> None:
        trouble, self.trouble = self.trouble, None
        if trouble and trouble.at:
            self.trouble, trouble = replace(trouble, at=trouble.at - 1), None
        self.ended = self.ended or bool(trouble and trouble.ends and not trouble.applied)
        if self.ended:
            raise StoreUnavailable("the process is gone")
        if trouble is None or trouble.applied:
            self._disk.commit(changes)
        self.ended = bool(trouble and trouble.ends)
        if trouble:
            raise StoreUnavailable("the disk says that it failed")

    def probe(self) -> None:
        self.commit(())

    def close(self) -> None:
        pass


class Conversation:
    """One with ipamd: it goes on until it waits for an answer, or is over.

    *number* is that of the message whose answer it waits for.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._task: asyncio.Future[None] | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._turn: asyncio.Future[None] | None = None

    @property
    def is_under_way(self) -> bool:
        return self._task is not None

    async def begin(self, work: Awaitable[None]) -> None:
        self._task = asyncio.ensure_future(work)
        self._task.add_done_callback(lambda _: self._pass())
        await self._until_it_waits()

    async def ask(self, number: int | None) -> Any:
        """In the conversation: wait for the answer to message *number*; None: there is none."""
        self.number = number
        self._answer = asyncio.get_running_loop().create_future()
        self._pass()
        return await self._answer

    async def hear(self, answer: object) -> None:
        """In the model: an answer comes, or the error that stands for it."""
        self.number = None
        assert self._answer is not None
        if isinstance(answer, Exception):
            self._answer.set_exception(answer)
        else:
            self._answer.set_result(answer)
        await self._until_it_waits()

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = self.number = None

    def _pass(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    async def _until_it_waits(self) -> None:
        self._turn = asyncio.get_running_loop().create_future()
        await self._turn
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            task.result()


class Line:
    """The way to ipamd, see agent.talk.Ipamd."""

    def __init__(self, access: Access, send: Send) -> None:
        self._access = access
        self._send = send
        self.conversing, self.telling = Conversation(), Conversation()
        self.streamed: calls.Update | None = None
        self.told: calls.Mirror | None = None

    async def register(self, asked: calls.Register) -> calls.Registered:
        answer: calls.Registered = await self._ask(self.conversing, asked)
        return answer

    async def claim(self, asked: calls.Claim) -> calls.Claimed:
        answer: calls.Claimed = await self._ask(self.conversing, asked)
        return answer

    async def release(self, asked: calls.Release) -> tuple[IPNetwork, ...]:
        answer: tuple[IPNetwork, ...] = await self._ask(self.conversing, asked)
        return answer

    async def mirror(self, asked: calls.Mirror) -> int:
        self.told = asked
        answer: int = await self._ask(self.telling, asked)
        return answer

    async def audit(self, asked: calls.Audit) -> None:
        raise Away("nobody asks")

    async def leave(self, asked: calls.Leave) -> None:
        raise Away("killed")

    async def watch(self, *, after: int, frozen: bool) -> AsyncGenerator[calls.Update, None]:
        if self.streamed is not None:
            yield self.streamed
        raise Away("the stream ended")

    async def close(self) -> None:
        pass

    async def _ask(self, conversation: Conversation, message: Message) -> Any:
        return await conversation.ask(None if self._access.ended else self._send(message))


class Life:
    """One run of the agent: all in it is the real code."""

    def __init__(self, node: "Node", clock: Callable[[], float], send: Send) -> None:
        self.access = Access(node.disk)
        self.leases = Allocator(
            self.access,
            boot_id=node.boot_id,
            now=lambda: int(clock() * SECOND),
            cooldown_s=5.0,
        )
        self.blocks = Blocks(
            self.leases,
            node.disk.load(),
            boot_id=node.boot_id,
            new_uid=lambda: node.uid,
            pod_of=lambda record: "",
            clock=clock,
        )
        self.leases.join(self.blocks)
        self.line = Line(self.access, send)
        self.cluster = Cluster(
            Talk(
                blocks=self.blocks,
                leases=self.leases,
                ipamd=self.line,
                who=Identity(
                    node=node.name,
                    instance=f"{node.uid}-{node.lives}",
                    labels=dict,
                    addresses=lambda: (ip_address(f"192.0.2.{node.name[1:]}"),),
                ),
                around=Surroundings(
                    enforce=lambda lost: self._enforce(node, lost),
                    pod_of=lambda record: "",
                    clock=clock,
                    random=Random(node.lives),
                ),
            )
        )
        self._node = node
        self.cluster.enforce_now()
        self._reconcile()

    async def converse(self) -> None:
        await self.line.conversing.begin(self._noting(self.cluster.converse_once()))

    async def tell(self) -> None:
        await self.line.telling.begin(self._noting(self.cluster.tell_once()))

    async def follow(self, update: calls.Update | None) -> None:
        """Hear *update*, if any, and then nothing more; nothing at all before it is registered."""
        self.line.streamed = update
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await self._noting(self.cluster.follow(Pause(Random(0))))

    def expire(self) -> None:
        """What the agent does now and then, beside the verbs."""
        self.leases.expire()
        self._flush()
        self._reconcile()

    def add(self, who: Attachment, boot_id: str) -> tuple[IPAddress, ...]:
        """An ADD's part in it, or () where it is refused."""
        try:
            wanted = self.blocks.wanted(())
            given = tuple(lease.address for lease in self.leases.reserve(who, wanted))
            record = Record(
                who=who,
                boot_id=boot_id,
                started_ns=1,
                sandbox="",
                netns_cookie=1,
                addresses=given,
            )
            self.leases.hold(record).result()
        except IPAMError:
            self._try(self.leases.abandon, who)
            return ()
        return tuple(address.ip for address in given)

    def delete(self, who: Attachment) -> None:
        self._try(self.leases.release, who)

    async def end(self) -> None:
        self.access.ended = True
        for conversation in (self.line.conversing, self.line.telling):
            await conversation.end()
        self.leases.close()

    async def _noting(self, work: Awaitable[None]) -> None:
        try:
            await work
        except IPAMError as exc:
            self.cluster.failed(exc)
        self._flush()

    def _flush(self) -> None:
        """Wait for the disk, so that every course of events is the same the next time."""
        self.leases.check() if not self.access.ended else None

    def _enforce(self, node: "Node", lost: Collection[IPNetwork]) -> None:
        if not self.access.ended:
            node.dropped = frozenset(lost)

    def _reconcile(self) -> None:
        """End what has no pod: it is of another boot, or of an ADD or a DEL that failed."""
        for record in self.leases.records():
            if record.state is State.HELD and record.who not in self._node.pods:
                self._try(self.leases.release, record.who)

    @staticmethod
    def _try(step: Callable[[Attachment], Any], who: Attachment) -> None:
        try:
            step(who).result()
        except StoreUnavailable:
            return


@dataclass(frozen=True, slots=True)
class Isolation:
    """Since which *step* a machine is kept off the network, and the fence that this was for."""

    step: int
    epoch: int
    generation: str


class Node:
    """A machine: *pods* and *dropped* are what its kernel has, and *disk* outlives it all.

    *isolated*: its traffic is kept off the network, whatever it believes.
    *spoke*: the step in which ipamd last heard who it is.
    """

    def __init__(self, name: str, uid: str, *, boot: int = 0) -> None:
        self.name, self.uid = name, uid
        self.disk = MemoryStore()
        self.boot, self.lives = boot, 0
        self.powered, self.cut = False, False
        self.isolated: Isolation | None = None
        self.spoke = -1
        self.pods: dict[Attachment, tuple[IPAddress, ...]] = {}
        self.dropped: frozenset[IPNetwork] = frozenset()
        self.life: Life | None = None
        self._names = count()

    @property
    def boot_id(self) -> str:
        return f"{self.uid}-{self.boot}"

    @property
    def stored(self) -> Holdings:
        return self.disk.load().holdings or Holdings(uid=self.uid)

    def may_add(self, cidr: IPNetwork) -> bool:
        if self.life is None or self.life.blocks.unserved:
            return False
        block = self.life.blocks.holdings.find(cidr)
        return block is not None and block.state is OwnState.ACTIVE

    def uses(self, cidr: IPNetwork) -> bool:
        """Tell whether packets of pods in *cidr* can leave this node, now or after an ADD."""
        if self.cut or not self.powered or self.isolated is not None:
            return False
        has_pods = any(ip in cidr for given in self.pods.values() for ip in given)
        return (has_pods and cidr not in self.dropped) or self.may_add(cidr)

    def start(self, clock: Callable[[], float], send: Send) -> None:
        if not self.powered:
            self.boot += 1
            # What was in flight is for another instance, so an isolation ends with the boot.
            self.isolated = None
        self.powered = True
        self.lives += 1
        self.life = Life(self, clock, send)

    async def crash(self) -> None:
        if self.life is not None:
            await self.life.end()
        self.life = None

    async def power_off(self) -> None:
        await self.crash()
        self.powered = False
        self.pods.clear()
        self.dropped = frozenset()

    async def add(self) -> None:
        if self.life is not None:
            who = Attachment("web", f"{self.boot_id}-{next(self._names)}", "eth0")
            if given := self.life.add(who, self.boot_id):
                self.pods[who] = given

    async def delete(self, pick: int) -> None:
        if self.pods and self.life is not None:
            await self.end(list(self.pods)[pick % len(self.pods)])

    async def end(self, who: Attachment) -> None:
        del self.pods[who]
        if self.life is not None:
            self.life.delete(who)

    def cut_off(self) -> list[Attachment]:
        """The pods whose traffic is dropped."""
        lost = [(who, ip) for who, given in self.pods.items() for ip in given]
        return list({who: None for who, ip in lost if any(ip in cidr for cidr in self.dropped)})

    def faults(self) -> list[str]:
        """What must not be, on this node alone."""
        records = {record.who: record for record in self.disk.load().records}
        held = [ip for given in self.pods.values() for ip in given]
        found = [f"{ip} is held twice" for ip in {*held} if held.count(ip) > 1]
        for who, given in self.pods.items():
            record = records.get(who)
            kept = (
                record.state is State.HELD and [one.ip for one in record.addresses] if record else 0
            )
            if kept != list(given):
                found.append(f"I3: {who} was given {given}, and the disk has {record}")
        if self.life is not None:
            stored = {block.cidr: block for block in self.stored.blocks}
            for block in self.life.blocks.holdings.of_state(OwnState.ACTIVE):
                if stored.get(block.cidr) != block:
                    found.append(f"{block.cidr} is given from and is not on the disk")
        return found


def unready(message: Message, stored: Holdings) -> str:
    """Say what of *message* ought to be on the disk before it is sent, and is not."""
    if message.uid != stored.uid:
        return f"{message} is of a uid that is not kept"
    if isinstance(message, calls.Release):
        returning = {(b.cidr, b.revision) for b in stored.of_state(OwnState.RETURNING)}
        if not {(held.cidr, held.revision) for held in message.blocks} <= returning:
            return f"{message} gives back what is not kept as returning"
    return ""
