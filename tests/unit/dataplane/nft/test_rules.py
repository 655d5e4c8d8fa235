"""Raw rules have the bytes that nft itself sends for what it can write."""

from dataplane.netlink import attributes, each_attribute
from dataplane.nft.rules import (
    count,
    drop,
    encode,
    found_in,
    goto,
    leave,
    network_header,
    packets,
)


def parts(expression: bytes) -> tuple[str, dict[int, bytes]]:
    ((_, body),) = each_attribute(expression)
    fields = attributes(body)
    return fields[1].rstrip(b"\0").decode(), attributes(fields[2])


def test_a_field_of_the_header_goes_to_the_register_after_others() -> None:
    name, fields = parts(network_header(12, 4, to=2))

    assert name == "payload"
    assert [int.from_bytes(fields[kind]) for kind in (1, 2, 3, 4)] == [10, 1, 12, 4]


def test_a_look_up_may_be_turned_around() -> None:
    name, fields = parts(found_in("valid", at=0, inverted=True))

    assert (name, fields[1], int.from_bytes(fields[5])) == ("lookup", b"valid\0", 1)


def test_verdicts_go_to_chains_or_drop() -> None:
    verdict = attributes(attributes(parts(goto("forget"))[1][2])[2])
    assert int.from_bytes(verdict[1], signed=True) == -4
    assert verdict[2] == b"forget\0"

    verdict = attributes(attributes(parts(drop())[1][2])[2])
    assert int.from_bytes(verdict[1]) == 0

    verdict = attributes(attributes(parts(leave())[1][2])[2])
    assert int.from_bytes(verdict[1], signed=True) == -5


def test_a_counter_begins_with_nothing_and_is_read_among_others() -> None:
    begun = attributes(encode([network_header(12, 4, to=0), count()]))[4]
    counted = begun.replace(
        bytes(8) + begun[-12:-8] + bytes(8), bytes(8) + begun[-12:-8] + (5).to_bytes(8)
    )

    assert packets(begun) == 0
    assert packets(counted) == 5


def test_a_rule_is_its_expressions_in_order() -> None:
    rule = encode([network_header(12, 4, to=0), drop()])

    listed = [attributes(each)[1] for _, each in each_attribute(attributes(rule)[4])]
    assert listed == [b"payload\0", b"immediate\0"]
