#!/usr/bin/env python3
"""What an agent's own code needs for Services: all at once, and one change among many.

    bench/service_changes.py cold NUMBER [ENDPOINTS]      in a network namespace of its own, as root
    bench/service_changes.py changes NUMBER COUNT

Nothing is left out but the network: objects are decoded from the API's JSON, translated, planned,
and handed to the kernel.  The answer is a line of JSON.
"""

import json
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from agent.catalogue import Catalogue  # noqa: E402
from dataplane import memory  # noqa: E402
from dataplane.nft.elements import Elements  # noqa: E402
from dataplane.nft.runner import NftRunner  # noqa: E402
from dataplane.nft.table import NftTable  # noqa: E402
from proxy import objects, translate  # noqa: E402
from proxy.model import NodeView  # noqa: E402
from proxy.reconciler import Reconciler  # noqa: E402
from proxy.tables import skeleton  # noqa: E402

RANGES = (ip_network("10.96.0.0/16"),)
PODS = ip_network("10.128.0.0/10")
VIEW = NodeView(name="node-1", pods=(PODS,), service_cidrs=RANGES)


def service(number: int) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"web-{number}",
            "namespace": f"team-{number % 200}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": f"web-{number}"},
        },
        "spec": {
            "clusterIP": str(RANGES[0].network_address + 256 + number),
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
            "selector": {"app": f"web-{number}"},
        },
    }


def endpoint(number: int) -> dict[str, Any]:
    return {
        "addresses": [str(PODS.network_address + 256 + number)],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": f"node-{number % 1000}",
        "targetRef": {"kind": "Pod", "name": f"web-{number:x}-abcde"},
        "zone": f"zone-{number % 3}",
    }


def slice_(number: int, members: list[int]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"web-{number}-abcde",
            "namespace": f"team-{number % 200}",
            "labels": {
                "kubernetes.io/service-name": f"web-{number}",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [endpoint(each) for each in members],
    }


class Timed(NftTable):
    """Counts the processor's time that the kernel takes, messages and all."""

    spent = 0.0

    def apply(self, **changes: Any) -> None:
        begun = time.process_time()
        super().apply(**changes)
        self.spent += time.process_time() - begun


class Node:
    """As agent.services.Services, in one thread."""

    def __init__(self) -> None:
        self.services: dict[str, translate.Translated] = {}
        self.slices: dict[str, translate.Slice | None] = {}
        self.catalogue = Catalogue(self.services, self.slices)
        self.tables = {4: Timed(skeleton(4), NftRunner(), Elements())}
        self.reconciler = Reconciler(self.tables, VIEW)
        self._service = msgspec.json.Decoder(objects.Service)
        self._slice = msgspec.json.Decoder(objects.EndpointSlice)

    def hear_service(self, text: bytes) -> None:
        found = self._service.decode(text)
        key = f"{found.metadata.namespace}/{found.metadata.name}"
        self.services[key] = translate.service(found)
        self.catalogue.service_changed(key, 0.0)

    def hear_slice(self, text: bytes) -> None:
        found = self._slice.decode(text)
        key = f"{found.metadata.namespace}/{found.metadata.name}"
        self.slices[key] = kept = translate.slice_(found)
        self.catalogue.slice_changed(key, kept, 0.0)

    def hear_all(self, number: int, endpoints: int) -> None:
        for at in range(number):
            self.hear_service(json.dumps(service(at)).encode())
            members = [at * endpoints + each for each in range(endpoints)]
            self.hear_slice(json.dumps(slice_(at, members)).encode())
        self.catalogue.take()

    def begin(self) -> None:
        names = self.catalogue.names()
        found = {name: self.catalogue.wanted(name, RANGES) for name in names}
        self.reconciler.begin({name: each for name, each in found.items() if each is not None})

    def follow(self) -> None:
        changes = self.catalogue.take()
        news = {name: self.catalogue.wanted(name, RANGES) for name in changes.names}
        self.reconciler.change(news)


def cold(number: int, endpoints: int) -> dict[str, float]:
    """Seconds of processor time: to hear of all, to plan it, to hand it to the kernel."""
    node = Node()
    node.reconciler.begin({})  # the rules, by nft
    begun = time.process_time()
    node.hear_all(number, endpoints)
    heard, wall = time.process_time(), time.perf_counter()
    node.begin()
    spent = time.process_time() - heard
    handed = node.tables[4].spent
    memory.give_back()
    return {
        "heard": heard - begun,
        "planned": spent - handed,
        "handed": handed,
        "wall": time.perf_counter() - wall,
        "resident_mb": _resident_mb(),
    }


def changes(number: int, count: int) -> dict[str, list[float]]:
    """Milliseconds of each change from its event to the kernel's word, and of processor time."""
    node = Node()
    node.hear_all(number, 2)
    node.begin()
    memory.give_back()
    wall: dict[str, list[float]] = {}
    processor: list[float] = []
    for kind, text in _events(number, count):
        begun, used = time.perf_counter(), time.process_time()
        node.hear_slice(text)
        node.follow()
        processor.append((time.process_time() - used) * 1000)
        wall.setdefault(kind, []).append((time.perf_counter() - begun) * 1000)
    assert node.reconciler.refused == {}
    return {**wall, "processor": processor}


def _events(number: int, count: int) -> Iterator[tuple[str, bytes]]:
    """One endpoint more, another one in its place, one less, at one Service after another."""
    for attempt in range(count):
        at = attempt * 7919 % number
        own, new = [2 * at, 2 * at + 1], 2 * number + 2 * attempt
        for kind, members in (
            ("added", [*own, new]),
            ("exchanged", [*own, new + 1]),
            ("removed", own),
        ):
            yield kind, json.dumps(slice_(at, members)).encode()


def _resident_mb() -> float:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[2:]]
    measured = cold(*numbers) if sys.argv[1] == "cold" else changes(*numbers)
    print(json.dumps(measured))
