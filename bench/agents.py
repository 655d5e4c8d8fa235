"""Agents' talk with ipamd, many in one process: `agents.py CONFIG`, told what to do like nodes.py.

The talk is the agent's own (agent.cluster), and so are allocator and blocks, over a store in
memory; what is simulated is the ADDs and DELs that make and end leases.
"""

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from itertools import count, cycle, islice
from pathlib import Path
from random import Random
from typing import Any

from agent.cluster import Cluster
from agent.talk import Identity, Surroundings, Talk
from ipam.allocator import Allocator
from ipam.blocks import Blocks
from ipam.client import Client
from ipam.errors import NotServed
from ipam.leases import Attachment, Record
from ipam.store import MemoryStore
from ipam.tls import TLSFiles

_BOOT = "00000000-0000-4000-8000-000000000001"
_WITHIN_S = 60.0


class Agent:
    """One node; its leases come and go, the oldest first."""

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        number, certificate, key = config["nodes"][name]
        files = TLSFiles(certificate=Path(certificate), key=Path(key), ca=Path(config["ca"]))
        store = MemoryStore()
        self.name = name
        self._leases = Allocator(store, boot_id=_BOOT, now=_now_ns)
        self._blocks = Blocks(
            self._leases,
            store.load(),
            boot_id=_BOOT,
            new_uid=lambda: f"uid-{name}",
            pod_of=lambda record: f"bench/{record.who.container_id}",
            clock=time.monotonic,
        )
        self._leases.join(self._blocks)
        self._held: deque[Attachment] = deque()
        self._numbers = count()
        self.cluster = Cluster(
            Talk(
                blocks=self._blocks,
                leases=self._leases,
                ipamd=Client(config["endpoints"], files),
                who=Identity(
                    node=name,
                    instance=f"instance-{name}",
                    labels=dict,
                    addresses=lambda: (ip_address(f"192.0.2.{number + 1}"),),
                ),
                around=Surroundings(
                    enforce=lambda lost: None,
                    pod_of=lambda record: f"bench/{record.who.container_id}",
                    clock=time.monotonic,
                    random=Random(number),
                ),
            )
        )

    @property
    def has_blocks(self) -> bool:
        try:
            return len(self._blocks.wanted(()).range_sets) == 2
        except NotServed:
            return False

    def add(self) -> str:
        who = Attachment("bench", f"{self.name}-container-{next(self._numbers)}", "eth0")
        given = self._leases.reserve(who, self._blocks.wanted(()))
        record = Record(
            who=who,
            boot_id=_BOOT,
            started_ns=_now_ns(),
            sandbox=f"/run/netns/{who.container_id}",
            netns_cookie=0,
            addresses=tuple(lease.address for lease in given),
        )
        self._leases.hold(record).result()
        self._held.append(who)
        return self._key(who)

    def delete(self) -> str:
        who = self._held.popleft()
        self._leases.release(who).result()
        return f"-{self._key(who)}"

    def _key(self, who: Attachment) -> str:
        return f"{self.name}/{who.network}/{who.container_id}/{who.ifname}"


class Agents:
    """All agents of this process; each method is a command."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._agents = [Agent(name, config) for name in config["nodes"]]
        self._talks: list[asyncio.Task[None]] = []

    async def begin(self, each: int) -> dict[str, Any]:
        """Start the talks, and have *each* leases on every node."""
        self._talks = [asyncio.create_task(agent.cluster.run()) for agent in self._agents]
        async with asyncio.timeout(_WITHIN_S):
            while not all(agent.has_blocks for agent in self._agents):  # noqa: ASYNC110 - as ADDs do
                await asyncio.sleep(0.1)
        return {"changes": await self._change([Agent.add] * each * len(self._agents), 1_000)}

    async def churn(self, leases: int, rate: float) -> dict[str, Any]:
        """Exchange *leases* of them for new ones, *rate* a second, on one node after another."""
        return {"changes": await self._change([Agent.delete, Agent.add] * leases, 2 * rate)}

    async def _change(
        self, steps: Sequence[Callable[[Agent], str]], rate: float
    ) -> dict[str, float]:
        """What was done, and when."""
        done: dict[str, float] = {}
        began = time.monotonic()
        pairs = 2 if Agent.delete in steps else 1
        agents = (agent for one in cycle(self._agents) for agent in (one,) * pairs)
        for number, (step, agent) in enumerate(zip(steps, islice(agents, len(steps)), strict=True)):
            await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
            key = step(agent)
            done[key] = time.monotonic()
        return done


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def main(config: dict[str, Any]) -> None:
    agents = Agents(config)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, options = json.loads(line)
        answer = await getattr(agents, name)(**options)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
