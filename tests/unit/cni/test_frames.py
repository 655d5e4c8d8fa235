import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.frames import (
    ANSWER_HEADER_SIZE,
    HEADER_SIZE,
    MAX_ANSWER,
    MAX_BODY,
    FrameError,
    Kind,
    UnknownProtocol,
    decode_response,
    encode_request,
    encode_response,
    parse_answer_header,
    parse_body,
    parse_header,
)
from cni.request import Request, Response

DEL = Request(
    program="isthmus",
    environment={"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"},
    stdin=b'{"name": "shop"}',
    started_ns=123_456_789,
    boot_id="3f0f6f6e-8b1d-4d86-9d3e-0d1b6f1c9a11",
    netns_errno=2,
    caller_netns=(4, 4026531840),
)


def decode(frame: bytes) -> Request:
    header = parse_header(frame[:HEADER_SIZE])
    return parse_body(header, frame[HEADER_SIZE:])


def patched(offset: int, form: str, value: int) -> bytes:
    header = bytearray(encode_request(DEL)[:HEADER_SIZE])
    struct.pack_into(form, header, offset, value)
    return bytes(header)


names = st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
numbers = st.integers(0, 2**64 - 1)


@given(
    st.builds(
        Request,
        program=values,
        environment=st.dictionaries(names, values),
        stdin=st.binary(),
        started_ns=numbers,
        boot_id=st.text(st.sampled_from("0123456789abcdef-"), max_size=36),
        netns_errno=st.integers(0, 2**32 - 1),
        caller_netns=st.tuples(numbers, numbers),
    )
)
def test_a_request_comes_back_as_it_was_sent(request: Request) -> None:
    assert decode(encode_request(request)) == request


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_frame_error(data: bytes) -> None:
    with suppress(FrameError):
        header = parse_header(data[:HEADER_SIZE])
        parse_body(header, data[HEADER_SIZE:])


@given(st.binary(max_size=300))
def test_any_environment_block_is_read(block: bytes) -> None:
    frame = encode_request(replace(DEL, environment={}, stdin=b""))
    header = replace(
        parse_header(frame[:HEADER_SIZE]),
        body_length=len(b"isthmus") + len(block),
        environment_length=len(block),
    )

    assert parse_body(header, b"isthmus" + block).stdin == b""


def test_the_header_has_the_layout_that_the_launcher_writes() -> None:
    frame = encode_request(replace(DEL, netns_fd=5))

    assert HEADER_SIZE == 92
    assert frame[:4] == b"isth"
    assert struct.unpack_from("<HHII", frame, 4) == (1, 1, len(frame) - 92, 1)
    assert struct.unpack_from("<QQQ", frame, 16) == (123_456_789, 4, 4026531840)
    assert frame[40:76] == DEL.boot_id.encode()
    assert struct.unpack_from("<IIII", frame, 76) == (2, 7, 51, 16)
    assert frame[92:] == (
        b"isthmusCNI_COMMAND=DEL\0CNI_CONTAINERID=c1\0CNI_IFNAME=eth0\0" + DEL.stdin
    )


def test_the_descriptor_that_came_along_is_put_into_the_request() -> None:
    frame = encode_request(replace(DEL, netns_fd=5))
    header = parse_header(frame[:HEADER_SIZE])

    assert header.has_netns
    assert parse_body(header, frame[HEADER_SIZE:], netns_fd=9).netns_fd == 9


def test_of_a_variable_given_twice_the_first_counts() -> None:
    frame = encode_request(replace(DEL, environment={"A": "first\0A=second\0malformed"}))

    assert decode(frame).environment == {"A": "first"}


def test_a_value_without_a_name_is_no_variable() -> None:
    # A program cannot be started with one, and a foreign IPAM plugin gets ours.
    frame = encode_request(replace(DEL, environment={"": "nameless", "A": "1"}))

    assert decode(frame).environment == {"A": "1"}


def test_bytes_that_are_not_utf8_survive_in_the_environment() -> None:
    request = replace(DEL, environment={"K": b"\xff\xfe".decode("utf-8", "surrogateescape")})

    assert decode(encode_request(request)) == request


def test_the_kind_tells_an_operator_from_a_runtime() -> None:
    header = parse_header(encode_request(DEL, Kind.ADMIN)[:HEADER_SIZE])

    assert header.kind is Kind.ADMIN


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "header of 0 bytes, not 92"),
        (encode_request(DEL)[:91], "header of 91 bytes, not 92"),
        (patched(0, "<I", 0), "starts with"),
        (patched(6, "<H", 3), "kind 3 is neither 1 nor 2"),
        (patched(8, "<I", MAX_BODY + 1), "body of 1572865 bytes, more than 1572864"),
        (patched(84, "<I", 52), "parts of 7, 52 and 16 bytes do not make a body of 74"),
        (patched(88, "<I", 2**32 - 1), "parts of 7, 51 and 4294967295 bytes"),
    ],
    ids=["empty", "short", "magic", "kind", "body", "parts", "stdin"],
)
def test_a_header_that_is_none_is_refused_with_the_reason(header: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        parse_header(header)


def test_another_protocol_version_is_told_apart_so_that_it_can_be_refused() -> None:
    with pytest.raises(UnknownProtocol, match="protocol version 2 is not supported, only 1 is"):
        parse_header(patched(4, "<H", 2))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_body_of_the_wrong_length_is_refused(change: int) -> None:
    frame = encode_request(DEL)
    body = frame[HEADER_SIZE:]
    wrong = body[:change] if change < 0 else body + b"x"

    with pytest.raises(FrameError, match=f"body of {len(body) + change} bytes, not {len(body)}"):
        parse_body(parse_header(frame[:HEADER_SIZE]), wrong)


def test_a_request_too_large_for_the_agent_is_not_written() -> None:
    with pytest.raises(FrameError, match="more than 1572864"):
        encode_request(replace(DEL, stdin=b" " * MAX_BODY))


@given(st.integers(0, 255), st.binary())
def test_an_answer_comes_back_as_it_was_sent(status: int, stdout: bytes) -> None:
    response = Response(status, stdout)

    assert decode_response(encode_response(response)) == response


def test_an_answer_has_the_layout_that_the_launcher_reads() -> None:
    assert encode_response(Response(1, b"{}")) == b"isth\x01\0\0\0\x02\0\0\0{}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"isth", "answer header of 4 bytes, not 12"),
        (b"HTTP\0\0\0\0\0\0\0\0", "starts with b'HTTP'"),
        (b"isth\0\x01\0\0\0\0\0\0", "exit status 256"),
        (b"isth\0\0\0\0\xff\xff\xff\xff", "4294967295 bytes"),
        (b"isth\0\0\0\0\x02\0\0\0{", "answer of 1 bytes, not 2"),
    ],
)
def test_an_answer_that_is_none_is_refused_with_the_reason(answer: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        decode_response(answer)


@pytest.mark.parametrize(
    "response", [Response(256), Response(-1), Response(0, b" " * (MAX_ANSWER + 1))]
)
def test_an_answer_no_launcher_would_take_is_not_written(response: Response) -> None:
    with pytest.raises(FrameError):
        encode_response(response)


def test_the_answer_header_alone_says_how_much_follows() -> None:
    answer = encode_response(Response(3, b"abc"))

    assert parse_answer_header(answer[:ANSWER_HEADER_SIZE]) == (3, 3)
