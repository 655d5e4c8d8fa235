from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipam.calls import Held, Init, TableRow
from ipam.cluster import BlockState, Pool
from ipam.keys import Freeze, write
from ipam.kv import Outcome, Put
from ipam.memory_kv import Faults
from ipam.recollection import AT_ONCE, Recollection
from ipam.replica import Change
from tests.unit.ipam.ipamd_cases import KEYS, Site, faults, node, site

WIDE = Pool(name="wide", cidr=ip_network("10.64.0.0/18"), block_length=26)
ROWS = tuple(
    TableRow(
        cidr=cidr,
        node="b",
        epoch=1,
        addresses=(ip_address("192.0.2.1"),),
        state=BlockState.ACTIVE,
    )
    for cidr in WIDE.cidr.subnets(new_prefix=WIDE.block_length)
)


def rows(*cidrs: str) -> tuple[TableRow, ...]:
    return tuple(
        TableRow(cidr=ip_network(cidr), node="b", epoch=1, addresses=(), state=BlockState.ACTIVE)
        for cidr in cidrs
    )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    """Two replicas over a store in which claims are frozen."""
    with site(tmp_path) as made:
        made.begin(WIDE)
        made.run(edit(made, KEYS.frozen, write(Freeze("it went back"))))
        made.follow()
        yield made


async def edit(cluster: Site, key: str, value: bytes) -> None:
    await cluster.replicas[0].replica.kv.commit([], [Put(key, value)])


def put_back(cluster: Site, table: Sequence[TableRow], *, at: int = 0, at_once: int = 100) -> None:
    recollection = Recollection(cluster.replicas[at].replica, at_once=at_once)
    cluster.run(recollection.put_back("a", table))


def stored(cluster: Site) -> int:
    return sum(key.startswith(f"{KEYS.state}block/") for key in cluster.store.entries)


def test_whose_a_row_is_takes_it_up_when_it_registers(cluster: Site) -> None:
    cluster.register(node("a", table=ROWS[:1]))
    owner = Held(cidr=ROWS[0].cidr, pool="wide", epoch=1, revision=1)
    told = cluster.register(node("b", epoch=1, blocks=(owner,)), at=1)

    assert [block.cidr for block in told.blocks] == [ROWS[0].cidr]


def test_many_rows_are_few_transactions_and_none_the_second_time(cluster: Site) -> None:
    tally = cluster.replicas[0].replica.tally
    before = tally.transactions
    put_back(cluster, ROWS)
    first = tally.transactions - before
    put_back(cluster, ROWS)

    assert stored(cluster) == len(ROWS) == 256
    assert first == -(-len(ROWS) // AT_ONCE) == 3
    assert tally.transactions - before == first


def test_what_another_replica_has_put_back_is_in_nobodys_way(cluster: Site) -> None:
    put_back(cluster, ROWS[::2], at=1)
    put_back(cluster, ROWS)

    assert stored(cluster) == len(ROWS)


@pytest.mark.parametrize("lost", [(True,), (False,), (True, False)])
def test_an_answer_that_was_lost_is_looked_for(cluster: Site, lost: tuple[bool, ...]) -> None:
    faults(cluster, 0, Faults(lost=lost))
    put_back(cluster, ROWS)

    assert stored(cluster) == len(ROWS)


def test_what_no_pool_has_as_a_block_is_not_put_back(cluster: Site) -> None:
    put_back(cluster, rows("0.0.0.0/1", "10.64.0.0/27", "192.0.2.0/26", "10.64.0.64/26"))

    assert [str(cidr) for cidr in cluster.replicas[0].replica.view.blocks] == ["10.64.0.64/26"]


def test_where_pools_cannot_be_read_only_what_overlaps_is_not_put_back(cluster: Site) -> None:
    cluster.run(edit(cluster, KEYS.config, b"tomato"))
    cluster.follow()
    put_back(cluster, rows("10.64.0.64/26", "10.64.0.0/24", "192.0.2.0/26", "192.0.2.32/27"))

    assert {str(cidr) for cidr in cluster.replicas[0].replica.view.blocks} == {
        "10.64.0.64/26",
        "192.0.2.0/26",
    }


def test_nothing_is_put_back_any_more_once_an_operator_has_spoken(cluster: Site) -> None:
    authority = cluster.replicas[0]
    commit = authority.replica.commit

    async def spoken_after_the_first(change: Change) -> Outcome:
        outcome = await commit(change)
        if any(one.key == KEYS.block(ROWS[0].cidr) for one in change.changes):
            await authority.init(Init(recover=True))
        return outcome

    authority.replica.commit = spoken_after_the_first  # type: ignore[method-assign]
    put_back(cluster, ROWS, at_once=10)
    put_back(cluster, ROWS)

    assert stored(cluster) == 10
