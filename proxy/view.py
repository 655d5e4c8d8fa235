"""What of this node decides who gets which endpoint, from what is known of it.  Pure."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network

from net.address import IPNetwork
from proxy.model import NodeView

ZONE = "topology.kubernetes.io/zone"
EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def view_of(
    name: str,
    *,
    labels: Mapping[str, str],
    addresses: Iterable[str],
    pods: Iterable[IPNetwork],
    service_cidrs: Iterable[IPNetwork],
    nodeport_addresses: Iterable[IPNetwork],
) -> NodeView:
    """*addresses* of the node count for NodePorts where *nodeport_addresses* has none.

    The first of each family, as kube-proxy takes for the primary one.
    """
    first: dict[int, IPNetwork] = {}
    for text in addresses:
        address = ip_address(text)
        first.setdefault(address.version, ip_network(address))
    return NodeView(
        name=name,
        zone=labels.get(ZONE, ""),
        addresses=collapsed(nodeport_addresses) or tuple(first.values()),
        pods=collapsed(pods),
        service_cidrs=collapsed(service_cidrs),
    )


def collapsed(networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The same addresses in networks that do not overlap: the kernel refuses those that do."""
    found = list(networks)
    return (
        *collapse_addresses(each for each in found if isinstance(each, IPv4Network)),
        *collapse_addresses(each for each in found if isinstance(each, IPv6Network)),
    )
