"""A node without its data plane: `python -m tests.kernel.cluster_node CONFIG BOOT-ID`.

It is wired as an agent is, over the same store, and talks with ipamd as an agent does; but an ADD
ends when its addresses are durable, so that many nodes fit on one machine, and a test can boot one
anew.  Each line of input is [NUMBER, VERB, CONTAINER]; each line of output [NUMBER, ANSWER], where
the answer to "add" is a list of addresses, or {"refused": why}.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.cluster import Cluster
from agent.config import load
from agent.joining import join
from agent.log import configure
from agent.wiring import Wired, wire
from ipam.errors import IPAMError, NoFreeAddress
from ipam.leases import Attachment, Record


class Node:
    """The calls, on what was wired."""

    def __init__(self, wired: Wired, cluster: Cluster) -> None:
        assert wired.blocks is not None
        self._wired = wired
        self._blocks = wired.blocks
        self._cluster = cluster

    def add(self, container: str) -> object:
        who = Attachment("pods", container, "eth0")
        try:
            return self._attach(who)
        except IPAMError as exc:
            self._wired.leases.abandon(who)
            return {"refused": str(exc)}

    def _attach(self, who: Attachment) -> list[str]:
        leases, node = self._wired.leases, self._wired.node
        wanted = self._blocks.wanted(())
        try:
            given = leases.reserve(who, wanted)
        except NoFreeAddress as exc:
            raise self._blocks.exhaustion((), exc) from exc
        record = Record(
            who=who,
            boot_id=node.boot_id,
            started_ns=node.now(),
            sandbox="/none",
            netns_cookie=0,
            addresses=tuple(lease.address for lease in given),
        )
        leases.hold(record).result()
        return [str(lease.address.ip) for lease in given]

    def delete(self, container: str) -> object:
        self._wired.leases.release(Attachment("pods", container, "eth0")).result()
        return []

    def demand(self, pool: str) -> object:
        """Ask for a block of *pool*, as a network that names it does; ipamd is asked beside."""
        with suppress(IPAMError):
            self._blocks.wanted((pool,))
        return []

    def status(self, _: str) -> object:
        return self._cluster.describe()

    def check(self, _: str) -> object:
        return self._wired.leases.check() + self._cluster.problems()

    def tick(self) -> None:
        """What the agent does each second."""
        self._wired.leases.expire()


def main(config: Path, boot: str) -> None:
    loaded = load(config)
    configure(loaded)
    wired = wire(loaded, boot=boot)
    cluster = join(wired)
    assert cluster is not None
    cluster.enforce_now()
    threading.Thread(target=asyncio.run, args=(cluster.run(),), daemon=True).start()
    node = Node(wired, cluster)
    verbs: dict[str, Callable[[str], object]] = {
        "add": node.add,
        "delete": node.delete,
        "demand": node.demand,
        "status": node.status,
        "check": node.check,
    }
    writing = threading.Lock()

    def answer(number: int, verb: str, container: str) -> None:
        line = json.dumps([number, verbs[verb](container)]) + "\n"
        with writing:
            sys.stdout.write(line)
            sys.stdout.flush()

    ticking = threading.Event()

    def tick() -> None:
        while not ticking.wait(1.0):
            node.tick()

    threading.Thread(target=tick, daemon=True).start()
    with ThreadPoolExecutor(8) as pool:
        for line in sys.stdin:
            words: list[Any] = json.loads(line)
            pool.submit(answer, *words)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
