"""Which pools reach into what the cluster uses already."""

import asyncio
from ipaddress import ip_network
from typing import Any

from cli.overlap import Used, overlaps, used
from ipam.cluster import Pool
from kube.errors import NotFound

POOL = Pool(name="ipv4", cidr=ip_network("10.244.0.0/16"), block_length=24)
SIX = Pool(name="ipv6", cidr=ip_network("fd00:10:244::/56"), block_length=112)
NODES = {
    "items": [
        {
            "metadata": {"name": "one"},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "one"},
                    {"type": "InternalIP", "address": "10.244.7.2"},
                    {"type": "InternalIP", "address": "fd01::2"},
                ]
            },
        }
    ]
}
SERVICES = {"items": [{"spec": {"cidrs": ["10.96.0.0/16", "fd00:10:96::/112"]}}]}


class Server:
    """An API server that has these lists."""

    def __init__(self, **lists: Any) -> None:
        self._lists = lists

    async def get(self, path: str, kind: type) -> Any:
        name = path.rpartition("/")[2]
        if name not in self._lists:
            raise NotFound(path)
        return self._lists[name]


def seen(**lists: Any) -> list[tuple[str, str]]:
    found = asyncio.run(used(Server(**lists)))  # type: ignore[arg-type]
    return [(str(one.cidr), one.by) for one in found]


def test_nodes_and_services_use_addresses() -> None:
    assert seen(nodes=NODES, servicecidrs=SERVICES) == [
        ("10.244.7.2/32", "Node"),
        ("fd01::2/128", "Node"),
        ("10.96.0.0/16", "Service"),
        ("fd00:10:96::/112", "Service"),
    ]


def test_an_older_api_server_does_not_say_what_services_have() -> None:
    assert seen(nodes=NODES) == [("10.244.7.2/32", "Node"), ("fd01::2/128", "Node")]


def test_of_many_nodes_within_a_pool_one_is_named() -> None:
    nodes = [
        Used(ip_network(f"10.244.0.{last}"), "Node", f"the address of Node n{last}")
        for last in (1, 2)
    ]

    (wrong,) = overlaps([POOL, SIX], nodes)

    assert wrong.startswith(
        "pool ipv4 (10.244.0.0/16) overlaps 10.244.0.1/32, the address of Node n1: pods need"
    )


def test_services_within_a_pool_are_said_beside_nodes() -> None:
    known = [
        Used(ip_network("10.244.0.1"), "Node", "the address of Node n1"),
        Used(ip_network("10.244.128.0/20"), "Service", "addresses of Services"),
        Used(ip_network("fd00:10:96::/112"), "Service", "addresses of Services"),
    ]

    assert [line.split(",")[0] for line in overlaps([POOL, SIX], known)] == [
        "pool ipv4 (10.244.0.0/16) overlaps 10.244.0.1/32",
        "pool ipv4 (10.244.0.0/16) overlaps 10.244.128.0/20",
    ]
