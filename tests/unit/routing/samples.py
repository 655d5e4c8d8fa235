"""A small cluster as values."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from dataplane.fabric_model import OnLink
from ipam.calls import TableRow
from ipam.cluster import BlockState
from ipam.holdings import OwnBlock, OwnState
from routing.model import Local

UPLINK = 2
ON_LINK = (
    OnLink(ip_network("192.0.2.0/24"), UPLINK),
    OnLink(ip_network("2001:db8:1::/64"), UPLINK),
)


def row(
    cidr: str,
    node: str,
    *addresses: str,
    epoch: int = 1,
    state: BlockState = BlockState.ACTIVE,
) -> TableRow:
    return TableRow(
        cidr=ip_network(cidr),
        node=node,
        epoch=epoch,
        addresses=tuple(map(ip_address, addresses)),
        state=state,
    )


def own(cidr: str, revision: int = 1, state: OwnState = OwnState.ACTIVE) -> OwnBlock:
    return OwnBlock(cidr=ip_network(cidr), pool="p", epoch=1, revision=revision, state=state)


def local(
    addresses: Iterable[str] = ("192.0.2.1", "2001:db8:1::1"),
    blocks: Iterable[str] = ("10.80.1.0/26", "fd80::100/122"),
    mtu: int = 1500,
) -> Local:
    known = {ip_address(one).version: ip_address(one) for one in addresses}
    nets = [ip_network(block) for block in blocks]
    return Local(
        name="a",
        addresses=known,
        mtus=dict.fromkeys(known, mtu),
        blocks=frozenset(nets),
        sources={net.version: net.network_address for net in reversed(nets)},
        on_link=ON_LINK,
    )


B = (row("10.80.2.0/26", "b", "192.0.2.2", "2001:db8:1::2"),)
B += (row("fd80::200/122", "b", "192.0.2.2", "2001:db8:1::2"),)
C = (row("10.80.3.0/26", "c", "203.0.113.3", "2001:db8:2::3"),)
C += (row("fd80::300/122", "c", "203.0.113.3", "2001:db8:2::3"),)
