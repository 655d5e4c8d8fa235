"""How a host reaches the pods of others, as values: tunnels, routes to blocks, and their entries.

Everything here is made by a planner or seen in the kernel, and compared as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from net.address import IPAddress, IPNetwork

# IPv4 or IPv6, UDP and VXLAN headers, and the inner Ethernet header (RFC 7348 §5).
OVERHEAD = {4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A VXLAN link that learns nothing: each frame goes where an entry says, or nowhere.

    *local* is this host's address under it, and gives the family of all remote ones: the kernel
    keeps those of one link to one family.
    """

    name: str
    mac: str
    vni: int
    port: int
    local: IPAddress
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelLink:
    """A VXLAN link as the kernel shows it; *ours* by its group."""

    index: int
    tunnel: Tunnel | None
    name: str
    up: bool
    ours: bool


@dataclass(frozen=True, slots=True)
class Forward:
    """Frames for *mac* leave tunnel *link* for the host *remote*."""

    link: int
    mac: str
    remote: IPAddress

    @property
    def key(self) -> tuple[int, str]:
        return self.link, self.mac


@dataclass(frozen=True, slots=True)
class Neighbour:
    """On *link*, *address* is at *mac*; nobody is asked."""

    link: int
    address: IPAddress
    mac: str

    @property
    def key(self) -> tuple[int, IPAddress]:
        return self.link, self.address


@dataclass(frozen=True, slots=True)
class BlockRoute:
    """Packets to *dst* go out of *link* to *via*; *link* 0: nowhere, the sender is told so.

    *source* is the host's own address towards there, None: as the kernel chooses; *table* 0 is
    the main one.
    """

    dst: IPNetwork
    priority: int
    link: int = 0
    via: IPAddress | None = None
    source: IPAddress | None = None
    table: int = 0

    @property
    def key(self) -> tuple[IPNetwork, int, int]:
        return self.dst, self.priority, self.table


@dataclass(frozen=True, slots=True)
class Rule:
    """Packets from *source* to *destination* look into *table* first."""

    source: IPNetwork
    destination: IPNetwork
    table: int

    @property
    def key(self) -> tuple[IPNetwork, IPNetwork, int]:
        return self.source, self.destination, self.table


@dataclass(frozen=True, slots=True)
class OnLink:
    """Whoever has an address of *network* is on *link*, without a router between."""

    network: IPNetwork
    link: int


@dataclass(frozen=True, slots=True)
class Source:
    """An address of the host's own on a tunnel, for what it sends itself."""

    link: int
    address: IPAddress

    @property
    def key(self) -> tuple[int, IPAddress]:
        return self.link, self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class Programmed:
    """All that is programmed, or should be, but the tunnels themselves."""

    routes: frozenset[BlockRoute] = frozenset()
    rules: frozenset[Rule] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    forwards: frozenset[Forward] = frozenset()
    sources: frozenset[Source] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The host as it is; *addresses* to the link and its MTU that has them."""

    tunnels: tuple[TunnelLink, ...] = ()
    on_link: tuple[OnLink, ...] = ()
    addresses: Mapping[IPAddress, tuple[int, int]] = field(
        default_factory=lambda: MappingProxyType({})
    )
