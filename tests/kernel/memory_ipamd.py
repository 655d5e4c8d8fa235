"""ipamd over a store in memory, as a process: `python -m tests.kernel.memory_ipamd DIRECTORY`.

It has the real edge, real TLS and the real decisions.  Its certificates, those of its nodes and
a journal of its calls are in DIRECTORY.  On standard output is its port, then an answer for each
line of input: `["fence", "n1"]` and the like, see `_COMMANDS`.
"""

import asyncio
import json
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
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
from net.address import IPNetwork
from tests import certificates
from tests.kernel.agents import ROOT, Machine
from tests.kernel.sockets import inside

NODES = ("n1", "n2")


def _clock() -> float:
    """Five seconds a second: a node is taken for alive half a minute after its last sign."""
    return 5 * time.monotonic()


class Ipamd:
    """The process; told by lines, see `_COMMANDS`."""

    def __init__(self, machine: Machine, directory: Path, prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        with inside(machine.host):
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.kernel.memory_ipamd", str(directory)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.port = int(self._read())

    def do(self, *command: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._read())

    def settings(self, node: str = "n1") -> dict[str, object]:
        return {
            "endpoints": [f"127.0.0.1:{self.port}"],
            "ca": str(self.directory / "ca.pem"),
            "certificate": str(self.directory / f"node-{node}.pem"),
            "key": str(self.directory / f"node-{node}.key"),
            "node": node,
            "addresses": ["192.0.2.1"],
        }

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def journal(self) -> list[tuple[float, str, Any]]:
        """When what was asked, and answered."""
        found = []
        with (self.directory / "journal").open("rb") as journal, suppress(EOFError):
            while True:
                found.append(pickle.load(journal))
        return found

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "ipamd has ended"
        return line


class Journaled(Authority):
    """Notes each call of a node before it is looked at, and each answer before it is sent."""

    journal: Path

    async def register(self, asked: calls.Register) -> calls.Registered:
        # A view of a mapping is not pickled.
        self._note("asked", replace(asked, labels={}))
        answer = await super().register(asked)
        self._note("answered", replace(answer, pools=()))
        return answer

    async def claim(self, asked: calls.Claim) -> calls.Claimed:
        self._note("asked", asked)
        answer = await super().claim(asked)
        self._note("answered", answer)
        return answer

    async def release(self, asked: calls.Release) -> tuple[IPNetwork, ...]:
        self._note("asked", asked)
        return await super().release(asked)

    def _note(self, what: str, message: Any) -> None:
        with self.journal.open("ab") as journal:
            pickle.dump((time.time(), what, message), journal)


async def main(directory: Path) -> None:
    signer = certificates.Authority(directory)
    for node in NODES:
        signer.node(node)
    authority = Journaled(
        MemoryKV(MemoryCluster(_clock)),
        cluster="test",
        memory=DaemonMemory(directory / "memory.json"),
        clock=_clock,
        random=random.Random(1),
    )
    authority.journal = directory / "journal"
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


async def _pin(authority: Authority, node: str, cidr: str) -> None:
    await authority.pin(calls.Pin(node=node, cidr=ip_network(cidr)))


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
    "pin": _pin,
    "settings": _settings,
    "tick": lambda authority: authority.tick(),
    "show": lambda authority, *what: authority.show(*what),
}


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
