from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from ipam.cluster import Block, BlockState, Config, Node, Pool
from ipam.keys import Keys, Record, write
from ipam.kv import Entry, Event, Listing, Unchanged
from ipam.view import View

KEYS = Keys("c")
POOL = Pool(name="p", cidr=ip_network("10.0.0.0/24"), block_length=26)
CIDRS = list(POOL.cidr.subnets(new_prefix=26))
NODE = Node(name="a", uid="u", epoch=1, boot_id="b", addresses=(ip_address("192.0.2.1"),))


def block(number: int, **fields: object) -> Block:
    base = Block(cidr=CIDRS[number], pool="p", node="a", uid="u", epoch=1, nonce="n")
    return replace(base, **fields)  # type: ignore[arg-type]


def entry(key: str, record: Record | bytes, revision: int) -> Entry:
    value = record if isinstance(record, bytes) else write(record)
    return Entry(key=key, value=value, create_revision=revision, mod_revision=revision, version=1)


def put(key: str, record: Record | bytes, revision: int) -> Event:
    return Event(key, entry(key, record, revision), revision)


def view() -> View:
    made = View(KEYS)
    made.replace(
        Listing((entry(KEYS.config, Config(pools=(POOL,)), 1), entry(KEYS.node("a"), NODE, 2)), 10)
    )
    return made


def test_block_leads_to_its_node_as_long_as_it_is_held() -> None:
    seen = view()
    key = KEYS.block(CIDRS[0])

    changed = seen.apply(put(key, block(0), 11))
    held = seen.row(seen.blocks[CIDRS[0]])
    seen.apply(put(key, block(0, state=BlockState.QUARANTINED), 12))
    resting = seen.row(seen.blocks[CIDRS[0]])
    seen.apply(put(key, block(0, epoch=0), 13))
    fenced = seen.row(seen.blocks[CIDRS[0]])

    assert changed == {CIDRS[0]}
    assert held.addresses == NODE.addresses
    assert resting.addresses == fenced.addresses == ()


def test_change_of_a_node_touches_the_rows_of_its_blocks() -> None:
    seen = view()
    seen.apply(put(KEYS.block(CIDRS[0]), block(0), 11))
    seen.apply(put(KEYS.block(CIDRS[1]), block(1), 12))

    changed = seen.apply(put(KEYS.node("a"), replace(NODE, addresses=()), 13))

    assert changed == {CIDRS[0], CIDRS[1]}


def test_node_that_is_put_again_as_it_is_touches_nothing() -> None:
    seen = view()
    seen.apply(put(KEYS.block(CIDRS[0]), block(0), 11))

    changed = seen.apply(put(KEYS.node("a"), NODE, 12))

    assert changed == set()
    assert seen.unchanged(KEYS.node("a")) == Unchanged(KEYS.node("a"), 12)


def test_own_transaction_is_not_undone_by_what_the_watch_brings_later() -> None:
    seen = view()
    key = KEYS.block(CIDRS[0])
    seen.apply(put(key, block(0), 20))

    late = seen.apply(Event(key, None, 15))
    same = seen.apply(put(key, block(0), 20))
    seen.apply(Event(key, None, 25))
    back = seen.apply(put(key, block(0), 22))

    assert (late, same, back) == (set(), set(), set())
    assert not seen.blocks


def test_what_was_listed_is_not_undone_by_an_older_change() -> None:
    seen = view()

    assert seen.apply(put(KEYS.block(CIDRS[0]), block(0), 9)) == set()
    assert not seen.blocks


def test_list_names_the_rows_that_differ() -> None:
    seen = view()
    for number in (0, 1):
        seen.apply(put(KEYS.block(CIDRS[number]), block(number), 11 + number))
    now = (
        entry(KEYS.node("a"), NODE, 2),
        entry(KEYS.block(CIDRS[1]), block(1), 12),
        entry(KEYS.block(CIDRS[2]), block(2), 13),
    )

    changed = seen.replace(Listing(now, 14))

    assert changed == {CIDRS[0], CIDRS[2]}
    assert [one.cidr for one in seen.of_node("a")] == CIDRS[1:3]
    assert seen.config == Config()
    assert seen.unchanged(KEYS.config) == Unchanged(KEYS.config, 0)


def test_list_of_a_store_that_went_back_is_believed() -> None:
    seen = view()
    seen.apply(put(KEYS.block(CIDRS[0]), block(0), 50))

    seen.replace(Listing((entry(KEYS.node("a"), NODE, 2),), 5))

    assert not seen.blocks
    assert (seen.revision, seen.highest) == (5, 5)


def test_claimed_block_is_not_free_before_it_is_known_who_got_it() -> None:
    seen = view()

    seen.begin_claim(CIDRS[:1])
    during = seen.space("p").free
    seen.apply(put(KEYS.config, Config(pools=(replace(POOL, order=1),)), 11))
    anew = seen.space("p").free
    seen.end_claim(CIDRS[:1])

    assert (during, anew, seen.space("p").free) == (3, 3, 4)


def test_configuration_that_contradicts_itself_is_foreign() -> None:
    seen = view()
    twice = Config(pools=(POOL, replace(POOL, name="q")))

    seen.apply(put(KEYS.config, twice, 11))

    assert seen.config is None
    assert [one.key for one in seen.foreign] == [KEYS.config]


def test_block_of_another_length_takes_what_it_overlaps() -> None:
    seen = view()
    assert seen.space("p").free == 4
    wide = replace(block(0), cidr=ip_network("10.0.0.0/25"))

    seen.apply(put(KEYS.block(wide.cidr), wide, 11))
    fewer = seen.space("p").free
    seen.apply(Event(KEYS.block(wide.cidr), None, 12))

    assert (fewer, seen.space("p").free) == (2, 4)


def test_frozen_key_that_cannot_be_read_freezes_all_the_same() -> None:
    seen = view()

    seen.apply(put(KEYS.frozen, b"tomato", 11))

    assert seen.frozen


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12), st.randoms())
def test_order_of_arrival_of_changes_makes_no_difference(
    changes: list[tuple[int, bool]], shuffle: object
) -> None:
    events = [
        put(KEYS.block(CIDRS[n]), block(n, nonce=str(revision)), revision)
        if there
        else Event(KEYS.block(CIDRS[n]), None, revision)
        for revision, (n, there) in enumerate(changes, 11)
    ]
    one, other = view(), view()
    for event in events:
        one.apply(event)
    shuffle.shuffle(events)  # type: ignore[attr-defined]
    for event in events:
        other.apply(event)

    assert one.blocks == other.blocks
    assert one.space("p").free == other.space("p").free
