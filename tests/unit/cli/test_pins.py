"""Which nodes have which blocks of a pool already."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from cli.answers import Problem
from cli.pins import InUse, in_use, pins
from ipam.cluster import Pool
from kube.objects import Page

POOL = Pool(name="ipv4", cidr=ip_network("10.244.0.0/16"), block_length=24)
SIX = Pool(name="ipv6", cidr=ip_network("fd00:10:244::/56"), block_length=64)


class Server:
    """An API server that has these objects."""

    def __init__(self, **lists: list[Any]) -> None:
        self._lists = lists

    async def pages(self, path: str, kind: type) -> AsyncIterator[Any]:
        for one in self._lists[path.rpartition("/")[2]]:
            yield msgspec.convert({"items": [one]}, Page[kind])  # type: ignore[valid-type]


def use(cidr: str, node: str = "a", what: str = "spec.podCIDRs of Node a") -> InUse:
    return InUse(ip_network(cidr), node, what)


def pod(name: str, *ips: str, node: str = "a", phase: str = "Running", **spec: Any) -> Any:
    return {
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"nodeName": node, **spec},
        "status": {"phase": phase, "podIPs": [{"ip": ip} for ip in ips]},
    }


def test_nodes_have_their_pod_cidrs_and_pods_their_addresses() -> None:
    server = Server(
        nodes=[
            {"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.244.1.0/24"]}},
            {"metadata": {"name": "new"}},
        ],
        pods=[
            pod("web", "10.244.1.7", "fd00::7"),
            pod("host", "192.0.2.1", hostNetwork=True),
            pod("done", "10.244.1.8", phase="Succeeded"),
            pod("waiting", node=""),
        ],
    )

    found = asyncio.run(in_use(server))  # type: ignore[arg-type]

    assert [(str(one.cidr), one.node, one.what) for one in found] == [
        ("10.244.1.0/24", "a", "spec.podCIDRs of Node a"),
        ("10.244.1.7/32", "a", "pod shop/web"),
        ("fd00::7/128", "a", "pod shop/web"),
    ]


@pytest.mark.parametrize(
    ("pool", "known", "wanted"),
    [
        (POOL, [use("10.244.1.0/24"), use("10.244.1.7/32")], {"10.244.1.0/24": "a"}),
        (
            POOL,
            [use("10.244.1.0/25"), use("10.244.9.9/32", "b")],
            {"10.244.1.0/24": "a", "10.244.9.0/24": "b"},
        ),
        (POOL, [use("10.244.2.0/23")], {"10.244.2.0/24": "a", "10.244.3.0/24": "a"}),
        (SIX, [use("fd00:10:244:1::/64"), use("10.244.1.0/24")], {"fd00:10:244:1::/64": "a"}),
        (POOL, [use("10.245.1.0/24"), use("fd00::7/128")], {}),
    ],
)
def test_blocks_are_pinned_to_whoever_has_addresses_of_them(
    pool: Pool, known: list[InUse], wanted: dict[str, str]
) -> None:
    assert {str(block): node for block, node in pins(pool, known).items()} == wanted


def test_a_block_that_two_nodes_have_addresses_of_is_refused() -> None:
    with pytest.raises(
        Problem, match=r"10\.244\.1\.0/24 of pool ipv4 is .* on a, and pod b/x on b"
    ):
        pins(POOL, [use("10.244.1.0/25"), use("10.244.1.200/32", "b", "pod b/x")])


def test_blocks_much_smaller_than_what_a_node_has_are_refused() -> None:
    small = Pool(name="ipv6", cidr=SIX.cidr, block_length=112)

    with pytest.raises(Problem, match="make them /64, or choose another pool"):
        pins(small, [use("fd00:10:244:1::/64")])
