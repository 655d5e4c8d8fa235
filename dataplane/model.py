"""What one sandbox should have in the kernel, as values.

Everything here is a frozen value made by a planner and read by `dataplane.links`.
"""

from dataclasses import dataclass

from net.address import IPAddress, IPInterface, IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A bridge of the host, shared by every sandbox of the networks that name it.

    *mac* is fixed at creation, or the bridge would take the lowest of its ports' and change
    as they come and go.  *mtu* 0 leaves the kernel's default.  *shared*: addresses of other
    subnets may be beside these.
    """

    name: str
    mac: str
    mtu: int = 0
    addresses: tuple[IPInterface, ...] = ()
    force_address: bool = False
    promiscuous: bool = False
    shared: bool = False
    vlan_filtering: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgePort:
    """How the host side of a veth sits on its bridge; VLAN 0 means none."""

    hairpin: bool = False
    isolated: bool = False
    vlan: int = 0
    trunk: tuple[tuple[int, int], ...] = ()
    preserve_default_vlan: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route of the pod side; zeros and None leave the kernel's default.

    *on_link* says that *via* is reachable though no address covers it (RTNH_F_ONLINK).
    """

    dst: IPNetwork
    via: IPAddress | None = None
    on_link: bool = False
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int = 0
    scope: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Veth:
    """A pair: *host_name* here, *pod_name* inside the sandbox.

    *alias* is written on the host side last: a link that carries it is complete.
    """

    host_name: str
    host_mac: str
    pod_name: str
    pod_mac: str
    mtu: int
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """All links, addresses and routes of one attachment.

    *bridge* None means routed: *host_routes* lead to the pod, one each address, and
    *host_addresses* are the pod's gateways, the same ones on every host side (of host scope,
    so that the host never chooses one as a source).  *enabled* False leaves the pod side down.
    """

    veth: Veth
    bridge: Bridge | None = None
    port: BridgePort = BridgePort()
    addresses: tuple[IPInterface, ...] = ()
    pod_routes: tuple[Route, ...] = ()
    host_addresses: tuple[IPInterface, ...] = ()
    host_routes: tuple[IPNetwork, ...] = ()
    dad: bool = False
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """Rates in bit/s and bursts in bits, seen from the pod; rate and burst 0 mean no limit."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0
