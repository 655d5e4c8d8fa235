"""What every store must do, whatever keeps its rows; tests/unit runs it on both stores."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ipam.errors import Conflict
from ipam.leases import State
from ipam.store import Delete, Forget, Put, Released, Remember, Snapshot, Store
from tests.unit.ipam.cases import BOOT, record, who

ONE = record(who(1), "10.0.0.2/24", "fd00::2/64")
TWO = record(who(2), "10.0.0.3/24")
GONE = Released(ip_address("10.0.0.9"), BOOT, 7)


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
