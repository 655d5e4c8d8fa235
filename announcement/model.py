"""What nodes that announce say to each other.  Pure values.

A *bid* is a node's word that it could answer for an address now.
"""

from dataclasses import dataclass

from net.address import IPAddress

NOTHING: frozenset[IPAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class State:
    """What a node says of itself: what it bids for, and the MACs that it answers with."""

    bids: frozenset[IPAddress] = NOTHING
    macs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Relayed:
    """The state of *node*, as somebody else heard it *age_s* ago."""

    node: str
    age_s: float
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What one node says to another.

    *hears*: whose heartbeats came to it; *knows*: whose state it decides by, those among them.
    *misses*: of whom it would like to hear by others; *relayed*: such states, for the other.
    *is_settled*: it has been there for a while, and who has not leaves it what it bids for.
    """

    state: State
    hears: frozenset[str] = frozenset()
    knows: frozenset[str] = frozenset()
    misses: frozenset[str] = frozenset()
    relayed: tuple[Relayed, ...] = ()
    is_settled: bool = True
