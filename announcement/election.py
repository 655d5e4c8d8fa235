"""Which of several nodes answers for an address: rendezvous hashing.  Pure.

Every node comes to the same answer from the same bidders, addresses spread over nodes, and a
node that goes moves its own addresses alone.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b

from net.address import IPAddress


@lru_cache(1 << 16)
def rank(address: IPAddress, node: str) -> tuple[bytes, str]:
    """Sort nodes by their claim to *address*, the last has the best."""
    return blake2b(f"{address} {node}".encode(), digest_size=8).digest(), node


def winners(bids: Mapping[str, Iterable[IPAddress]]) -> dict[IPAddress, str]:
    """Return who has each address, of nodes and what they bid for."""
    bidders: dict[IPAddress, list[str]] = {}
    for node, addresses in bids.items():
        for address in addresses:
            bidders.setdefault(address, []).append(node)
    return {one: max(nodes, key=lambda node: rank(one, node)) for one, nodes in bidders.items()}


def winner(address: IPAddress, bidders: Iterable[str]) -> str | None:
    return max(bidders, key=lambda node: rank(address, node), default=None)
