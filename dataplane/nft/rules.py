"""Rules as raw nfnetlink messages, for the few that nft cannot write.

nft 1.0.6 aborts on any `update @map` with an IPv6 address in it (netlink_linearize.c); the
kernel takes it.  A rule is a list of expressions over 32-bit registers; a concatenated key is
in registers that follow each other (linux/netfilter/nf_tables.h).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from dataplane.netlink import attribute, attributes, each_attribute, nested, text

_FIRST_REGISTER = 8  # NFT_REG32_00
_NAME, _DATA = 1, 2
_COUNTED = 2  # NFTA_COUNTER_PACKETS
_GOTO, _RETURN = -4, -5
_VERDICT_REGISTER = 0

Expression = bytes


@dataclass(frozen=True, slots=True)
class RawChain:
    """A chain that is only gone to, and its rules."""

    name: str
    rules: tuple[tuple[Expression, ...], ...]


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _expression(name: str, *parts: bytes) -> Expression:
    return nested(1, text(_NAME, name), nested(_DATA, *parts))


def _register(words: int) -> int:
    """The register after *words* others."""
    return _FIRST_REGISTER + words


def network_header(offset: int, size: int, *, to: int) -> Expression:
    """*size* bytes of the IP header at *offset*, into the register after *to* others."""
    return _payload(1, offset, size, to)


def transport_header(offset: int, size: int, *, to: int) -> Expression:
    return _payload(2, offset, size, to)


def _payload(base: int, offset: int, size: int, to: int) -> Expression:
    return _expression(
        "payload",
        _number(1, _register(to)),
        _number(2, base),
        _number(3, offset),
        _number(4, size),
    )


def original_destination(version: int, *, to: int) -> Expression:
    """The address that the connection was opened to (NFT_CT_DST_IP, NFT_CT_DST_IP6)."""
    return _conntrack({4: 20, 6: 22}[version], to)


def original_port(*, to: int) -> Expression:
    """NFT_CT_PROTO_DST of the original direction."""
    return _conntrack(12, to)


def _conntrack(key: int, to: int) -> Expression:
    return _expression(
        "ct", _number(1, _register(to)), _number(2, key), attribute(3, b"\0")
    )  # direction 0: original


def transport_protocol(*, to: int) -> Expression:
    """NFT_META_L4PROTO."""
    return _expression("meta", _number(1, _register(to)), _number(2, 16))


def found_in(name: str, *, at: int, inverted: bool = False) -> Expression:
    """Go on if the key that begins at register *at* is (or, *inverted*, is not) in set *name*."""
    return _expression(
        "lookup", text(1, name), _number(2, _register(at)), _number(5, int(inverted))
    )


def update(name: str, *, key: int, data: int, timeout_ms: int) -> Expression:
    """Put the key and data of these registers into map *name*, or begin its time anew."""
    return _expression(
        "dynset",
        text(1, name),
        _number(3, 1),  # NFT_DYNSET_OP_UPDATE
        _number(4, _register(key)),
        _number(5, _register(data)),
        attribute(6, struct.pack(">Q", timeout_ms)),
    )


def remove(name: str, *, key: int) -> Expression:
    """Take the key of this register out of map *name* (NFT_DYNSET_OP_DELETE, Linux 5.4).

    The kernel wants a register with data, too, of a map; it does not look at it.
    """
    register = _number(4, _register(key)) + _number(5, _register(key))
    return _expression("dynset", text(1, name), _number(3, 2), register)


def goto(chain: str) -> Expression:
    verdict = attribute(1, struct.pack(">i", _GOTO)) + attribute(2, chain.encode() + b"\0")
    data = nested(2, nested(2, verdict))
    return _expression("immediate", _number(1, _VERDICT_REGISTER), data)


def drop() -> Expression:
    return _verdict(0)


def leave() -> Expression:
    """Be done with the chain, as its end is."""
    return _verdict(_RETURN)


def _verdict(code: int) -> Expression:
    data = nested(2, nested(2, attribute(1, struct.pack(">i", code))))
    return _expression("immediate", _number(1, _VERDICT_REGISTER), data)


def count() -> Expression:
    """Count packets and bytes, beginning with none."""
    return _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def packets(expressions: bytes) -> int:
    """How many packets the counters of a rule with these (NFTA_RULE_EXPRESSIONS) have."""
    found = (attributes(each) for _, each in each_attribute(expressions))
    return sum(
        int.from_bytes(attributes(each[_DATA])[_COUNTED])
        for each in found
        if each[_NAME] == b"counter\0"
    )


def encode(rules: Sequence[Expression]) -> bytes:
    """The NFTA_RULE_EXPRESSIONS attribute of one rule."""
    return nested(4, *rules)
