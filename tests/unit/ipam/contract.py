"""What every store must do, whatever keeps its rows; tests/unit runs it on both stores."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ipam.calls import PoolRow, TableRow
from ipam.cluster import BlockState
from ipam.errors import Conflict
from ipam.holdings import Former, Holdings, OwnBlock, OwnState
from ipam.leases import State
from ipam.store import (
    Delete,
    Forget,
    Own,
    Put,
    Released,
    Remember,
    Snapshot,
    Stick,
    Store,
    Tabulate,
)
from tests.unit.ipam.cases import BOOT, record, who

ONE = record(who(1), "10.0.0.2/24", "fd00::2/64")
TWO = record(who(2), "10.0.0.3/24")
GONE = Released(ip_address("10.0.0.9"), BOOT, 7)
BLOCK = OwnBlock(cidr=ip_network("10.1.0.0/26"), pool="p", epoch=2, revision=9)
OWN = Holdings(
    uid="u",
    epoch=2,
    generation="g",
    counter=2**40,
    confirmed_boot=BOOT,
    unconfirmed_boots=True,
    blocks=(
        BLOCK,
        OwnBlock(
            cidr=ip_network("fd00::/122"),
            pool="q",
            epoch=1,
            revision=8,
            state=OwnState.LOST,
            reserved=(ip_network("fd00::/126"), ip_network("fd00::9")),
            default=False,
        ),
    ),
)
ROW = TableRow(
    cidr=BLOCK.cidr,
    node="n",
    epoch=2,
    addresses=(ip_address("192.0.2.1"), ip_address("fd00::1")),
    state=BlockState.DRAINING,
)
POOL = PoolRow(name="p", cidr=ip_network("10.1.0.0/16"), masquerade=True)
DB0 = Former("shop/default/db-0/eth0", (ip_address("10.1.0.4"), ip_address("fd00::14")), 3)


def contents(store: Store) -> tuple[set[object], set[object]]:
    snapshot = store.load()
    return set(snapshot.records), set(snapshot.history)


class StoreContract:
    def test_new_store_is_empty(self, store: Store) -> None:
        assert store.load() == Snapshot()

    def test_record_comes_back_as_it_was_put(self, store: Store) -> None:
        odd = replace(
            ONE, netns_cookie=2**64 - 1, sandbox="/run/\udcff netns", spec='{"é": "\\u0000"}'
        )

        store.commit([Put(odd), Put(record(who(3)))])

        assert contents(store) == ({odd, record(who(3))}, set())

    def test_second_put_takes_the_place_of_the_first(self, store: Store) -> None:
        changed = replace(ONE, addresses=TWO.addresses, state=State.RESERVED, reserved_ns=9)

        store.commit([Put(ONE)])
        store.commit([Put(changed)])
        store.commit([Put(replace(TWO, addresses=ONE.addresses))])

        assert contents(store) == ({changed, replace(TWO, addresses=ONE.addresses)}, set())

    def test_delete_removes_the_record_of_that_key_alone(self, store: Store) -> None:
        other = record(who(1, network="db"), "10.0.0.4/24")

        store.commit([Put(ONE), Put(TWO), Put(other)])
        store.commit([Delete(ONE.who), Delete(who(99))])

        assert contents(store) == ({TWO, other}, set())

    def test_address_of_another_record_is_refused_whole(self, store: Store) -> None:
        store.commit([Put(ONE), Remember((GONE,))])

        with pytest.raises(Conflict):
            store.commit([Put(TWO), Delete(ONE.who), Put(ONE), Put(record(who(3), "fd00::2/64"))])

        assert contents(store) == ({ONE}, {GONE})

    def test_address_deleted_in_a_commit_can_be_put_in_the_same_one(self, store: Store) -> None:
        store.commit([Put(ONE)])
        heir = record(who(3), "10.0.0.2/24")

        store.commit([Delete(ONE.who), Put(heir)])

        assert contents(store) == ({heir}, set())

    def test_addresses_of_a_deleted_record_are_anybodys(self, store: Store) -> None:
        heir = record(who(3), "10.0.0.2/24", "fd00::2/64")

        store.commit([Put(ONE), Put(TWO)])
        store.commit([Delete(ONE.who)])
        store.commit([Put(heir)])

        assert contents(store) == ({TWO, heir}, set())

    def test_history_keeps_the_last_release_of_an_address(self, store: Store) -> None:
        store.commit([Remember((GONE, replace(GONE, address=ip_address("fd00::9"))))])
        store.commit([Remember((replace(GONE, released_ns=8),))])

        assert contents(store) == (
            set(),
            {replace(GONE, released_ns=8), replace(GONE, address=ip_address("fd00::9"))},
        )

    def test_address_leaves_the_history_when_it_is_held_or_forgotten(self, store: Store) -> None:
        again = record(who(1), "10.0.0.9/24")
        other = replace(GONE, address=ip_address("10.0.0.10"))

        store.commit([Remember((GONE, other))])
        store.commit([Put(again)])
        store.commit([Forget((other.address, ip_address("10.0.0.11")))])

        assert contents(store) == ({again}, set())

    def test_probe_changes_nothing(self, store: Store) -> None:
        store.commit([Put(ONE), Remember((GONE,))])

        store.probe()

        assert contents(store) == ({ONE}, {GONE})

    def test_holdings_come_back_as_they_were_put_last(self, store: Store) -> None:
        store.commit([Own(replace(OWN, epoch=1, blocks=(replace(BLOCK, revision=1),)))])
        store.commit([Own(OWN), Put(ONE)])

        assert store.load() == Snapshot(records=(ONE,), holdings=OWN)

    def test_former_addresses_of_a_pod_are_the_last_ones(self, store: Store) -> None:
        other, again = replace(DB0, pod="shop/default/db-1/eth0"), replace(DB0, used=7)

        store.commit([Stick((DB0, other, replace(DB0, pod="x")))])
        store.commit([Stick((again,), ("x", "never seen"))])

        assert set(store.load().formers) == {other, again}

    def test_rows_of_the_table_come_and_go(self, store: Store) -> None:
        other = replace(ROW, cidr=ip_network("10.2.0.0/26"), addresses=())
        moved = replace(ROW, node="m", epoch=1)

        store.commit([Tabulate((ROW, other))])
        store.commit([Tabulate((moved,), (ROW.cidr, other.cidr))])

        assert store.load().rows == (moved,)

    def test_pools_are_as_they_were_unless_they_are_given(self, store: Store) -> None:
        other = replace(POOL, name="q", cidr=ip_network("fd00::/48"), masquerade=False)

        store.commit([Tabulate((), pools=(POOL, other)), Tabulate((ROW,))])
        first = store.load().pools
        store.commit([Tabulate((), pools=(other,))])

        assert (set(first), store.load().pools) == ({POOL, other}, (other,))
