"""A packet's way through the tables of Services, by their elements: what the rules mean.  Pure.

It knows the rules as `proxy.tables` describes them, and nothing of plans: so it tells what is
planned and what is programmed alike.  Tests hold it against what the API promises, and packets
show that the kernel does the same.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import NamedTuple

from dataplane.nft.objects import Element, Family, NamedSet, Protocol, element
from dataplane.nft.objects import Field as Value
from net.address import IPAddress, IPNetwork
from proxy.plan import Backend, backend_of
from proxy.tables import LOCAL_SLOT, MAPS, Maps


class Source(Enum):
    """Who sends: a pod of the cluster, this node itself, somebody beyond."""

    POD = "pod"
    NODE = "node"
    OUTSIDE = "outside"


class Fate(Enum):
    UNTOUCHED = "untouched"
    REFUSED = "refused"
    DROPPED = "dropped"
    TRANSLATED = "translated"


class Reason(StrEnum):
    """Why it comes to that, for people."""

    UNKNOWN = "no Service has this address and port"
    NOT_OPEN = "NodePorts are not open at this address of the node"
    OTHER_PORT = "no Service has this port of the cluster IP"
    UNALLOCATED = "it is in a range of cluster IPs, and no Service has it"
    NOT_LET_IN = "loadBalancerSourceRanges do not let this source in"
    NOBODY = "no endpoint answers, on any node"
    NOBODY_HERE = "no endpoint on this node answers, and the policy is Local"
    INNER = "it is a cluster IP"
    OUTER = "it comes from outside: to any endpoint, which sees this node as its client"
    SHORT_CUT = "the policy is Local, and what this node and pods send may go anywhere"
    KEPT = "the policy is Local: to endpoints on this node, which see the client itself"


class Flow(NamedTuple):
    """Who sends, and to where."""

    source: IPAddress
    address: IPAddress
    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first of a connection; *is_to_this_node*: *address* is one of its own."""

    source: Source
    source_address: IPAddress
    address: IPAddress
    protocol: Protocol
    port: int
    is_to_this_node: bool = False


def packet_of(flow: Flow, pods: Iterable[IPNetwork], *, own: Collection[IPAddress]) -> Packet:
    """The first packet of *flow*, at a node with its *own* addresses."""
    if flow.source in own or flow.source.is_loopback:
        source = Source.NODE
    elif any(flow.source in network for network in pods):
        source = Source.POD
    else:
        source = Source.OUTSIDE
    return Packet(
        source=source,
        source_address=flow.source,
        address=flow.address,
        protocol=flow.protocol,
        port=flow.port,
        is_to_this_node=flow.address in own,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """*backends*: each may be drawn; *is_sticky*: unless the client is remembered to have one."""

    fate: Fate
    backends: frozenset[Backend] = frozenset()
    is_masqueraded: bool = False
    reason: Reason = field(default=Reason.UNKNOWN, compare=False)
    is_sticky: bool = field(default=False, compare=False)


class Tables:
    """Elements by set and key, as the kernel would look them up."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self._of: dict[tuple[str, int], dict[bytes, Element]] = {}
        for each in elements:
            self._of.setdefault((each.of.name, each.of.family), {})[each.key + each.end] = each

    def fate(self, packet: Packet) -> Outcome:
        """What becomes of *packet*."""
        maps = MAPS[packet.address.version]
        at: tuple[Value, ...] = (packet.address, packet.protocol, packet.port)
        is_cluster_ip = self._has(maps.cluster_ips, (packet.address,))
        foreign = packet.source is Source.OUTSIDE and is_cluster_ip
        if chain := self._chain(maps.services, at):
            return self._follow(packet, maps, at, chain, marked=foreign)
        if is_cluster_ip:
            return Outcome(Fate.REFUSED, reason=Reason.OTHER_PORT)
        if self._has(maps.service_cidrs, (packet.address,)):
            return Outcome(Fate.DROPPED, reason=Reason.UNALLOCATED)
        port: tuple[Value, ...] = (packet.protocol, packet.port)
        chain = self._chain(maps.nodeports, port)
        if not chain or not packet.is_to_this_node:
            return Outcome(Fate.UNTOUCHED)
        if packet.address.is_loopback or not self._has(maps.node_addresses, (packet.address,)):
            return Outcome(Fate.UNTOUCHED, reason=Reason.NOT_OPEN)
        return self._follow(packet, maps, port, chain, marked=False)

    def _follow(
        self, packet: Packet, maps: Maps, at: tuple[Value, ...], chain: str, *, marked: bool
    ) -> Outcome:
        prefix = "nodeport-" if chain.startswith("nodeport-") else ""
        word = chain.removeprefix(prefix)
        if word.startswith("firewalled-"):
            if not self._has(maps.source_ranges, (*at, packet.source_address)):
                return Outcome(Fate.DROPPED, reason=Reason.NOT_LET_IN)
            word = word.removeprefix("firewalled-")
        match word:
            case "refuse":
                return Outcome(Fate.REFUSED, reason=Reason.NOBODY)
            case "discard":
                return Outcome(Fate.DROPPED, reason=Reason.NOBODY_HERE)
            case "external" | "external-local":
                return self._come_in(packet, maps, at, word, is_nodeport=bool(prefix))
        return self._draw(maps.endpoints, at, chain, Reason.INNER, marked=marked)

    def _come_in(
        self, packet: Packet, maps: Maps, at: tuple[Value, ...], way: str, *, is_nodeport: bool
    ) -> Outcome:
        cluster, local, endpoints = (
            (maps.nodeport_cluster, maps.nodeport_local, maps.nodeport_endpoints)
            if is_nodeport
            else (maps.cluster, maps.local, maps.endpoints)
        )
        everyone, here = self._chain(cluster, at), self._chain(local, at)
        if way == "external":
            if not everyone:
                return Outcome(Fate.REFUSED, reason=Reason.NOBODY)
            return self._draw(endpoints, at, everyone, Reason.OUTER, marked=True)
        if packet.source is not Source.OUTSIDE and everyone:
            is_node = packet.source is Source.NODE
            return self._draw(endpoints, at, everyone, Reason.SHORT_CUT, marked=is_node)
        if not here:
            return Outcome(Fate.DROPPED, reason=Reason.NOBODY_HERE)
        return self._draw(endpoints, at, here, Reason.KEPT, marked=False)

    def _draw(
        self, of: NamedSet, at: tuple[Value, ...], chain: str, reason: Reason, *, marked: bool
    ) -> Outcome:
        """Every slot that a draw may find; a chain of too small a class would miss some."""
        word, _, size = chain.rpartition("-")
        first = LOCAL_SLOT if word.endswith("local") else 0
        slots = (self._get(of, (*at, slot)) for slot in range(first, first + int(size)))
        found = frozenset(backend_of(each.data) for each in slots if each is not None)
        if not found:  # what an incomplete table does
            return Outcome(Fate.DROPPED, reason=reason)
        return Outcome(Fate.TRANSLATED, found, marked, reason, "sticky-" in word)

    def _chain(self, of: NamedSet, key: tuple[Value, ...]) -> str:
        """The chain whose number *of* has for *key*, or ""."""
        maps = MAPS[4 if of.family is Family.IP else 6]
        by = maps.ways if of in (maps.services, maps.nodeports) else maps.picks
        found = self._get(of, key)
        chain = self._get(by, found.data) if found is not None else None
        return chain.data.decode() if chain is not None else ""

    def _get(self, of: NamedSet, key: tuple[Value, ...] | bytes) -> Element | None:
        packed = key if isinstance(key, bytes) else _packed(of, key)
        return self._of.get((of.name, of.family), {}).get(packed)

    def _has(self, of: NamedSet, key: tuple[Value, ...]) -> bool:
        if not of.interval:
            return self._get(of, key) is not None
        wanted, widths = _packed(of, key), [kind.size for kind in of.key]
        members = self._of.get((of.name, of.family), {}).values()
        return any(_within(wanted, each, widths) for each in members)


def _packed(of: NamedSet, key: tuple[Value, ...]) -> bytes:
    return element(replace(of, data=()), key).key


def _within(key: bytes, each: Element, widths: Collection[int]) -> bool:
    """Field by field, as the kernel compares concatenated intervals."""
    offset = 0
    for width in widths:
        part = slice(offset, offset + width)
        if not each.key[part] <= key[part] <= each.end[part]:
            return False
        offset += width
    return True
