"""Masquerade, port mappings and MAC guards of all attachments, as elements of fixed tables.

Everything here is a function of its arguments.  Rules never change; a pod is elements:

    what                        set or map           element
    ipMasq                      masq4                pod address
      but not within its net    local4               subnet . subnet
    port of the host            hostport4_any        protocol . port : pod address . port
      on one address of it      hostport4            address . protocol . port : the same
      used from next door       hairpin4             subnet (bridged) or pod (routed) . pod address
    macspoofchk                 guarded, permitted   host side; host side . MAC

Two holders of one port of the host: the later ADD has it, and when that goes the former has it
again, because the plan is made from all that is attached and not from what happened.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Protocol as Seam
from typing import cast

from cni.tables import (
    ANY_HOST_PORT,
    GUARDED,
    HAIRPIN,
    HOST_PORT,
    LOCAL,
    MASQUERADED,
    PERMITTED,
)
from dataplane.nft.objects import Element, Field, NamedSet, Protocol, element
from ipam.leases import Attachment
from net.address import IPAddress, IPInterface, IPNetwork


class HostPort(Seam):
    """One mapping of a port of the host; *host_ip* None means every address of the host.

    0.0.0.0 and :: mean every address of their family, as in the reference plugin.
    """

    @property
    def host_port(self) -> int: ...
    @property
    def container_port(self) -> int: ...
    @property
    def protocol(self) -> str: ...
    @property
    def host_ip(self) -> IPAddress | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What one attachment wants from the tables.

    *started_ns* orders holders of one host port; *subnets* are of its whole network;
    *host_name* is the host side of its veth.
    """

    who: Attachment
    started_ns: int
    addresses: tuple[IPInterface, ...]
    subnets: tuple[IPNetwork, ...] = ()
    masquerade: bool = False
    routed: bool = False
    port_mappings: tuple[HostPort, ...] = ()
    host_name: str = ""
    pod_mac: str = ""
    mac_spoof_check: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    """A port of the host whose flows go elsewhere now."""

    protocol: Protocol
    port: int
    host_ip: IPAddress | None


Slot = tuple[NamedSet, bytes]
"""What only one attachment can have: a key, or for a hairpin the pod's address in it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The element that an attachment would have, were it the latest to want its slot."""

    slot: Slot
    rank: tuple[int, Attachment]
    element: Element


def plan(published: Iterable[Published]) -> frozenset[Element]:
    """Every element of both tables."""
    everybody = tuple(published)
    best: dict[Slot, Claim] = {}
    for claim in (claim for each in everybody for claim in claims(each)):
        if claim.slot not in best or best[claim.slot].rank < claim.rank:
            best[claim.slot] = claim
    networks = {group for each in everybody for group in masqueraded_networks(each)}
    return frozenset(claim.element for claim in best.values()) | local(networks)


def claims(each: Published) -> tuple[Claim, ...]:
    """All that *each* wants for itself, one claim a slot; of two the last."""
    found = {claim.slot: claim for claim in _claims(each)}
    return tuple(found.values())


def masqueraded_networks(each: Published) -> tuple[tuple[IPNetwork, ...], ...]:
    """The subnets within which *each* keeps its address, grouped by family."""
    if not each.masquerade:
        return ()
    v4 = collapse_addresses(net for net in each.subnets if isinstance(net, IPv4Network))
    v6 = collapse_addresses(net for net in each.subnets if isinstance(net, IPv6Network))
    return tuple(group for group in (tuple(v4), tuple(v6)) if group)


def local(networks: Iterable[tuple[IPNetwork, ...]]) -> frozenset[Element]:
    """Pairs of subnets between which nothing is masqueraded, as disjoint elements.

    The kernel refuses an element that overlaps another (ENOTEMPTY), so where networks overlap
    the larger pair stays whole and of the smaller only what lies outside is added.
    """
    wanted = {(one, other) for group in networks for one in group for other in group}
    # By first member: with many pools almost all pairs have nothing in common.
    disjoint: dict[IPNetwork, list[_Pair]] = {}
    for pair in sorted(wanted, key=_size_then_place):
        near = [hole for one, holes in disjoint.items() if one.overlaps(pair[0]) for hole in holes]
        for rest in _outside(pair, near):
            disjoint.setdefault(rest[0], []).append(rest)
    return frozenset(
        element(LOCAL[one.version], pair) for one, pairs in disjoint.items() for pair in pairs
    )


def flows(changed: Iterable[Element]) -> frozenset[Flow]:
    """Of changed elements, the host ports whose connectionless flows have to be forgotten.

    A new TCP connection is a new flow, but UDP from one source port is the old one for ever,
    and SCTP clients tend to fixed source ports.
    """
    found = (_flow(each) for each in changed if each.of in _HOST_PORT_MAPS)
    return frozenset(flow for flow in found if flow.protocol is not Protocol.TCP)


_Pair = tuple[IPNetwork, IPNetwork]
_HOST_PORT_MAPS = {*ANY_HOST_PORT.values(), *HOST_PORT.values()}


def _claims(each: Published) -> Iterator[Claim]:
    if each.masquerade:
        for address in each.addresses:
            yield _claim(each, MASQUERADED[address.version], (address.ip,))
    if each.mac_spoof_check:
        yield _claim(each, GUARDED, (each.host_name,))
        yield _claim(each, PERMITTED, (each.host_name, each.pod_mac))
    for address in _first_of_each_family(each.addresses):
        ports = list(_ports(each, address))
        yield from ports
        if ports:
            next_door = address.ip if each.routed else address.network
            made = element(HAIRPIN[address.version], (next_door, address.ip), comment=_owner(each))
            yield Claim((made.of, address.ip.packed), (each.started_ns, each.who), made)


def _ports(each: Published, address: IPInterface) -> Iterator[Claim]:
    version = address.version
    for mapping in each.port_mappings:
        protocol, host_ip = Protocol(mapping.protocol), mapping.host_ip
        data = (address.ip, mapping.container_port)
        if host_ip is not None and host_ip.version != version:
            continue
        if host_ip is None or host_ip.is_unspecified:
            yield _claim(each, ANY_HOST_PORT[version], (protocol, mapping.host_port), data)
        else:
            yield _claim(each, HOST_PORT[version], (host_ip, protocol, mapping.host_port), data)


def _claim(
    each: Published, of: NamedSet, key: tuple[Field, ...], data: tuple[Field, ...] = ()
) -> Claim:
    made = element(of, key, data, comment=_owner(each))
    return Claim((of, made.key), (each.started_ns, each.who), made)


def _owner(each: Published) -> str:
    """Names are cut: a comment has 127 bytes, and a container is known by its first twelve."""
    who = each.who
    return f"{who.network[:64]}/{who.container_id[:12]}/{who.ifname}"


def _first_of_each_family(addresses: Iterable[IPInterface]) -> Iterator[IPInterface]:
    seen: set[int] = set()
    for address in addresses:
        if address.version not in seen:
            seen.add(address.version)
            yield address


def _size_then_place(pair: _Pair) -> tuple[int, int, int, int, int]:
    one, other = pair
    places = int(one.network_address), int(other.network_address)
    return one.version, one.prefixlen + other.prefixlen, one.prefixlen, *places


def _outside(pair: _Pair, taken: Iterable[_Pair]) -> list[_Pair]:
    """*pair* without all that *taken* covers."""
    parts = [pair]
    for hole in taken:
        parts = [rest for part in parts for rest in _minus(part, hole)]
    return parts


def _minus(part: _Pair, hole: _Pair) -> list[_Pair]:
    (one, other), (hole_one, hole_other) = part, hole
    if not (one.overlaps(hole_one) and other.overlaps(hole_other)):
        return [part]
    shared = max(one, hole_one, key=lambda net: net.prefixlen)
    beside = [(rest, other) for rest in _exclude(one, hole_one)]
    return beside + [(shared, rest) for rest in _exclude(other, hole_other)]


def _exclude(net: IPNetwork, hole: IPNetwork) -> list[IPNetwork]:
    """What of *net* is not in *hole*; the two overlap, so one contains the other."""
    if hole.prefixlen <= net.prefixlen:
        return []
    return cast(list[IPNetwork], sorted(net.address_exclude(hole)))  # type: ignore[arg-type]


def _flow(each: Element) -> Flow:
    rest = each.key[-8:]
    numbers = {protocol.number: protocol for protocol in Protocol}
    address = each.key[:-8]
    host_ip: IPAddress | None = None
    if address:
        host_ip = IPv4Address(address) if len(address) == 4 else IPv6Address(address)
    return Flow(numbers[rest[0]], int.from_bytes(rest[4:6], "big"), host_ip)
