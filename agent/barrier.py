"""Drops all that comes from, or goes to, addresses of blocks that are no longer this node's.

    pod ─► prerouting (raw): from or to a lost block? drop ─► … ─► postrouting: the same ─► wire

Another node may have given these addresses to its own pods.  The first chain sees what pods and
the wire send, before conntrack can make another address of it; the second what the host sends,
and what a port of the host was translated to.  The table of bridges keeps pods on one bridge
from each other likewise.  A table is there only while something is lost.

A key is the address twice: intervals of one field are written to the kernel in another way than
those of several, and this is the way that our elements know.
"""

import threading
from collections.abc import Collection, Mapping
from typing import Protocol

from dataplane.errors import DataplaneError
from dataplane.nft.objects import Chain, Element, Family, Kind, NamedSet, Skeleton, element
from net.address import IPNetwork

TABLE = "isthmus-lost"
_RULES = tuple(
    f"{header} {side} . {header} {side} @{name} drop"
    for header, name in (("ip", "lost4"), ("ip6", "lost6"))
    for side in ("saddr", "daddr")
)


# Nor is anybody told who has a lost address; of IPv6 an answer comes from the address itself.
_ARP = tuple(f"arp {side} ip . arp {side} ip @lost4 drop" for side in ("saddr", "daddr"))


def _sets(family: Family) -> dict[int, NamedSet]:
    return {
        4: NamedSet(family, TABLE, "lost4", (Kind.ADDRESS4,) * 2, interval=True),
        6: NamedSet(family, TABLE, "lost6", (Kind.ADDRESS6,) * 2, interval=True),
    }


_SETS = {family: _sets(family) for family in (Family.INET, Family.BRIDGE)}

ROUTED = Skeleton(
    Family.INET,
    TABLE,
    tuple(_SETS[Family.INET].values()),
    (
        Chain("arriving", _RULES, "type filter hook prerouting priority raw; policy accept;"),
        Chain("leaving", _RULES, "type filter hook postrouting priority 0; policy accept;"),
    ),
)
BRIDGED = Skeleton(
    Family.BRIDGE,
    TABLE,
    tuple(_SETS[Family.BRIDGE].values()),
    (
        Chain(
            "arriving", _RULES + _ARP, "type filter hook prerouting priority -300; policy accept;"
        ),
    ),
)


class Table(Protocol):
    """One table of the kernel, see dataplane.nft.table.NftTable."""

    def observe(self) -> frozenset[Element] | None: ...
    def replace(self, elements: Collection[Element]) -> None: ...
    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None: ...
    def remove(self) -> None: ...


class Barrier:
    """Keeps the tables; thread-safe, in the namespace of whoever made them."""

    def __init__(self, tables: Mapping[Family, Table]) -> None:
        self._tables = tables
        self._lock = threading.Lock()

    def enforce(self, lost: Collection[IPNetwork]) -> None:
        """Drop the traffic of *lost*, and of nothing else.

        Raises DataplaneError, having tried each table.
        """
        failures: list[DataplaneError] = []
        with self._lock:
            for family, table in self._tables.items():
                try:
                    _bring(table, elements(family, lost))
                except DataplaneError as exc:
                    failures.append(exc)
        if failures:
            raise failures[0]


def elements(family: Family, lost: Collection[IPNetwork]) -> frozenset[Element]:
    """What is in the sets of the table of *family* while *lost* is lost."""
    return frozenset(element(_SETS[family][one.version], (one, one)) for one in lost)


def _bring(table: Table, wanted: frozenset[Element]) -> None:
    if not wanted:
        table.remove()
        return
    found = table.observe()
    if found is None:
        table.replace(wanted)
    elif found != wanted:
        table.apply(delete=found - wanted, add=wanted - found)
