"""What routes are planned from: frozen values, made anew for each round."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from dataplane.fabric_model import OnLink
from ipam.calls import TableRow
from ipam.holdings import OwnBlock
from net.address import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What ipamd told of the cluster, and what this node has of it.

    *in_sync*: it is of this life of the agent, not remembered from a former one; *trusted*: what
    is missing in it is really gone (claims are not frozen).
    """

    rows: Mapping[IPNetwork, TableRow] = field(default_factory=lambda: MappingProxyType({}))
    blocks: tuple[OwnBlock, ...] = ()
    in_sync: bool = False
    trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another node, by what addresses it is reached, and its blocks."""

    name: str
    addresses: tuple[IPAddress, ...]
    blocks: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """This node: its addresses and the MTUs of their links by IP version, and its blocks.

    *sources* are what it sends through tunnels from, by IP version.
    """

    name: str
    addresses: Mapping[int, IPAddress]
    mtus: Mapping[int, int]
    blocks: frozenset[IPNetwork]
    sources: Mapping[int, IPAddress]
    on_link: tuple[OnLink, ...] = ()


@dataclass(frozen=True, slots=True)
class Direct:
    """*via* is on *link*."""

    link: int
    via: IPAddress


@dataclass(frozen=True, slots=True)
class Through:
    """In packets of our tunnel of *remote*'s IP version to *remote*."""

    remote: IPAddress


Hop = Direct | Through
