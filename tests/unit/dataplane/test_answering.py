"""What needs no link; the rest is in tests/kernel/test_answering.py."""

from ipaddress import IPv6Address

import pytest

from dataplane.answering import _DISCOVERY, LinkUnusable, Responder
from tests.unit.dataplane.test_neighbours import WHO_HAS_FOUR, solicitation


def accepts(frame: bytes) -> bool:
    """Run the filter as the kernel does."""
    at, register = 0, 0
    while True:
        code, if_true, if_not, operand = _DISCOVERY[at]
        match code:
            case 0x30:
                if operand >= len(frame):
                    return False
                register = frame[operand]
            case 0x15:
                at += if_true if register == operand else if_not
            case _:
                return operand > 0
        at += 1


def test_only_solicitations_and_advertisements_wake_us() -> None:
    host = IPv6Address("fe80::1")
    tcp = bytearray(solicitation(host))
    tcp[20] = 6

    assert accepts(solicitation(host))
    assert accepts(solicitation(host, kind=136))
    assert not accepts(solicitation(host, kind=134))
    assert not accepts(bytes(tcp))
    assert not accepts(WHO_HAS_FOUR)


def test_a_link_that_is_not_there_is_named() -> None:
    with pytest.raises(LinkUnusable, match="isthnothere"):
        Responder("isthnothere")
