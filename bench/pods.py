#!/usr/bin/env python3
"""What it costs in memory to know all pods of a large cluster.

    bench/pods.py [NUMBER]        50,000 without one

A server of as many pods, some kilobytes of JSON each, runs in one process; a client follows it
in another, once alone and once beside all that an agent imports.  Each pod is kept as whoever
needs all of them would: small, with what many have alike kept once.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from dataplane import memory  # noqa: E402
from kube.access import Access  # noqa: E402
from kube.client import Client  # noqa: E402
from kube.objects import Pod  # noqa: E402
from kube.reflector import Reflector, Selection  # noqa: E402

NUMBER = 50_000
Labels = tuple[tuple[str, str], ...]


class Small(msgspec.Struct, frozen=True, gc=False):
    namespace: str
    name: str
    node: str
    labels: Labels
    addresses: tuple[str, ...]


class Shared:
    """Strings and sets of labels, each once."""

    def __init__(self) -> None:
        self._strings: dict[str, str] = {}
        self._labels: dict[Labels, Labels] = {}

    def small(self, pod: Pod) -> Small:
        labels = tuple(sorted((pod.metadata.labels or {}).items()))
        if labels not in self._labels:
            labels = tuple((self._once(key), self._once(value)) for key, value in labels)
        return Small(
            namespace=self._once(pod.metadata.namespace),
            name=pod.metadata.name,
            node=self._once(pod.spec.node_name),
            labels=self._labels.setdefault(labels, labels),
            addresses=tuple(each.ip for each in pod.status.pod_ips or ()),
        )

    def _once(self, text: str) -> str:
        return self._strings.setdefault(text, text)


def pod(number: int) -> dict[str, Any]:
    """As an API server has them, managed fields and all: about 4 KB."""
    app = number // 50
    return {
        "metadata": {
            "name": f"web-{app}-{number:x}abcde",
            "namespace": f"team-{number % 200}",
            "uid": f"{number:08x}-1111-2222-3333-444455556666",
            "resourceVersion": str(1000 + number),
            "labels": {"app": f"web-{app}", "pod-template-hash": f"{app:x}abc", "tier": "front"},
            "annotations": {"note": "x" * 200},
            "managedFields": [
                {"fieldsV1": {f"f:{key}": {"f:a": {}, "f:b": {}} for key in range(40)}}
            ],
        },
        "spec": {
            "nodeName": f"node-{number % 1000}",
            "containers": [
                {"name": "c", "env": [{"name": f"E{at}", "value": "v" * 20} for at in range(20)]}
            ],
        },
        "status": {
            "phase": "Running",
            "podIPs": [
                {"ip": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"},
                {"ip": f"fd00::{number:x}"},
            ],
            "containerStatuses": [
                {"image": "x" * 60, "imageID": "y" * 90, "containerID": "z" * 80}
            ],
        },
    }


async def serve(number: int) -> None:
    """Lists in pages, and a watch on which nothing happens."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
                asked = dict(part.partition("=")[::2] for part in target.split("?")[1].split("&"))
                if "watch" in asked:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    await reader.read()
                    return
                first, limit = int(asked.get("continue") or 0), int(asked["limit"])
                rest = str(first + limit) if first + limit < number else ""
                page = {
                    "metadata": {"resourceVersion": "9", "continue": rest},
                    "items": [pod(at) for at in range(first, min(number, first + limit))],
                }
                body = json.dumps(page).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def follow(port: int) -> None:
    client = Client(lambda: Access(server=f"http://127.0.0.1:{port}"))
    selection = Selection(path="/api/v1/pods", kind=Pod, keep=Shared().small)
    copy: Reflector[Pod, Small] = Reflector(client, selection, random=Random(1))
    print(f"  before the list   {resident()}")
    begun = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(copy.run())
        await copy.synced.wait()
        seconds = time.process_time() - begun
        memory.give_back()
        print(f"  {len(copy.objects):,} pods       {resident()}, {seconds:.1f} s of processor time")
        running.cancel()
    await copy.list_all()
    print(f"  listed anew       {resident()}")
    client.close()


def resident() -> str:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    now, most = (int(lines[key].split()[0]) // 1024 for key in ("VmRSS", "VmHWM"))
    return f"{now} MB resident, {most} at most"


def clients() -> Iterator[tuple[str, list[str]]]:
    yield "nothing else", []
    yield "beside all that an agent imports", ["agent"]


def main() -> int:
    if sys.argv[1:2] == ["follow"]:
        if sys.argv[3:]:
            for name in ("cluster", "daemon", "kubernetes", "mesh"):
                import_module(f"agent.{name}")
            import_module("ipam.client")
        asyncio.run(follow(int(sys.argv[2])))
        return 0
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2])))
        return 0
    number = sys.argv[1] if sys.argv[1:] else str(NUMBER)
    argv = [sys.executable, __file__]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    with subprocess.Popen([*argv, "serve", number], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        try:
            for name, more in clients():
                print(name, flush=True)
                subprocess.run([*argv, "follow", port, *more], check=True, env=environment)
        finally:
            server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
