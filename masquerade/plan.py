"""Whose packets are translated, and towards whom they are not.  A function of its arguments.

pods    the pools whose switch is on
kept    all pools, the addresses of all nodes, and what is configured
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from dataplane.nft.objects import Element, NamedSet, element
from masquerade.model import Told
from masquerade.names import KEPT, PODS
from masquerade.settings import Settings
from net.address import IPNetwork

_LINK_LOCAL = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"))


def plan(told: Told, settings: Settings) -> frozenset[Element]:
    """Every element of the table."""
    pods = [pool.cidr for pool in told.pools if pool.masquerade]
    kept = [pool.cidr for pool in told.pools]
    nodes = {address for row in told.rows.values() for address in row.addresses}
    kept += [ip_network(address.packed) for address in nodes]
    kept += settings.non_masquerade_cidrs
    kept += [] if settings.masquerade_link_local else _LINK_LOCAL
    return frozenset([*_elements(PODS, pods), *_elements(KEPT, kept)])


def _elements(sets: dict[int, NamedSet], networks: Iterable[IPNetwork]) -> Iterator[Element]:
    """As disjoint elements: the kernel refuses one that overlaps another."""
    networks = list(networks)
    v4 = collapse_addresses(one for one in networks if isinstance(one, IPv4Network))
    v6 = collapse_addresses(one for one in networks if isinstance(one, IPv6Network))
    collapsed: list[IPNetwork] = [*v4, *v6]
    for one in collapsed:
        yield element(sets[one.version], (one, one))
