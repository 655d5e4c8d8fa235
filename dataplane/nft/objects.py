"""Sets, maps and their elements as values, in the kernel's form and in nft's words.

Everything here is a function of its arguments.  An element is held as the bytes that travel
in a netlink message, so that what is wanted and what the kernel lists compare as they are;
text is made of it only for people and for whole-table scripts.

Form of a key or value (nf_tables, `nft --debug=netlink`): its fields one after another, each
padded to four bytes; addresses, ports and MACs in network order, a protocol in the first byte,
slots and classes in the host's order, an interface name padded with zeros to sixteen bytes.  A
verdict has a form of its own in messages; here it is the name of the chain that it goes to.
"""

import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from hashlib import sha256
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    summarize_address_range,
)

from net.address import IPAddress, IPNetwork

COMMENT_LIMIT = 127  # nft shows at most 128 bytes, the final NUL included


class Family(IntEnum):
    """Families of nft tables that we use (NFPROTO_*)."""

    INET = 1
    IP = 2
    BRIDGE = 7
    IP6 = 10


class Protocol(StrEnum):
    """Transport protocols that have ports."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """Its number in an IP header (IANA protocol numbers)."""
        return _PROTOCOL_NUMBERS[self]


_PROTOCOL_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}


class Kind(StrEnum):
    """Types of one field of a key or value, in nft's spelling."""

    ADDRESS4 = "ipv4_addr"
    ADDRESS6 = "ipv6_addr"
    PROTOCOL = "inet_proto"
    PORT = "inet_service"
    IFNAME = "ifname"
    MAC = "ether_addr"
    SLOT = "slot"
    CLASS = "classid"
    VERDICT = "verdict"

    @property
    def expression(self) -> str:
        """An expression of this type, for declarations: `slot` has no name in nft."""
        return _EXPRESSIONS[self]

    @property
    def size(self) -> int:
        """Bytes it takes in a key, padding included."""
        return _SIZES[self]


_SIZES = {
    Kind.ADDRESS4: 4,
    Kind.ADDRESS6: 16,
    Kind.PROTOCOL: 4,
    Kind.PORT: 4,
    Kind.IFNAME: 16,
    Kind.MAC: 8,
    Kind.SLOT: 4,
    Kind.CLASS: 4,
}

_EXPRESSIONS = {
    Kind.ADDRESS4: "ip daddr",
    Kind.ADDRESS6: "ip6 daddr",
    Kind.PROTOCOL: "meta l4proto",
    Kind.PORT: "th dport",
    Kind.SLOT: "numgen random mod 2",
}

Field = IPAddress | IPNetwork | Protocol | int | str
"""A value for one field: a port is an int, an interface name or a MAC a str."""


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set, or with *data* a map, of a table; *interval* allows networks in its keys.

    *options*: what else its declaration says, in nft's words.
    """

    family: Family
    table: str
    name: str
    key: tuple[Kind, ...]
    data: tuple[Kind, ...] = ()
    interval: bool = False
    options: str = ""

    def declaration(self) -> str:
        """The block that declares it, without elements."""
        what = "map" if self.data else "set"
        flags = " flags interval;" if self.interval else ""
        options = f" {self.options}" if self.options else ""
        return f"{what} {self.name} {{ {self._kind()};{flags}{options} }}"

    @property
    def is_written_by_packets(self) -> bool:
        return "dynamic" in self.options

    @property
    def goes(self) -> bool:
        """Is it a map to verdicts?"""
        return self.data == (Kind.VERDICT,)

    def _kind(self) -> str:
        if Kind.SLOT not in self.key:
            return (
                "type " + " . ".join(self.key) + (f" : {' . '.join(self.data)}" * bool(self.data))
            )
        key, data = ([kind.expression for kind in kinds] for kinds in (self.key, self.data))
        return f"typeof {' . '.join(key)} : {' . '.join(data)}"


@dataclass(frozen=True, slots=True)
class Element:
    """One member of *of*: *key* up to *end* (empty: *key* alone), *data* of a map, and its owner.

    Made with `element`; the fields are bytes as the kernel has them.  *left_ms*: for how long it
    is there, of a set whose members run out.
    """

    of: NamedSet
    key: bytes
    end: bytes = b""
    data: bytes = b""
    comment: str = ""
    left_ms: int = field(default=0, compare=False)

    def __hash__(self) -> int:
        """Without the set and the rest: some hundred thousand are looked up at once."""
        return hash((self.key, self.data))

    def text(self) -> str:
        """It as nft writes it: `10.0.0.2 . tcp . 80 comment "net/c1/eth0" : 10.1.0.2 . 8080`."""
        words = _render(self.of.key, self.key, self.end)
        if self.comment:
            words += f' comment "{self.comment}"'
        if self.left_ms:
            words += f" timeout {self.left_ms}ms"
        if self.of.goes:
            words += f" : goto {self.data.decode()}"
        elif self.of.data:
            words += f" : {_render(self.of.data, self.data)}"
        return words

    def __str__(self) -> str:
        return f"{self.of.name} {{ {self.text()} }}"


def element(
    of: NamedSet, key: Iterable[Field], data: Iterable[Field] = (), *, comment: str = ""
) -> Element:
    """The element of *of* with these fields; a comment that nft could not print is mended.

    Raises ValueError for a field that does not fit.
    """
    first, last = [], []
    for kind, value in zip(of.key, key, strict=True):
        lower, upper = _bounds(kind, value)
        first.append(lower)
        last.append(upper)
    end = b"".join(last) if of.interval else b""
    return Element(of, b"".join(first), end, _value(of, data), printable(comment))


def place(address: IPAddress | None, *numbers: bytes, port: int) -> bytes:
    """An address (if any), what comes between, and a port, as they stand in keys and values.

    For those who make thousands: a third of what `element` costs.  *numbers* have four bytes.
    """
    head = address.packed if address is not None else b""
    return b"".join((head, *numbers, port.to_bytes(2, "big"), b"\0\0"))


def number(of: int) -> bytes:
    """A slot or class in four bytes of the host's order."""
    return of.to_bytes(4, sys.byteorder)


def _value(of: NamedSet, data: Iterable[Field]) -> bytes:
    if of.goes:
        (chain,) = data
        return str(chain).encode()
    return b"".join(_bounds(kind, field)[0] for kind, field in zip(of.data, data, strict=True))


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain and its rules; *hook* is empty for one that is only jumped to."""

    name: str
    rules: tuple[str, ...]
    hook: str = ""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What of a table never changes: sets, maps, chains, rules."""

    family: Family
    name: str
    sets: tuple[NamedSet, ...]
    chains: tuple[Chain, ...]

    @property
    def layout(self) -> str:
        """The name of an empty set in the table that tells which skeleton it was made from."""
        return f"layout-{sha256(self._body().encode()).hexdigest()[:12]}"

    @property
    def rules(self) -> int:
        return sum(len(chain.rules) for chain in self.chains)

    def script(self, elements: Collection[Element] = ()) -> str:
        """A transaction that puts this table, with *elements*, in the place of any of its name.

        `add` before `delete` because nft before 1.0.8 has no `destroy`.  Chains that elements go
        to, and that are not the skeleton's, are there without a rule.
        """
        members: dict[str, list[str]] = {}
        for each in elements:
            members.setdefault(each.of.name, []).append(each.text())
        head = self.head
        lines = [self.removal() + f"table {head} {{"]
        lines += [f"\tset {self.layout} {{ type mark; }}", self._body(), "}"]
        lines += [f"add chain {head} {chain}" for chain in self._others(elements)]
        lines += [
            f"add element {head} {name} {{ {', '.join(sorted(members[name]))} }}"
            for name in sorted(members)
        ]
        return "\n".join(lines) + "\n"

    @property
    def stand_in(self) -> "Skeleton":
        """The same under another name, and asked one priority before this.

        Of tables whose priorities are numbers, of nat above -199.
        """
        chains = (replace(each, hook=_EARLIER.sub(_one_less, each.hook)) for each in self.chains)
        return replace(self, name=f"{self.name}-meanwhile", chains=tuple(chains))

    @property
    def unasked(self) -> "Skeleton":
        """All of it that no hook has."""
        return replace(self, chains=tuple(each for each in self.chains if not each.hook))

    def opening(self) -> str:
        """A transaction that adds what `unasked` lacks."""
        hooked = replace(self, sets=(), chains=tuple(each for each in self.chains if each.hook))
        return f"table {self.head} {{\n{hooked._body()}\n}}\n"

    def closing(self) -> str:
        """A transaction after which packets find no rule; those on their way still have all."""
        return f"flush table {self.head}\n"

    def removal(self) -> str:
        """A transaction after which the table is not there, whether it was or not."""
        return f"add table {self.head}\ndelete table {self.head}\n"

    @property
    def head(self) -> str:
        """The table as nft names it."""
        return f"{self.family.name.lower()} {self.name}"

    def _others(self, elements: Iterable[Element]) -> list[str]:
        targets = {each.data.decode() for each in elements if each.of.goes}
        return sorted(targets - {chain.name for chain in self.chains})

    def _body(self) -> str:
        lines = [f"\t{each.declaration()}" for each in self.sets]
        for chain in self.chains:
            lines.append(f"\tchain {chain.name} {{")
            lines += [f"\t\t{line}" for line in (chain.hook, *chain.rules) if line]
            lines.append("\t}")
        return "\n".join(lines)


_EARLIER = re.compile(r"(?<=priority )-?\d+")


def _one_less(found: re.Match[str]) -> str:
    return str(int(found[0]) - 1)


def _bounds(kind: Kind, field: Field) -> tuple[bytes, bytes]:
    if isinstance(field, IPv4Network | IPv6Network):
        return field.network_address.packed, field.broadcast_address.packed
    raw = _encode(kind, field)
    if len(raw) > kind.size:
        raise ValueError(f"{field!r} does not fit {kind}")
    raw = raw.ljust(kind.size, b"\0")
    return raw, raw


def _encode(kind: Kind, field: IPAddress | Protocol | int | str) -> bytes:
    match field:
        case IPv4Address() | IPv6Address():
            return field.packed
        case Protocol():
            return bytes([field.number])
        case int() if kind in (Kind.SLOT, Kind.CLASS):
            return field.to_bytes(4, sys.byteorder)
        case int() if not 0 <= field < 1 << 16:
            raise ValueError(f"{field} is no port: 0 to 65535")
        case int():
            return field.to_bytes(2, "big")
        case str() if kind is Kind.MAC:
            return bytes.fromhex(field.replace(":", ""))
        case str():
            return field.encode()


def printable(comment: str) -> str:
    """It without what nft could not print, as long as it may be."""
    if comment.isascii() and comment.isprintable() and not {'"', "\\"} & set(comment):
        return comment[:COMMENT_LIMIT]
    cleaned = "".join(c if c.isprintable() and c not in '"\\' else "?" for c in comment)
    return cleaned.encode()[:COMMENT_LIMIT].decode(errors="ignore")


def _render(kinds: tuple[Kind, ...], first: bytes, last: bytes = b"") -> str:
    words, offset = [], 0
    for kind in kinds:
        part = slice(offset, offset + kind.size)
        words.append(_word(kind, first[part], last[part] if last else first[part]))
        offset += kind.size
    return " . ".join(words)


def _word(kind: Kind, first: bytes, last: bytes) -> str:
    if kind in (Kind.ADDRESS4, Kind.ADDRESS6):
        return _networks(ip_address(first), ip_address(last))
    match kind:
        case Kind.PROTOCOL:
            names = {protocol.number: str(protocol) for protocol in Protocol}
            return names.get(first[0], str(first[0]))
        case Kind.PORT:
            return str(int.from_bytes(first[:2], "big"))
        case Kind.IFNAME:
            name = first.rstrip(b"\0").decode(errors="replace")
            return f'"{name}"'
        case Kind.MAC:
            return first[:6].hex(":")
        case Kind.CLASS:
            number = int.from_bytes(first, sys.byteorder)
            return f"{number >> 16:x}:{number & 0xFFFF:x}"
        case _:
            return str(int.from_bytes(first, sys.byteorder))


def _networks(first: IPAddress, last: IPAddress) -> str:
    if first == last:
        return str(first)
    networks = list(summarize_address_range(first, last))
    return str(networks[0]) if len(networks) == 1 else f"{first}-{last}"
