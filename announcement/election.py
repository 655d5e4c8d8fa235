"""Which of several nodes answers for an address: rendezvous hashing.  Pure.

Every node comes to the same answer from the same bidders, addresses spread over nodes, and a
node that goes moves its own addresses alone.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from net.address import IPAddress


@lru_cache(1 << 16)
def rank(address: IPAddress, node: str) -> tuple[bytes, str]:
    """Sort nodes by their claim to *address*, the last has the best."""
    return blake2b(f"{address} {node}".encode(), digest_size=8).digest(), node


def winner(address: IPAddress, bidders: Iterable[str]) -> str | None:
    return max(bidders, key=lambda node: rank(address, node), default=None)
