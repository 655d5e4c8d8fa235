import struct
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.announce import ALL_NODES_MAC, frame
from dataplane.neighbours import Claim, Question, answer, parse, solicited_node
from tests.unit.dataplane.test_announce import ones_complement_sum

OURS, THEIRS = bytes.fromhex("020000000005"), bytes.fromhex("020000000009")
FOUR, SIX = ip_address("192.0.2.7"), ip_address("2001:db8::7")
HOST4, HOST6 = ip_address("192.0.2.1"), ip_address("fe80::1")

WHO_HAS_FOUR = bytes.fromhex(
    "ffffffffffff 020000000009 08060001 0800 06 04 0001020000000009 c0000201000000000000 c0000207"
)


def solicitation(source: IPv6Address, *, hops: int = 255, kind: int = 135) -> bytes:
    assert isinstance(SIX, IPv6Address)
    header = struct.pack(">IHBB", 6 << 28, 32, 58, hops)
    ends = source.packed + solicited_node(SIX).packed
    option = b"\1\1" + THEIRS
    message = bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + SIX.packed + option
    return bytes.fromhex("3333ff000007") + THEIRS + b"\x86\xdd" + header + ends + message


def test_who_asks_for_an_address_is_read() -> None:
    assert parse(WHO_HAS_FOUR) == Question(FOUR, HOST4, THEIRS)
    assert parse(solicitation(IPv6Address("fe80::1"))) == Question(SIX, HOST6, THEIRS)


def test_who_probes_before_it_takes_an_address_has_none_yet() -> None:
    probe = bytearray(WHO_HAS_FOUR)
    probe[28:32] = bytes(4)

    assert parse(bytes(probe)) == Question(FOUR, None, THEIRS)
    assert parse(solicitation(IPv6Address("::"))) == Question(SIX, None, THEIRS)


@pytest.mark.parametrize("address", [FOUR, SIX])
def test_what_we_announce_is_a_claim(address: IPv6Address) -> None:
    assert parse(frame(OURS, address)) == Claim(address, OURS)


def test_an_answer_goes_to_who_asked_and_is_a_claim_itself() -> None:
    made = answer(Question(FOUR, HOST4, THEIRS), OURS)

    assert made == bytes.fromhex(
        "020000000009 020000000005 0806"
        "0001 0800 06 04 0002"
        "020000000005 c0000207"
        "020000000009 c0000201"
    )
    assert parse(made) == Claim(FOUR, OURS)


def test_an_answer_to_a_solicitation_is_solicited_and_overrides() -> None:
    made = answer(Question(SIX, HOST6, THEIRS), OURS)
    pseudo = made[22:54] + struct.pack(">II", len(made) - 54, 58)

    assert made[:12] == THEIRS + OURS
    assert made[38:54] == HOST6.packed
    assert made[54] == 136
    assert made[58:62] == bytes.fromhex("60000000")
    assert ones_complement_sum(pseudo + made[54:]) == 0xFFFF
    assert parse(made) == Claim(SIX, OURS)


def test_a_probe_is_answered_to_all() -> None:
    four = answer(Question(FOUR, None, THEIRS), OURS)
    six = answer(Question(SIX, None, THEIRS), OURS)

    assert four[:6] == THEIRS
    assert four[-4:] == bytes(4)
    assert six[:6] == ALL_NODES_MAC
    assert six[58:62] == bytes.fromhex("20000000")


@pytest.mark.parametrize(
    "other",
    [
        b"",
        WHO_HAS_FOUR[:40],
        WHO_HAS_FOUR.replace(b"\x08\x00\x06", b"\x08\x00\x08"),
        solicitation(IPv6Address("fe80::1"), hops=64),
        solicitation(IPv6Address("fe80::1"), kind=128),
        solicitation(IPv6Address("fe80::1"))[:70],
        bytes(64),
    ],
)
def test_all_else_is_neither(other: bytes) -> None:
    assert parse(other) is None


@given(st.binary(max_size=120), st.sampled_from([b"\x08\x06", b"\x86\xdd", b"\x08\x00"]))
def test_no_bytes_make_reading_fail(content: bytes, kind: bytes) -> None:
    parse(bytes(12) + kind + content)


def test_the_group_of_an_address_ends_as_the_address_does() -> None:
    group = solicited_node(IPv6Address("2001:db8::1:2345:6789"))

    assert group == IPv6Address("ff02::1:ff45:6789")
