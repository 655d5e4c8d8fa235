"""The codec, and conversations with a kernel that says what the test wants."""

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane import rtnl
from dataplane.errors import DumpInterrupted, NetlinkError
from dataplane.netlink import (
    ACK,
    DUMP_INTERRUPTED,
    NESTED,
    Netlink,
    attribute,
    attributes,
    each_attribute,
    message,
    nested,
    text,
    u32,
)

ERROR, DONE = 2, 3


def header(data: bytes) -> tuple[int, int, int, int, int]:
    return struct.unpack_from("=IHHII", data)  # type: ignore[return-value]


def answered(kind: int, sequence: int, payload: bytes = b"", flags: int = 0) -> bytes:
    body = payload + b"\0" * (-len(payload) % 4)
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + body


def refusal(number: int, sequence: int, kind: int = 16, explanation: str = "") -> bytes:
    payload = struct.pack("=i", -number) + struct.pack("=IHHII", 20, kind, 5, sequence, 0)
    payload += text(1, explanation) if explanation else b""
    return answered(ERROR, sequence, payload, 0x100)


class Scripted(Netlink):
    """Speaks to a list of datagrams in place of a kernel."""

    def __init__(self, *datagrams: bytes | OSError) -> None:
        self._socket = self  # type: ignore[assignment]
        self._sequence = 0
        self.datagrams = list(datagrams)
        self.written: list[bytes] = []

    def sendto(self, data: bytes, address: object) -> int:
        self.written.append(bytes(data))
        return len(data)

    def recv(self, size: int) -> bytes:
        found = self.datagrams.pop(0)
        if isinstance(found, OSError):
            raise found
        return found


def test_a_message_is_a_header_and_its_body() -> None:
    assert message(16, 0x600, b"abcd") == struct.pack("=IHHII", 20, 16, 0x601, 0, 0) + b"abcd"


def test_attributes_are_padded_to_four_bytes() -> None:
    assert attribute(3, b"abc") == b"\7\0\3\0abc\0"
    assert text(3, "abc") == b"\x08\0\3\0abc\0"
    assert u32(4, 1500) == b"\x08\0\4\0\xdc\5\0\0"
    assert nested(5, b"") == struct.pack("=HH", 4, 5 | NESTED)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=20)), max_size=6))
def test_attributes_that_are_written_are_read(written: list[tuple[int, bytes]]) -> None:
    data = b"head" + b"".join(attribute(kind, payload) for kind, payload in written)

    assert list(each_attribute(data, 4)) == written
    assert attributes(memoryview(data), 4) == dict(written)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_without_harm(data: bytes) -> None:
    for kind, payload in each_attribute(data):
        assert 0 <= kind <= 0x3FFF
        assert payload in data


def test_flags_are_no_part_of_a_type() -> None:
    assert attributes(nested(5, u32(1, 7))) == {5: u32(1, 7)}


def test_messages_go_in_one_datagram_and_the_last_asks_for_an_answer() -> None:
    netlink = Scripted(answered(ERROR, 2, struct.pack("=i", 0) + bytes(16)))

    netlink.transact([message(16, 0, b""), message(20, 0, b"")])

    (data,) = netlink.written
    assert header(data) == (16, 16, 1, 1, 0)
    assert header(data[16:]) == (16, 20, 1 | ACK, 2, 0)


def test_of_no_messages_nothing_is_sent() -> None:
    netlink = Scripted()

    netlink.transact([])

    assert netlink.written == []


def test_numbers_go_on_from_call_to_call_and_old_answers_are_passed_over() -> None:
    ok = struct.pack("=i", 0) + bytes(16)
    netlink = Scripted(answered(ERROR, 1, ok), refusal(errno.EPERM, 1) + answered(ERROR, 2, ok))

    netlink.transact([message(16, 0, b"")])
    netlink.transact([message(16, 0, b"")])

    assert [header(data)[3] for data in netlink.written] == [1, 2]


def test_the_first_refusal_counts_and_says_which_message_it_was_of() -> None:
    netlink = Scripted(
        refusal(errno.EEXIST, 2, 24, "Route exists"),
        refusal(errno.EPERM, 3),
    )

    with pytest.raises(NetlinkError) as caught:
        netlink.transact([message(16, 0, b"")] * 3)

    assert (caught.value.errno, caught.value.index) == (errno.EEXIST, 1)
    assert str(caught.value) == "netlink message 24: Route exists"


def test_what_is_tolerated_is_no_failure() -> None:
    netlink = Scripted(refusal(errno.EEXIST, 1) + refusal(errno.EEXIST, 2))

    netlink.transact([message(16, 0, b"")] * 2, tolerate=lambda refused: refused.exists)

    assert netlink.datagrams == []


def test_without_an_explanation_the_errno_explains() -> None:
    netlink = Scripted(refusal(errno.EPERM, 1))

    with pytest.raises(NetlinkError, match="netlink message 16: Operation not permitted"):
        netlink.transact([message(16, 0, b"")])


def test_one_message_is_got() -> None:
    netlink = Scripted(answered(16, 7, b"old") + answered(16, 1, b"payload"))

    assert netlink.get(message(18, 0, b"")) == b"payload"


def test_a_get_that_is_refused_raises() -> None:
    netlink = Scripted(refusal(errno.ENODEV, 1, 18))

    with pytest.raises(NetlinkError) as caught:
        netlink.get(message(18, 0, b""))

    assert caught.value.absent


def test_a_dump_is_everything_up_to_its_end() -> None:
    netlink = Scripted(
        answered(16, 1, b"one", 2) + answered(16, 1, b"two", 2),
        answered(16, 9, b"not ours", 2) + answered(DONE, 1, bytes(4), 2),
    )

    assert netlink.dump(message(18, 0, b"body")) == [(16, b"one"), (16, b"two")]
    assert header(netlink.written[0])[2] == 0x301


def test_an_interrupted_dump_is_asked_for_again() -> None:
    netlink = Scripted(
        answered(16, 1, b"old", DUMP_INTERRUPTED) + answered(DONE, 1, bytes(4)),
        answered(16, 2, b"new") + answered(DONE, 2, bytes(4)),
    )

    assert netlink.dump(message(18, 0, b"")) == [(16, b"new")]


def test_a_dump_that_is_always_interrupted_is_given_up() -> None:
    netlink = Scripted(
        *(answered(DONE, number, bytes(4), DUMP_INTERRUPTED) for number in range(1, 9))
    )

    with pytest.raises(DumpInterrupted):
        netlink.dump(message(18, 0, b""))

    assert len(netlink.written) == 5


def test_a_refused_dump_raises() -> None:
    netlink = Scripted(refusal(errno.EOPNOTSUPP, 1, 18))

    with pytest.raises(NetlinkError, match="not supported"):
        netlink.dump(message(18, 0, b""))


def test_a_socket_that_overran_says_so() -> None:
    netlink = Scripted(OSError(errno.ENOBUFS, "No buffer space available"))

    with pytest.raises(NetlinkError) as caught:
        netlink.get(message(18, 0, b""))

    assert caught.value.errno == errno.ENOBUFS


def test_a_truncated_datagram_is_no_message() -> None:
    netlink = Scripted(b"\1\0\0", struct.pack("=IHHII", 8, 2, 0, 1, 0), refusal(1, 1))

    with pytest.raises(NetlinkError, match="Operation not permitted"):
        netlink.transact([message(16, 0, b"")])


def test_the_real_kernel_lists_loopback() -> None:
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        found = rtnl.parse_link(netlink.get(rtnl.get_link(name="lo")))
        listed = [rtnl.parse_link(payload) for _, payload in netlink.dump(rtnl.get_link())]
        index = netlink.index_of("lo")

    assert found.name == "lo"
    assert found.index == index
    assert found in listed


def test_the_real_kernel_has_no_link_of_that_name() -> None:
    with Netlink() as netlink:
        for ask in (
            lambda: netlink.get(rtnl.get_link(name="no-such-link")),
            lambda: netlink.index_of("no-such-link"),
        ):
            with pytest.raises(NetlinkError) as caught:
                ask()

            assert caught.value.absent
