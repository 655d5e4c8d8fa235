"""ipamd over a store in memory, as a process: `python -m tests.kernel.memory_ipamd DIRECTORY`.

It has the real edge, real TLS and the real decisions.  Its certificates and those of its nodes
are in DIRECTORY.  On standard output is its port, then an answer for each line of input:
`["fence", "n1"]` and the like, see `_COMMANDS`.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from ipam import calls
from ipam.authority import Authority
from ipam.cluster import Pool
from ipam.health import Health
from ipam.memory import DaemonMemory
from ipam.memory_kv import MemoryCluster, MemoryKV
from ipam.server import Edge, make_server, server_credentials
from tests import certificates

NODES = ("n1", "n2")


def _clock() -> float:
    """Five seconds a second: a node is taken for alive half a minute after its last sign."""
    return 5 * time.monotonic()


async def main(directory: Path) -> None:
    signer = certificates.Authority(directory)
    for node in NODES:
        signer.node(node)
    authority = Authority(
        MemoryKV(MemoryCluster(_clock)),
        cluster="test",
        memory=DaemonMemory(directory / "memory.json"),
        clock=_clock,
        random=random.Random(1),
    )
    server = make_server(Edge(authority), Health(), max_calls=64)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(signer.server()))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(authority.run())
        while not authority.replica.synced:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await authority.init(calls.Init())
        await server.start()
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, *arguments = json.loads(line)
            answer = await _COMMANDS[command](authority, *arguments)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        await server.stop(0)
        running.cancel()


async def _pool(authority: Authority, name: str, cidr: str, length: int, **more: Any) -> None:
    await authority.put_pool(Pool(name=name, cidr=ip_network(cidr), block_length=length, **more))


async def _fence(authority: Authority, node: str) -> list[str]:
    done = await authority.drain(calls.Drain(node=node, fenced=True, force=True, by="a test"))
    return [str(cidr) for cidr in done.blocks]


async def _drain(authority: Authority, node: str, undo: bool) -> None:
    await authority.drain(calls.Drain(node=node, undo=undo))


async def _settings(authority: Authority, values: dict[str, Any]) -> None:
    await authority.change_settings(**values)


async def _take(authority: Authority, node: str, count: int, *addresses: str) -> None:
    """Let another node, which is reached by *addresses*, have *count* blocks of each family."""
    who: dict[str, Any] = {"node": node, "uid": node}
    known = tuple(map(ip_address, addresses))
    await authority.register(calls.Register(boot_id="b", instance="i", addresses=known, **who))
    for number in range(count):
        await authority.claim(calls.Claim(epoch=1, nonce=str(number), **who))


_COMMANDS: dict[str, Callable[..., Awaitable[Any]]] = {
    "pool": _pool,
    "fence": _fence,
    "take": _take,
    "drain": _drain,
    "settings": _settings,
    "show": lambda authority, *what: authority.show(*what),
}


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
