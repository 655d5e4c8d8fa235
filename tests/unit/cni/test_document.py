"""Reading other people's JSON: what is refused, how keys match, what messages say."""

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.document import MAX_BYTES, Section, decode, parse_address, parse_block, parse_interface
from cni.errors import CNIError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"{",
        b'{"a":1}x',
        b"{'a':1}",
        b'{"a":1,}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' * 5000,
        b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"a":"' + b"x" * MAX_BYTES + b'"}',
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_not_one_json_object_is_a_decoding_failure(text: bytes) -> None:
    with pytest.raises(CNIError) as caught:
        decode(text)

    assert caught.value.code == 6
    assert caught.value.details
    assert len(caught.value.details) < 300


def test_escaped_characters_outside_the_first_plane_are_taken() -> None:
    assert decode(b'{"a":"\\ud83d\\ude00"}').text("a") == "😀"


def test_of_equal_keys_the_last_counts() -> None:
    assert decode(b'{"a":1,"a":2}').number("a", 0, 9) == 2


def test_keys_match_without_case_but_an_exact_one_is_preferred() -> None:
    assert Section({"HostPort": 1}).number("hostPort", 0, 9) == 1
    assert Section({"HOSTPORT": 1, "hostPort": 2}).number("hostPort", 0, 9) == 2
    assert Section({"hostPort": 2, "HOSTPORT": 1}).number("hostPort", 0, 9) == 2


def test_null_is_the_same_as_absent() -> None:
    section = Section(dict.fromkeys("abcdef"))

    assert section.text("a", "d") == "d"
    assert section.flag("b", default=True) is True
    assert section.number("c", 1, 9) == 0
    assert section.items("d") == []
    assert not section.section("e")
    assert section.address("f") is None


@pytest.mark.parametrize(
    ("read", "value", "complaint"),
    [
        ("text", 1, "invalid net.key: 1 is not a string"),
        ("flag", "true", 'invalid net.key: "true" is not true or false'),
        ("flag", 1, "invalid net.key: 1 is not true or false"),
        ("items", {}, "invalid net.key: {} is not a list"),
        ("texts", ["a", 1], 'invalid net.key: ["a", 1] is not a list of strings'),
        ("section", [], "invalid net.key: [] is not an object"),
        ("sections", [1], "invalid net.key[0]: 1 is not an object"),
        ("nested", [1], "invalid net.key[0]: 1 is not a list of objects"),
        ("nested", [[{}, 1]], "invalid net.key[0][1]: 1 is not an object"),
        ("address", "10.0.0.1/8", '"10.0.0.1/8" is not an IPv4 or IPv6 address'),
        ("interface", "10.0.0.1", '"10.0.0.1" is not an address with its prefix'),
        ("network", "10.0.0.0/33", '"10.0.0.0/33" is not a network such as'),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(
    read: str, value: object, complaint: str
) -> None:
    section = decode(json.dumps({"net": {"key": value}}).encode()).section("net")

    with pytest.raises(CNIError) as caught:
        getattr(section, read)("key")

    assert caught.value.code == 7
    assert complaint in caught.value.msg


@pytest.mark.parametrize("value", [0, 10, 1.0, True, "5", [5], 10**3000])
def test_a_number_is_an_integer_within_its_bounds(value: object) -> None:
    with pytest.raises(CNIError, match="is not an integer from 1 to 9"):
        Section({"n": value}).number("n", 1, 9)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(CNIError) as caught:
        Section({"n": "x" * 10_000}).number("n", 1, 9)

    assert len(caught.value.msg) < 200


def test_a_subnet_with_host_bits_is_refused_with_what_was_meant() -> None:
    section = Section({"subnet": "10.1.2.3/16", "net": "10.1.2.3/16"})

    assert section.network("net") == ip_network("10.1.0.0/16")
    with pytest.raises(CNIError, match=r"meant: 10\.1\.0\.0/16"):
        section.network("subnet", strict=True)


def test_a_section_gives_its_faults_the_code_it_was_asked_to() -> None:
    document = decode(b'{"a":{"b":[{"c":1}]}}').giving(6)

    with pytest.raises(CNIError, match=r"a\.b\[0\]\.c") as caught:
        document.section("a").sections("b")[0].text("c")

    assert caught.value.code == 6


@pytest.mark.parametrize(
    "text", ["", "x", "10.0.0.1/", "10.0.0.1/255.0.0.0", "10.0.0.1/+8", "fe80::1%eth0/64", "::/129"]
)
def test_only_a_prefix_length_makes_an_interface(text: str) -> None:
    assert parse_interface(text) is None


def test_addresses_are_read_in_both_families() -> None:
    assert parse_address("fd00::1") == ip_address("fd00::1")
    assert parse_address("fe80::1%eth0") is None
    assert parse_address("::ffff:10.0.0.1") == ip_address("10.0.0.1")
    assert parse_interface("fd00::1/64") == ip_interface("fd00::1/64")
    assert parse_block("10.0.0.1") == ip_network("10.0.0.1/32")
    assert parse_block("10.0.0.1/24") is None
    assert parse_block("fe80::1%eth0") is None


def code_of(attempt: Callable[[], object]) -> int:
    """The code of the error that *attempt* raises, or 0."""
    try:
        attempt()
    except CNIError as error:
        return error.code
    return 0


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_code_6(text: bytes) -> None:
    assert code_of(lambda: decode(text)) in (0, 6)


READS = [
    "text",
    "flag",
    "section",
    "sections",
    "nested",
    "texts",
    "address",
    "interface",
    "network",
]


@given(st.dictionaries(st.text(), JSON), st.text())
def test_any_value_is_read_or_refused_by_name(values: dict[str, object], key: str) -> None:
    section = Section(values)
    for read in READS:
        try:
            getattr(section, read)(key)
        except CNIError as error:
            refused = error.msg
        else:
            continue
        assert refused.startswith(f"invalid {key}")
