"""Whose packets are translated, and towards whom not."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ipam.calls import PoolRow, TableRow
from ipam.cluster import BlockState
from masquerade.model import Told
from masquerade.plan import plan
from masquerade.settings import Settings
from net.address import IPAddress, IPNetwork

FOUR = PoolRow(name="four", cidr=ip_network("10.80.0.0/16"), masquerade=True)
SIX = PoolRow(name="six", cidr=ip_network("fd80::/64"), masquerade=True)
PUBLIC = PoolRow(name="public", cidr=ip_network("2001:db8:80::/64"), masquerade=False)
LINK_LOCAL = {"kept4 169.254.0.0/16", "kept6 fe80::/10"}


def told(*pools: PoolRow, nodes: Iterable[str] = ()) -> Told:
    rows = [
        TableRow(
            cidr=ip_network(f"10.80.{number}.0/26"),
            node=f"n{number}",
            epoch=1,
            addresses=(ip_address(address),),
            state=BlockState.ACTIVE,
        )
        for number, address in enumerate(nodes)
    ]
    return Told(pools=pools, rows={one.cidr: one for one in rows})


def lines(of: Told, settings: Settings | None = None) -> set[str]:
    """Set and range of each element: the address is in its key twice."""
    return {
        f"{one.of.name} {one.text().partition(' . ')[0]}"
        for one in plan(of, settings or Settings())
    }


def test_pools_whose_switch_is_on_are_translated_and_all_are_kept() -> None:
    assert lines(told(FOUR, SIX, PUBLIC)) == LINK_LOCAL | {
        "pods4 10.80.0.0/16",
        "pods6 fd80::/64",
        "kept4 10.80.0.0/16",
        "kept6 fd80::/64",
        "kept6 2001:db8:80::/64",
    }


def test_nodes_are_kept() -> None:
    found = lines(told(FOUR, nodes=["192.0.2.1", "192.0.2.9", "2001:db8::1"]))

    assert {"kept4 192.0.2.1", "kept4 192.0.2.9", "kept6 2001:db8::1"} <= found


def test_what_is_configured_is_kept_and_overlaps_are_one() -> None:
    settings = Settings(
        non_masquerade_cidrs=(ip_network("10.0.0.0/8"), ip_network("192.0.2.0/24")),
        masquerade_link_local=True,
    )

    assert lines(told(FOUR, nodes=["192.0.2.1"]), settings) == {
        "pods4 10.80.0.0/16",
        "kept4 10.0.0.0/8",
        "kept4 192.0.2.0/24",
    }


networks = st.lists(
    st.sampled_from(
        [ip_network(one) for one in ("10.0.0.0/8", "10.80.0.0/16", "10.80.4.0/24", "fd80::/48")]
        + [ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network("192.0.2.0/31")]
    ),
    max_size=5,
)


@settings(deadline=None)
@given(networks, networks, st.lists(st.sampled_from(("192.0.2.1", "10.80.4.4", "fd80::1"))))
def test_no_two_elements_of_a_set_overlap_and_none_is_lost(
    pools: list[IPNetwork], kept: list[IPNetwork], nodes: list[str]
) -> None:
    rows = tuple(PoolRow(name=str(cidr), cidr=cidr, masquerade=True) for cidr in pools)
    found = plan(told(*rows, nodes=nodes), Settings(non_masquerade_cidrs=tuple(kept)))
    spans = sorted((one.of.name, one.key, one.end) for one in found)

    for (name, _, end), (other, key, _) in pairwise(spans):
        assert name != other or end < key
    for address in map(ip_address, nodes):
        assert any(_has(one.of.name, one.key, one.end, address) for one in found)


def _has(name: str, key: bytes, end: bytes, address: IPAddress) -> bool:
    size = len(key) // 2
    return (
        name == f"kept{address.version}"
        and size == len(address.packed)
        and key[:size] <= address.packed <= end[:size]
    )
