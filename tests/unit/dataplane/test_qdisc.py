import struct

import pytest

from dataplane.netlink import attributes
from dataplane.qdisc import Bucket, bucket, new_ifb, parse_qdisc, redirect, replace_tbf


@pytest.mark.parametrize(
    ("rate", "burst", "expected"),
    [
        # 1 MB/s and 100 kB: the bucket lasts 0.1 s, 25 ms of rate may wait on top.
        (8_000_000, 800_000, Bucket(1_000_000, 1_562_500, 125_000)),
        # 125 kB/s and 1500 bytes: 12 ms.
        (1_000_000, 12_000, Bucket(125_000, 187_500, 4_625)),
        # Microseconds are cut before they become ticks: 333,333.33 us here.
        (24, 8, Bucket(3, 5_208_328, 1)),
        # What kubelet sends for no burst at all: more than 32 bits of ticks are cut off.
        (1_000_000, 2**31 - 1, Bucket(125_000, 2**32 - 1, 268_438_580)),
        (2**63, 8_000_000, Bucket(2**60, 0, 2**32 - 1)),
    ],
)
def test_rates_and_bursts_become_what_tbf_wants(rate: int, burst: int, expected: Bucket) -> None:
    assert bucket(rate, burst) == expected


@pytest.mark.parametrize(("rate", "burst"), [(7, 8), (0, 8), (8, 7), (8, 0), (8, 2**35)])
def test_what_no_tbf_can_do_is_refused_with_the_bounds(rate: int, burst: int) -> None:
    with pytest.raises(ValueError, match=f"{rate} bit/s.*{burst} bits.*at least 8"):
        bucket(rate, burst)


@pytest.mark.parametrize("rate", [8_000_000, 2**40])
def test_a_tbf_is_read_back_as_it_was_sent(rate: int) -> None:
    wanted = bucket(rate, 800_000)

    assert parse_qdisc(replace_tbf(7, wanted)[16:]) == (7, 0xFFFFFFFF, wanted)


def test_another_qdisc_has_no_bucket() -> None:
    body = struct.pack("=BxHiIII", 0, 0, 7, 0, 0xFFFFFFFF, 0) + b"\x0c\0\1\0noqueue\0"

    assert parse_qdisc(body) == (7, 0xFFFFFFFF, None)


def test_the_filter_takes_every_packet_to_the_ifb() -> None:
    options = attributes(attributes(redirect(7, 9), 36)[2])
    selector = struct.unpack("=BBBxHHhHI", options[5][:16])
    key = options[5][16:]
    mirred = attributes(attributes(attributes(options[7])[1])[2])[2]

    assert selector[:3] == (1, 0, 1)  # terminal, one key
    assert key == bytes(16)  # of no bits: it fits all
    assert struct.unpack("=IIiiiiI", mirred)[-2:] == (1, 9)  # out of interface 9


def test_an_ifb_is_born_up_and_marked() -> None:
    made = new_ifb("ifb0", 1400, 77)
    found = attributes(made, 32)

    assert struct.unpack_from("=II", made, 24) == (1, 1)
    assert found[3] == b"ifb0\0"
    assert (found[4], found[27]) == (struct.pack("=I", 1400), struct.pack("=I", 77))
