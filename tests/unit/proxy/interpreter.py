"""A packet's way through the tables of Services, by their elements: what the rules mean.

It knows the rules as `proxy.tables` describes them, and nothing of plans; that the kernel does
the same is shown by packets (tests/kernel/test_services.py).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address

from dataplane.nft.objects import Element, Family, NamedSet, Protocol, element
from dataplane.nft.objects import Field as Value
from net.address import IPAddress
from proxy.plan import Backend
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    source: Source
    source_address: IPAddress
    address: IPAddress
    protocol: Protocol
    port: int
    is_to_this_node: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    fate: Fate
    backends: frozenset[Backend] = frozenset()
    is_masqueraded: bool = False


REFUSED, DROPPED = Outcome(Fate.REFUSED), Outcome(Fate.DROPPED)
UNTOUCHED = Outcome(Fate.UNTOUCHED)


class Tables:
    """Elements by set and key, as the kernel would look them up."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self._of: dict[tuple[str, int], dict[bytes, Element]] = {}
        for each in elements:
            place = self._of.setdefault((each.of.name, each.of.family), {})
            assert each.key + each.end not in place, f"twice: {each}"
            place[each.key + each.end] = each

    def fate(self, packet: Packet) -> Outcome:
        maps = MAPS[packet.address.version]
        at: tuple[Value, ...] = (packet.address, packet.protocol, packet.port)
        is_cluster_ip = self._has(maps.cluster_ips, (packet.address,))
        foreign = packet.source is Source.OUTSIDE and is_cluster_ip
        if chain := self._verdict(maps.services, at):
            return self._follow(packet, maps, at, chain, marked=foreign)
        if is_cluster_ip:
            return REFUSED
        if self._has(maps.service_cidrs, (packet.address,)):
            return DROPPED
        if packet.is_to_this_node and self._has(maps.node_addresses, (packet.address,)):
            port: tuple[Value, ...] = (packet.protocol, packet.port)
            if chain := self._verdict(maps.nodeports, port):
                return self._follow(packet, maps, port, chain, marked=False)
        return UNTOUCHED

    def _follow(
        self, packet: Packet, maps: Maps, at: tuple[Value, ...], chain: str, *, marked: bool
    ) -> Outcome:
        prefix = "nodeport-" if chain.startswith("nodeport-") else ""
        word = chain.removeprefix(prefix)
        if word.startswith("firewalled-"):
            if not self._has(maps.source_ranges, (*at, packet.source_address)):
                return DROPPED
            word = word.removeprefix("firewalled-")
        cluster, local, endpoints = (
            (maps.nodeport_cluster, maps.nodeport_local, maps.nodeport_endpoints)
            if prefix
            else (maps.cluster, maps.local, maps.endpoints)
        )
        if word == "refuse":
            return REFUSED
        if word == "discard":
            return DROPPED
        if word == "external":
            inner = self._verdict(cluster, at)
            return self._pick(endpoints, at, inner, marked=True) if inner else REFUSED
        if word == "external-local":
            inner = self._verdict(cluster, at)
            if packet.source is not Source.OUTSIDE and inner:
                return self._pick(endpoints, at, inner, marked=packet.source is Source.NODE)
            inner = self._verdict(local, at)
            return self._pick(endpoints, at, inner, marked=False) if inner else DROPPED
        return self._pick(endpoints, at, chain, marked=marked)

    def _pick(self, of: NamedSet, at: tuple[Value, ...], chain: str, *, marked: bool) -> Outcome:
        """Every slot that a draw may find; a chain of too small a class would miss some."""
        word, _, size = chain.rpartition("-")
        first = LOCAL_SLOT if word.endswith("local") else 0
        found = []
        for slot in range(first, first + int(size)):
            if (each := self._get(of, (*at, slot))) is not None:
                found.append(each.data)
        assert found, f"{chain} of {at} has no slot"
        assert self._get(of, (*at, first)) is not None, "slot 0 is the last resort"
        return Outcome(Fate.TRANSLATED, frozenset(map(_backend, found)), marked)

    def _verdict(self, of: NamedSet, key: tuple[Value, ...]) -> str:
        maps = MAPS[4 if of.family is Family.IP else 6]
        by = maps.ways if of in (maps.services, maps.nodeports) else maps.picks
        found = self._get(of, key)
        if found is None:
            return ""
        chain = self._get(by, found.data)
        assert chain is not None
        return chain.data.decode()

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


def _backend(data: bytes) -> Backend:
    return Backend(ip_address(data[:-4]), int.from_bytes(data[-4:-2]))
