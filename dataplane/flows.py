"""Which flows are to be forgotten.  Pure values."""

from typing import NamedTuple

from dataplane.nft.objects import Protocol
from net.address import IPAddress


class Flows(NamedTuple):
    """Flows of IP *version* to *address* (None: any of this host's), *protocol* and *port*.

    *to*: those alone that were translated to it; None: whatever became of them, but for those
    that were translated to one of *kept*.
    """

    version: int
    address: IPAddress | None
    protocol: Protocol
    port: int
    to: IPAddress | None = None
    kept: frozenset[IPAddress] = frozenset()
