import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.calls import MirroredLease
from ipam.cluster import (
    AddressRecord,
    Block,
    BlockState,
    Config,
    Holder,
    Meta,
    Node,
    NodeState,
    Pool,
    PoolState,
    Purpose,
    ServiceRecord,
    Settings,
)
from ipam.keys import Alive, Counter, Foreign, Freeze, Keys, MirrorHead, Record, write
from ipam.kv import Entry

KEYS = Keys("c")
BLOCK = Block(
    cidr=ip_network("10.0.0.64/26"),
    pool="four",
    node="a",
    uid="u",
    epoch=2,
    nonce="n",
    state=BlockState.DRAINING,
)
NODE = Node(
    name="a",
    uid="u",
    epoch=3,
    boot_id="b",
    addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    labels=MappingProxyType({"zone": "x"}),
    state=NodeState.FENCED,
    fenced_by="alice",
    wiped=True,
    unconfirmed=True,
)
CONFIG = Config(
    pools=(
        Pool(
            name="four",
            cidr=ip_network("10.0.0.0/16"),
            block_length=26,
            selector=MappingProxyType({"gpu": "yes"}),
            reservations=(ip_network("10.0.0.0/28"),),
            state=PoolState.DRAINING,
            order=3,
        ),
        Pool(
            name="lb",
            cidr=ip_network("192.0.2.0/28"),
            block_length=32,
            purpose=Purpose.LOAD_BALANCERS,
        ),
    ),
    settings=Settings(silence_s=60.0, unconfirmed_boots=True, cloud_controller=True),
)
ADDRESS = AddressRecord(
    address=ip_address("2001:db8::7"),
    pool="lb",
    sharing='["shop", "k"]',
    holders=(Holder("shop/dns", ("UDP/53",)), Holder("shop/web", ("TCP/443", "TCP/80"))),
)
LEASE = MirroredLease(
    network="a/b",
    container_id="c%1",
    ifname="eth0",
    addresses=(ip_address("10.0.0.65"),),
    pod="ns/pod",
)
RECORDS: list[tuple[str, Record]] = [
    (KEYS.block(BLOCK.cidr), BLOCK),
    (KEYS.address(ADDRESS.address), ADDRESS),
    (KEYS.service("shop/web"), ServiceRecord("shop/web", (ADDRESS.address,))),
    (KEYS.node("a"), NODE),
    (KEYS.config, CONFIG),
    (KEYS.meta, Meta(generation="g", previous=("f",))),
    (KEYS.frozen, Freeze("why")),
    (KEYS.counter, Counter()),
    (KEYS.alive("a"), Alive(instance="i", boot_id="b", uid="u")),
    (KEYS.mirror("a"), MirrorHead("u", 2, 7, 9)),
    (KEYS.lease("a", LEASE), LEASE),
]


def entry(key: str, value: bytes) -> Entry:
    return Entry(key=key, value=value, create_revision=1, mod_revision=1, version=1, lease=1)


SETTINGS = json.loads(write(CONFIG))["settings"]


def edited(record: Record, **fields: object) -> bytes:
    return json.dumps(json.loads(write(record)) | fields).encode()


@pytest.mark.parametrize(("key", "record"), RECORDS)
def test_record_comes_back_as_it_was_written(key: str, record: Record) -> None:
    assert KEYS.read(entry(key, write(record))) == record


def test_keys_of_blocks_sort_by_address() -> None:
    cidrs = [ip_network("10.0.0.0/26"), ip_network("10.0.0.64/26"), ip_network("10.0.1.0/26")]

    keys = [KEYS.block(cidr) for cidr in cidrs]

    assert keys == sorted(keys)
    assert keys[1].endswith(f"block/4/{'0' * 24}0a000040-26")


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (KEYS.node("a"), b"\xff", "unreadable"),
        (KEYS.node("a"), b"[]", "not a JSON object"),
        (KEYS.node("a"), b"{}", "unreadable: KeyError"),
        (KEYS.node("b"), write(NODE), "of another key"),
        (KEYS.node("a"), write(NODE).replace(b'"schema":1', b'"schema":2'), "schema 2, not 1"),
        (KEYS.block(BLOCK.cidr), write(replace(BLOCK, pool=7)), "unreadable"),  # type: ignore[arg-type]
        (KEYS.state + "tomato", b"{}", "no such kind"),
        (KEYS.config, json.dumps({"pools": 1, "settings": {}}).encode(), "unreadable"),
        (KEYS.node("a"), b"[" * 100_000, "unreadable"),
        (KEYS.node("a"), edited(NODE, addresses=["fe80::1%eth0"]), "addresses have a zone"),
        (KEYS.node("a"), edited(NODE, labels={"zone": "\ud800"}), "labels: '\\ud800' has"),
        (KEYS.block(BLOCK.cidr), edited(BLOCK, node="\ud800"), "cannot be printed"),
        (KEYS.block(BLOCK.cidr), edited(BLOCK, node="n" * 2000), "a text of 2000 characters"),
        (KEYS.block(BLOCK.cidr), edited(BLOCK, epoch=1 << 70), "epoch is out of range"),
        (KEYS.block(BLOCK.cidr), edited(BLOCK, schema="\ud800"), "schema \\ud800, not 1"),
        (KEYS.config, edited(CONFIG, settings={**SETTINGS, "silence_s": 10**400}), "silence_s is"),
    ],
)
def test_what_cannot_be_read_is_foreign_and_says_why(key: str, value: bytes, why: str) -> None:
    found = KEYS.read(entry(key, value))

    assert isinstance(found, Foreign)
    assert why in found.why


def test_a_sign_of_life_that_never_ends_is_none() -> None:
    there = entry(KEYS.alive("a"), write(Alive(instance="i", boot_id="b", uid="u")))
    found = KEYS.read(replace(there, lease=0))

    assert isinstance(found, Foreign)
    assert "goes with no lease" in found.why


def test_foreign_block_still_says_which_addresses_it_is_about() -> None:
    found = KEYS.read(entry(KEYS.block(BLOCK.cidr), b"by hand"))

    assert isinstance(found, Foreign)
    assert found.cidr == BLOCK.cidr
    for name in ("block/4/zz-26", "block/9/" + "0" * 32 + "-26", "block/4/" + "0" * 31 + "1-26"):
        odd = KEYS.read(entry(KEYS.state + name, b"x"))
        assert isinstance(odd, Foreign)
        assert odd.cidr is None


@given(st.sampled_from([key for key, _ in RECORDS]), st.binary(max_size=64))
def test_no_bytes_make_reading_fail(key: str, value: bytes) -> None:
    KEYS.read(entry(key, value))


@given(
    st.sampled_from([(k, r) for k, r in RECORDS if not isinstance(r, Counter)]),
    st.data(),
)
def test_no_value_in_a_field_makes_reading_fail(
    case: tuple[str, Record], data: st.DataObject
) -> None:
    key, record = case
    fields = json.loads(write(record))
    odd = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=4,
    )
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(odd)

    KEYS.read(entry(key, json.dumps(fields).encode()))
