"""What is forgotten in a kernel is in tests/kernel/test_conntrack.py."""

import struct
from ipaddress import ip_address

import pytest

from dataplane.conntrack import Entry, Match, Tuple, encoded, parse
from dataplane.netlink import attribute, attributes, nested

ORIGINAL, REPLY = 1, 2
POD, PEER, HOST = map(ip_address, ("10.0.0.2", "10.0.0.9", "192.0.2.1"))
ENTRY = Entry(Tuple(PEER, HOST, 17, 53), Tuple(POD, PEER, 17, 4000), b"")


def test_a_match_says_which_fields_count() -> None:
    found = attributes(encoded(Match(direction=REPLY, source=POD)))

    assert attributes(attributes(found[2])[1]) == {1: POD.packed}
    assert attributes(found[25]) == {2: struct.pack("=I", 1)}


def test_a_match_of_a_port_counts_destination_protocol_and_port() -> None:
    made = Match(direction=ORIGINAL, destination=HOST, protocol=17, port=53)
    found = attributes(encoded(made))
    tuple_ = attributes(found[1])

    assert attributes(tuple_[1]) == {2: HOST.packed}
    assert attributes(tuple_[2]) == {1: b"\x11", 3: b"\0\x35"}
    assert attributes(found[25]) == {1: struct.pack("=I", 1 << 1 | 1 << 3 | 1 << 5)}


def test_of_both_directions_the_filter_has_the_flags_of_each() -> None:
    there, back = Match(direction=ORIGINAL, destination=HOST), Match(direction=REPLY, source=POD)

    found = attributes(encoded(there, back))

    assert attributes(found[25]) == {1: struct.pack("=I", 1 << 1), 2: struct.pack("=I", 1)}
    assert attributes(attributes(found[1])[1]) == {2: HOST.packed}
    assert attributes(attributes(found[2])[1]) == {1: POD.packed}


@pytest.mark.parametrize(
    ("match", "covered"),
    [
        (Match(direction=ORIGINAL, source=PEER), True),
        (Match(direction=ORIGINAL, source=POD), False),
        (Match(direction=REPLY, source=POD), True),
        (Match(direction=ORIGINAL, destination=HOST, protocol=17, port=53), True),
        (Match(direction=ORIGINAL, destination=POD, protocol=17, port=53), False),
        (Match(direction=ORIGINAL, destination=HOST, protocol=17, port=54), False),
        (Match(direction=ORIGINAL, destination=HOST, protocol=6, port=53), False),
    ],
)
def test_a_match_covers_what_the_kernel_would(match: Match, covered: bool) -> None:
    assert match.covers(ENTRY) == covered


def raw(source: str, destination: str, port: int) -> bytes:
    one, other = ip_address(source), ip_address(destination)
    kinds = (1, 2) if one.version == 4 else (3, 4)
    ip = nested(1, attribute(kinds[0], one.packed), attribute(kinds[1], other.packed))
    return ip + nested(2, attribute(1, b"\x11"), attribute(3, struct.pack(">H", port)))


@pytest.mark.parametrize(("a", "b"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_an_entry_is_read_and_named_by_tuple_zone_and_id(a: str, b: str) -> None:
    there, back = raw(a, b, 53), raw(b, a, 4000)
    body = nested(1, there) + nested(2, back) + attribute(18, b"\0\5") + attribute(12, b"\1\2\3\4")
    entry = parse(b"\2\0\0\0" + body)

    assert entry is not None
    assert entry.original == Tuple(ip_address(a), ip_address(b), 17, 53)
    assert entry.reply == Tuple(ip_address(b), ip_address(a), 17, 4000)
    assert attributes(entry.handle) == {1: there, 18: b"\0\5", 12: b"\1\2\3\4"}


def test_half_an_entry_is_passed_over() -> None:
    assert parse(b"\2\0\0\0" + nested(1, raw("10.0.0.1", "10.0.0.2", 53))) is None
