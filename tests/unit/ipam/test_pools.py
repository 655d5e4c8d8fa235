from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam import pools
from ipam.cluster import Config, Pool, PoolState, Purpose, Settings
from ipam.keys import Keys, write
from ipam.kv import Entry
from ipam.pools import Space
from ipam.refusals import Forbidden, Invalid

FOUR = Pool(name="four", cidr=ip_network("10.0.0.0/22"), block_length=26)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (replace(FOUR, block_length=20), "smaller than one block of /20; blocks of /22 to /30"),
        (replace(FOUR, block_length=31), "/30 at most"),
        (replace(FOUR, cidr=ip_network("10.0.0.0/31")), "of /26; /30 is the smallest pool"),
        (replace(FOUR, name="a/b"), "letters, digits"),
        (replace(FOUR, cidr=ip_network("224.0.0.0/8")), "pool four: .* which is multicast"),
        (replace(FOUR, cidr=ip_network("127.0.0.0/16")), "which is loopback"),
        (replace(FOUR, cidr=ip_network("0.0.0.0/0")), 'which is "this network"'),
        (replace(FOUR, cidr=ip_network("240.0.0.0/8")), "which is reserved"),
        (replace(FOUR, cidr=ip_network("169.254.0.0/20")), "of which links are made"),
        (replace(FOUR, cidr=ip_network("fe80::/64"), block_length=122), "which is link-local"),
        (replace(FOUR, cidr=ip_network("::/0"), block_length=122), "unspecified and loopback"),
        (replace(FOUR, reservations=(ip_network("10.9.0.0/24"),)), "is not in 10.0.0.0/22"),
        (replace(FOUR, reservations=(ip_network("fd00::/64"),)), "is not in 10.0.0.0/22"),
        (replace(FOUR, reservations=(FOUR.cidr,) * 257), "257 reservations; 256 are allowed"),
    ],
)
def test_pool_that_cannot_be_is_refused_with_the_reason(pool: Pool, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        pools.validate(Config(pools=(pool,)))


BALANCERS = Pool(
    name="lb", cidr=ip_network("192.0.2.0/29"), block_length=32, purpose=Purpose.LOAD_BALANCERS
)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (replace(BALANCERS, block_length=30), "single addresses, it has no block length"),
        (replace(BALANCERS, state=PoolState.DRAINING), "keeps its address until it goes"),
        (replace(BALANCERS, cidr=ip_network("10.0.3.0/29")), "overlaps pool four"),
    ],
)
def test_pool_for_services_that_cannot_be_is_refused(pool: Pool, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        pools.validate(Config(pools=(FOUR, pool)))


def test_pool_for_services_gives_every_address_but_those_reserved() -> None:
    space = Space(replace(BALANCERS, reservations=(ip_network("192.0.2.1/32"),)))
    given = set()
    while (cidr := space.pick(len(given))) is not None:
        assert space.is_free(cidr)
        space.take(cidr)
        assert not space.is_free(cidr)
        given.add(str(cidr.network_address))

    assert given == {f"192.0.2.{number}" for number in (0, 2, 3, 4, 5, 6, 7)}


def test_pool_for_services_shrinks_down_to_what_is_given() -> None:
    there = [ip_network("192.0.2.1/32")]
    pools.check_change(BALANCERS, replace(BALANCERS, cidr=ip_network("192.0.2.0/31")), there)

    for new in (None, replace(BALANCERS, cidr=ip_network("192.0.2.4/30"))):
        with pytest.raises(Forbidden, match="of pool lb"):
            pools.check_change(BALANCERS, new, there)


def test_pools_for_pods_and_for_services_do_not_stand_in_for_each_other() -> None:
    config = Config(pools=(FOUR, BALANCERS))

    assert pools.suitable(config, 4, {}) == (FOUR,)
    assert pools.suitable(config, 4, {}, purpose=Purpose.LOAD_BALANCERS) == (BALANCERS,)
    with pytest.raises(Invalid):
        pools.of_block(config, ip_network("192.0.2.1/32"))


def test_pools_that_overlap_or_share_a_name_are_refused() -> None:
    inner = Pool(name="inner", cidr=ip_network("10.0.1.0/24"), block_length=26)
    other = Pool(name="four", cidr=ip_network("10.1.0.0/24"), block_length=26)

    with pytest.raises(Invalid, match=r"pool inner \(10.0.1.0/24\) overlaps pool four"):
        pools.validate(Config(pools=(FOUR, inner)))
    with pytest.raises(Invalid, match="two pools are called four"):
        pools.validate(Config(pools=(FOUR, other)))


def test_there_are_so_many_pools_and_no_more() -> None:
    many = tuple(
        replace(FOUR, name=f"p{number}", cidr=ip_network((0x0A000000 + (number << 10), 22)))
        for number in range(65)
    )

    pools.validate(Config(pools=many[:64]))
    with pytest.raises(Invalid, match="65 pools; 64 are allowed"):
        pools.validate(Config(pools=many))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(blocks_per_node=0),
        Settings(blocks_per_node=51),
        Settings(silence_s=-1),
        Settings(quarantine_s=float("nan")),
        Settings(quarantine_s=1e300),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: Settings) -> None:
    with pytest.raises(Invalid):
        pools.validate(Config(settings=settings))


@given(
    st.builds(
        Settings,
        blocks_per_node=st.integers(0, 60),
        silence_s=st.floats(),
        quarantine_s=st.floats(),
    )
)
def test_whatever_is_valid_can_be_read_back(settings: Settings) -> None:
    keys, config = Keys("c"), Config(settings=settings)
    with suppress(Invalid):
        pools.validate(config)
        entry = Entry(
            key=keys.config, value=write(config), create_revision=1, mod_revision=1, version=1
        )

        assert keys.read(entry) == config


def test_change_that_takes_the_ground_from_a_block_is_refused() -> None:
    blocks = [ip_network("10.0.3.0/26"), ip_network("fd00::/122")]

    pools.check_change(FOUR, replace(FOUR, cidr=ip_network("10.0.0.0/20")), blocks)
    pools.check_change(FOUR, replace(FOUR, cidr=ip_network("10.0.2.0/23")), blocks)
    with pytest.raises(Forbidden, match="another length make another pool"):
        pools.check_change(FOUR, replace(FOUR, block_length=27), blocks)
    with pytest.raises(Forbidden, match=r"which is not in 10\.0\.0\.0/23"):
        pools.check_change(FOUR, replace(FOUR, cidr=ip_network("10.0.0.0/23")), blocks)
    with pytest.raises(Forbidden, match="drain it first"):
        pools.check_change(FOUR, None, blocks)


def test_pools_are_asked_by_order_and_by_labels() -> None:
    late = replace(FOUR, name="a", order=9)
    gpu = replace(FOUR, name="gpu", selector={"gpu": "yes"}, order=-1)
    off = replace(FOUR, name="off", state=PoolState.DISABLED)
    config = Config(pools=(late, FOUR, gpu, off))

    def names(labels: dict[str, str], wanted: str = "") -> list[str]:
        return [pool.name for pool in pools.suitable(config, 4, labels, wanted)]

    assert names({}) == ["four", "a"]
    assert names({"gpu": "yes"}) == ["gpu", "four", "a"]
    assert names({}, "gpu") == []
    assert pools.suitable(config, 6, {}) == ()


def test_node_begins_at_the_same_place_each_time_and_nodes_at_different_ones() -> None:
    starts = {pools.start(f"node-{number}", 0) % 4096 for number in range(100)}

    assert pools.start("a", 1) == pools.start("a", 1) != pools.start("a", 2)
    assert len(starts) > 90


def test_wholly_reserved_block_is_no_block_and_a_partly_reserved_one_is() -> None:
    halves = (ip_network("10.0.0.64/27"), ip_network("10.0.0.96/27"))
    some = replace(
        FOUR, reservations=(*halves, ip_network("10.0.1.0/24"), ip_network("10.0.0.0/28"))
    )
    space = Space(some)

    given_ = {space.pick(seed) for seed in range(100)}

    assert space.size == 16 - 1 - 4
    assert ip_network("10.0.0.64/26") not in given_
    assert ip_network("10.0.0.0/26") in given_
    assert pools.reserved_in(IPv4Network("10.0.0.0/26"), some) == (ip_network("10.0.0.0/28"),)


def test_foreign_key_takes_each_block_it_touches() -> None:
    space = Space(
        FOUR, [ip_network("10.0.0.32/28"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
    )

    assert space.size == 0
    assert space.pick(3) is None
    assert Space(FOUR, [ip_network("10.0.0.32/28")]).size == 15


@given(
    st.sets(st.integers(0, 15)),
    st.sets(st.integers(0, 15), max_size=5),
    st.integers(0, 2**96),
)
def test_pick_finds_a_free_block_whenever_there_is_one(
    taken: set[int], reserved: set[int], seed: int
) -> None:
    blocks = list(FOUR.cidr.subnets(new_prefix=26))
    pool = replace(FOUR, reservations=tuple(blocks[n] for n in reserved))
    space = Space(pool)
    for number in taken:
        space.take(blocks[number])
        space.take(blocks[number])
    free = {blocks[number] for number in range(16)} - {blocks[n] for n in taken | reserved}

    picked = space.pick(seed)

    assert space.free == len(free)
    assert picked in free if free else picked is None


def test_nearly_full_pool_of_many_blocks_is_searched_without_a_walk() -> None:
    pool = Pool(name="wide", cidr=ip_network("fd00::/64"), block_length=122)
    space = Space(pool)
    near = [block for _, block in zip(range(2000), pool.cidr.subnets(new_prefix=122), strict=False)]
    for block in near:
        space.take(block)

    picked = {space.pick(seed) for seed in range(2000)}

    assert not picked & set(near)
    assert len(picked) == 2000
    space.give_back(near[7])
    assert space.pick(7) == near[7]


@pytest.mark.parametrize(
    ("cidr", "known"),
    [
        ("10.0.0.64/26", True),
        ("10.0.0.64/27", False),
        ("10.0.0.0/24", False),
        ("10.0.1.0/26", False),
        ("0.0.0.0/26", False),
        ("fd00::/26", False),
    ],
)
def test_a_block_of_a_pool_is_inside_and_of_its_length(cidr: str, *, known: bool) -> None:
    pool = Pool(name="p", cidr=ip_network("10.0.0.0/24"), block_length=26)

    assert pools.is_block(ip_network(cidr), pool) is known


def test_block_is_told_from_what_is_none() -> None:
    config = Config(pools=(FOUR,))

    assert pools.of_block(config, ip_network("10.0.3.0/26")) == "four"
    assert pools.of_block(config, ip_network("10.9.0.0/24"), "yet") == "yet"
    for cidr, wanted in (("10.0.3.0/27", ""), ("10.9.0.0/24", "four"), ("10.9.0.0/24", "")):
        with pytest.raises(Invalid, match=cidr):
            pools.of_block(config, ip_network(cidr), wanted)
