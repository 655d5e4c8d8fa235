"""Clients that open one connection after the other, and what became of each."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.cluster import AGNHOST, Cluster, pod, until

_RATE = 50
_PATIENCE_S = 30  # a busy machine is slow; who is refused, reset or forgotten has failed
_MANY = 1_000_000
# To standard error, which is not buffered: curl's exit status, HTTP's, seconds.
_SAY = r"%{stderr}%{exitcode} %{http_code} %{time_total}\n"


@dataclass(frozen=True, slots=True)
class Client:
    """Where one runs, in the node's own network or not, and what it asks."""

    node: str
    url: str
    is_host: bool = False


@dataclass(slots=True)
class Load:
    """Complete when it has ended; *failed*: how often, by client and what curl said."""

    connections: int = 0
    slowest_s: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.failed.total()} of {self.connections} connections failed"
            f"{''.join(f', {count} {what}' for what, count in self.failed.items())}; "
            f"the slowest took {self.slowest_s:.2f} s"
        )


@contextmanager
def connecting(cluster: Cluster, clients: Mapping[str, Client]) -> Iterator[Load]:
    """Have these, by name, open 50 connections a second each meanwhile."""
    load = Load()
    try:
        cluster.apply(*(_pod(name, each) for name, each in clients.items()))
        for name in clients:
            until(lambda name=name: _said(cluster, name), what=f"{name} asks")  # type: ignore[misc]
        yield load
        for name in clients:
            _count(load, name, _said(cluster, name))
    finally:
        cluster.kubectl("delete", "pod", "--force", "--ignore-not-found", *clients)


def _pod(name: str, client: Client) -> dict[str, Any]:
    curl = (
        *("curl", "--silent", "--output", "/dev/null", "--max-time", str(_PATIENCE_S)),
        *("--rate", f"{_RATE}/s", "--header", "Connection: close", "--write-out", _SAY),
        f"{client.url}?[1-{_MANY}]",
    )
    container = {"name": "curl", "image": AGNHOST, "command": [*curl]}
    return pod(name, client.node, containers=[container], hostNetwork=client.is_host)


def _said(cluster: Cluster, name: str) -> list[str]:
    found = cluster.get("pod", name)["status"].get("containerStatuses", [{}])[0]
    if not found.get("started"):
        return []
    return cluster.kubectl("logs", name).splitlines()


def _count(load: Load, name: str, said: list[str]) -> None:
    for line in said:
        status, http, seconds = line.split()
        load.connections += 1
        load.slowest_s = max(load.slowest_s, float(seconds))
        if (status, http) != ("0", "200"):
            load.failed[f"{name}: curl {status}, HTTP {http}"] += 1
