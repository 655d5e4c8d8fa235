"""A simulated API server of a large cluster: `api_server.py PORT NODE`.

1,000 nodes, one of them NODE, 50 pods on each, and a Service for every ten pods; as large as a
real server's objects are.  Lists are served in pages, by the selectors that agents use; on a watch
nothing happens but bookmarks; a patch or a new object is taken note of by nobody.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from pods import pod

from agent.own_node import condition

NODES, PODS_EACH, NAMESPACES, PODS_A_SERVICE = 1_000, 50, 200, 10
SERVICES = NODES * PODS_EACH // PODS_A_SERVICE
_REVISION = "9"

Object = dict[str, Any]


class Objects:
    """All that is there; made anew each time, since they would be some hundred megabytes."""

    def __init__(self, measured: str) -> None:
        self._measured = measured

    def node_name(self, number: int) -> str:
        return self._measured if number == 0 else f"node-{number}"

    def node(self, number: int) -> Object:
        ready = {"type": "Ready", "status": "True", "message": "y" * 80}
        # As the agent would have it, so that it has nothing to write.
        conditions = [ready, ready, ready, msgspec.to_builtins(condition(""))]
        images = [{"names": ["z" * 90, "z" * 60], "sizeBytes": 1} for _ in range(50)]
        return {
            "metadata": _meta(self.node_name(number), labels={"zone": f"z-{number % 3}"}),
            "spec": {"podCIDRs": [f"10.{number >> 8}.{number & 255}.0/26"]},
            "status": {"conditions": conditions, "images": images},
        }

    def pod(self, number: int) -> Object:
        made = pod(number)
        made["spec"]["nodeName"] = self.node_name(number % NODES)
        return made

    def service(self, number: int) -> Object:
        port = {"name": "http", "protocol": "TCP", "port": 80}
        ip = f"10.96.{number >> 8}.{number & 255}"
        return {
            "metadata": _meta(f"web-{number}", f"team-{number % NAMESPACES}"),
            "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [port]},
            "status": {"loadBalancer": {}},
        }

    def slice(self, number: int) -> Object:
        first = number * PODS_A_SERVICE
        endpoints = [
            {
                "addresses": [f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": self.node_name(at % NODES),
                "targetRef": {"kind": "Pod", "name": f"web-{number}-{at:x}abcde", "uid": "u" * 36},
            }
            for at in range(first, first + PODS_A_SERVICE)
        ]
        labels = {"kubernetes.io/service-name": f"web-{number}"}
        return {
            "metadata": _meta(f"web-{number}-a", f"team-{number % NAMESPACES}", labels),
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        }

    def listed(self, path: str, selector: str) -> Iterator[Object]:
        """Those of a collection that a field selector names."""
        mine = range(0, NODES * PODS_EACH, NODES)
        kinds: dict[str, tuple[Callable[[int], Object], range]] = {
            "/api/v1/nodes": (self.node, range(1 if selector else NODES)),
            "/api/v1/pods": (self.pod, mine if selector else range(NODES * PODS_EACH)),
            "/api/v1/namespaces": (
                lambda number: {"metadata": _meta(f"team-{number}")},
                range(NAMESPACES),
            ),
            "/api/v1/services": (self.service, range(SERVICES)),
            "/apis/discovery.k8s.io/v1/endpointslices": (self.slice, range(SERVICES)),
        }
        make, numbers = kinds.get(path, (self.node, range(0)))
        return map(make, numbers)


def _meta(name: str, namespace: str = "", labels: dict[str, str] | None = None) -> Object:
    return {
        "name": name,
        "namespace": namespace,
        "uid": f"{hash(name) & 0xFFFFFFFF:08x}-1111-2222-3333-444455556666",
        "resourceVersion": _REVISION,
        "labels": labels or {},
        "managedFields": [{"fieldsV1": {f"f:{key}": {"f:a": {}} for key in range(20)}}],
    }


class Server:
    """Answers one request of a connection after another."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        body = await reader.readexactly(int(length or 0))
        method, target, _ = head.split(" ", 2)
        parts = urlsplit(target)
        asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if "watch" in asked:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await writer.drain()
            await reader.read()  # nothing happens, until the client goes
            return
        if method == "get":
            answer = self._page(parts.path, asked)
        elif parts.path.startswith("/api/v1/nodes/"):
            answer = self._objects.node(0) | _status(body)
        else:
            answer = json.loads(body or b"{}")
        text = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        await writer.drain()

    def _page(self, path: str, asked: dict[str, str]) -> Object:
        first, limit = int(asked.get("continue") or 0), int(asked.get("limit", 500))
        objects = self._objects.listed(path, asked.get("fieldselector", ""))
        found = list(islice(objects, first, first + limit + 1))
        rest = str(first + limit) if len(found) > limit else ""
        return {
            "metadata": {"resourceVersion": _REVISION, "continue": rest},
            "items": found[:limit],
        }


def _status(body: bytes) -> Object:
    patch = json.loads(body or b"{}")
    return {"status": patch["status"]} if isinstance(patch, dict) and "status" in patch else {}


async def main(port: int, measured: str) -> None:
    server = await asyncio.start_server(Server(Objects(measured)).serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
