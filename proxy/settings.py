"""What an operator can set: apart, since every command reads configurations."""

from dataclasses import dataclass

from net.address import IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set.

    *pod_cidrs*: where pods have their addresses, none: in ipamd's pools.  *service_cidrs*: where
    Services have theirs, none: as the API says by its ServiceCIDR objects.
    *nodeport_addresses*: at which of its addresses a node answers for NodePorts, none: at the
    internal ones of its Node.  *healthz_address* and *metrics_address* are host:port, or "".
    *set_conntrack*: whether nf_conntrack is given the limits and timeouts that suit Services.
    *open_firewall*: whether forward chains of others are made to let packets of pods through.
    """

    pod_cidrs: tuple[IPNetwork, ...] = ()
    service_cidrs: tuple[IPNetwork, ...] = ()
    nodeport_addresses: tuple[IPNetwork, ...] = ()
    healthz_address: str = "[::]:10256"
    metrics_address: str = "127.0.0.1:10249"
    set_conntrack: bool = True
    open_firewall: bool = False
