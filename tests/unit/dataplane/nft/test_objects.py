import sys
from ipaddress import ip_address, ip_network
from textwrap import dedent

import pytest

from dataplane.nft.objects import (
    COMMENT_LIMIT,
    Chain,
    Family,
    Kind,
    NamedSet,
    Protocol,
    Skeleton,
    element,
)

PORTS = NamedSet(Family.INET, "t", "ports", (Kind.PROTOCOL, Kind.PORT), (Kind.ADDRESS4, Kind.PORT))
PAIRS = NamedSet(Family.INET, "t", "pairs", (Kind.ADDRESS6, Kind.ADDRESS6), interval=True)
GUARD = NamedSet(Family.BRIDGE, "t", "guard", (Kind.IFNAME, Kind.MAC))
POD = ip_address("10.0.0.2")


def test_an_element_has_the_bytes_that_the_kernel_has() -> None:
    made = element(PORTS, (Protocol.SCTP, 8080), (POD, 80))

    assert made.key == bytes.fromhex("84000000 1f900000")
    assert made.data == bytes.fromhex("0a000002 00500000")
    assert made.end == b""


def test_a_slot_is_in_the_hosts_order_as_a_random_number_is() -> None:
    slots = NamedSet(Family.IP, "t", "be", (Kind.PORT, Kind.SLOT), (Kind.ADDRESS4,))
    made = element(slots, (80, 258), (POD,))

    assert made.key == bytes.fromhex("00500000") + (258).to_bytes(4, sys.byteorder)
    assert made.text() == "80 . 258 : 10.0.0.2"
    assert slots.declaration() == ("map be { typeof th dport . numgen random mod 2 : ip daddr; }")


def test_a_verdict_is_the_chain_it_goes_to() -> None:
    verdicts = NamedSet(Family.IP6, "t", "svc", (Kind.PORT,), (Kind.VERDICT,))
    made = element(verdicts, (80,), ("c8",))

    assert made.data == b"c8"
    assert made.text() == "80 : goto c8"
    assert verdicts.declaration() == "map svc { type inet_service : verdict; }"


def test_an_interval_ends_with_the_last_address_of_each_network() -> None:
    made = element(PAIRS, (ip_network("fd00::/64"), ip_address("fd00::1")))

    assert made.key == ip_address("fd00::").packed + ip_address("fd00::1").packed
    assert made.end == ip_address("fd00::ffff:ffff:ffff:ffff").packed + made.key[16:]


def test_names_and_macs_are_padded_to_their_registers() -> None:
    made = element(GUARD, ("veth1", "02:00:00:00:00:01"))

    assert made.key == b"veth1".ljust(16, b"\0") + bytes.fromhex("0200000000010000")


def test_elements_read_as_nft_writes_them() -> None:
    port = element(PORTS, (Protocol.TCP, 80), (POD, 8080), comment="net/c1/eth0")
    pair = element(PAIRS, (ip_network("fd00::/64"), ip_address("fd00::1")))
    guard = element(GUARD, ("veth1", "02:00:00:00:00:01"))

    assert str(port) == 'ports { tcp . 80 comment "net/c1/eth0" : 10.0.0.2 . 8080 }'
    assert str(pair) == "pairs { fd00::/64 . fd00::1 }"
    assert str(guard) == 'guard { "veth1" . 02:00:00:00:00:01 }'


def test_a_range_that_is_no_network_reads_as_a_range() -> None:
    last = ip_address("fd00::4")
    made = element(PAIRS, (ip_address("fd00::1"), ip_address("fd00::9")))
    stretched = type(made)(PAIRS, made.key, last.packed + made.end[16:])

    assert stretched.text() == "fd00::1-fd00::4 . fd00::9"


@pytest.mark.parametrize(
    ("comment", "mended"),
    [
        ('say "hi"\n', "say ?hi??"),
        ("back\\slash", "back?slash"),
        ("x" * 300, "x" * COMMENT_LIMIT),
        ("é" * 100, "é" * (COMMENT_LIMIT // 2)),
    ],
)
def test_comments_that_nft_could_not_print_are_mended(comment: str, mended: str) -> None:
    assert element(PORTS, (Protocol.TCP, 1), (POD, 1), comment=comment).comment == mended


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_bounds_is_named(port: int) -> None:
    with pytest.raises(ValueError, match=f"{port} is no port"):
        element(PORTS, (Protocol.TCP, port), (POD, 80))


def test_a_name_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="does not fit ifname"):
        element(GUARD, ("a" * 17, "02:00:00:00:00:01"))


def test_too_few_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        element(PORTS, (Protocol.TCP,), (POD, 80))


def test_a_skeleton_replaces_its_table_in_one_script() -> None:
    chain = Chain("in", ("accept",), "type filter hook input priority 0;")
    made = Skeleton(Family.INET, "t", (PORTS,), (chain,))

    assert made.script([element(PORTS, (Protocol.TCP, 80), (POD, 8080))]) == dedent(f"""\
        add table inet t
        delete table inet t
        table inet t {{
        \tset {made.layout} {{ type mark; }}
        \tmap ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
        \tchain in {{
        \t\ttype filter hook input priority 0;
        \t\taccept
        \t}}
        }}
        add element inet t ports {{ tcp . 80 : 10.0.0.2 . 8080 }}
        """)


def test_every_change_of_rules_or_sets_is_another_layout() -> None:
    plain = Skeleton(Family.INET, "t", (PORTS,), (Chain("in", ("accept",)),))
    others = [
        Skeleton(Family.INET, "t", (PORTS, PAIRS), plain.chains),
        Skeleton(Family.INET, "t", (PORTS,), (Chain("in", ("drop",)),)),
        Skeleton(Family.INET, "t", (PORTS,), ()),
    ]

    assert len({each.layout for each in (plain, *others)}) == 4
    assert plain.layout == Skeleton(Family.INET, "t", plain.sets, plain.chains).layout


def test_who_stands_in_for_a_table_is_asked_first_and_only_once_all_is_there() -> None:
    made = Skeleton(
        Family.IP,
        "t",
        (PORTS,),
        (
            Chain("of", ("accept",)),
            Chain("in", ("goto of",), "type nat hook prerouting priority -100; policy accept;"),
        ),
    )
    other = made.stand_in

    assert "chain in" not in other.unasked.script()
    assert "chain of" in other.unasked.script()
    assert other.opening() == dedent("""\
        table ip t-meanwhile {
        \tchain in {
        \t\ttype nat hook prerouting priority -101; policy accept;
        \t\tgoto of
        \t}
        }
        """)
