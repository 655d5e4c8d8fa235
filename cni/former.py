"""Addresses in use here that another plugin gave: of pods that a former network left running.

They are held as ours are, under host-local's names for them, and are free once they stand neither
in its directory, nor on a link of the host (its gateways), nor in any namespace.
"""

from collections.abc import Iterable
from ipaddress import ip_interface
from itertools import groupby

from cni.host_local import Reservation
from cni.node import Node
from cni.result import IPConfig
from cni.spec import Spec, encode
from ipam.errors import IPAMError
from ipam.leases import Attachment, Lease, Record
from net.address import IPAddress, IPInterface

HOST = "host"


def in_the_way(who: Attachment, leases: Iterable[Lease], node: Node) -> list[Reservation]:
    """Reserve *leases* with host-local too, where it gives such; return which it has given.

    Raises OSError.
    """
    if (shared := node.host_local) is None:
        return []
    found = []
    for lease in leases:
        address, among = lease.address.ip, (lease.address.network, *node.pools)
        if not shared.shares(among):
            continue
        if holder := shared.take(who, address, among):
            found.append(Reservation(address, holder))
        elif address in node.links.every_address():
            found.append(Reservation(address, Attachment(HOST, HOST, str(address))))
    return found


def reserved(node: Node) -> frozenset[IPAddress]:
    """Return what others gave, or the host itself has.  Raises OSError."""
    given = node.host_local.others() if node.host_local else []
    return node.links.every_address().union(one.address for one in given)


def hold(found: Iterable[Reservation], node: Node) -> tuple[int, list[str]]:
    """Hold what others gave; return how many were new, and what was not to be."""
    new, faults = 0, []
    for who, group in groupby(sorted(found, key=lambda one: one.who), key=lambda one: one.who):
        known = node.leases.find(who)
        held = {*(known.addresses if known else ()), *(ip_interface(one.address) for one in group)}
        if known and held == {*known.addresses}:
            continue
        try:
            node.leases.hold(_record(who, held, node)).result()
            new += 1
        except IPAMError as exc:
            faults.append(f"{who}: {exc}")
    return new, faults


def _record(who: Attachment, addresses: Iterable[IPInterface], node: Node) -> Record:
    held = tuple(sorted(addresses, key=lambda one: (one.version, int(one))))
    spec = Spec(link=False, former=True, ips=tuple(IPConfig(address=one) for one in held))
    return Record(
        who=who,
        boot_id=node.boot_id,
        started_ns=node.now(),
        sandbox="",
        netns_cookie=0,
        addresses=held,
        spec=encode(spec),
    )
