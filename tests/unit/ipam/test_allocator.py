"""The allocator: decided in memory, followed by the disk, true after any failure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from threading import Thread
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipam.allocator import Allocator
from ipam.errors import AddressUnavailable, InvalidRange, NoFreeAddress, StoreUnavailable
from ipam.holdings import Holdings
from ipam.leases import Attachment, Leases, Record, State, Wanted
from ipam.store import (
    Change,
    MemoryStore,
    Own,
    Put,
    Released,
    Remember,
    Snapshot,
    Store,
    UnusableStore,
)
from tests.unit.ipam.cases import (
    BOOT,
    WAIT_S,
    Clock,
    FragileStore,
    record,
    wanted,
    who,
)

NET = wanted("10.0.0.0/29")
WIDE = wanted("10.0.0.0/24")
DUAL = wanted("10.0.0.0/29", "fd00::/64")
OTHER_BOOT = "00000000-0000-4000-8000-00000000beef"

Start = Callable[..., Allocator]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> FragileStore:
    return FragileStore()


@pytest.fixture
def start(clock: Clock) -> Iterator[Start]:
    """Start allocators that stop at the end of the test."""
    started: list[Allocator] = []

    def start(store: Store, boot_id: str = BOOT) -> Allocator:
        started.append(Allocator(store, boot_id=boot_id, now=clock))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def leases(start: Start, store: FragileStore) -> Allocator:
    return start(store)


def reserve(leases: Leases, owner: Attachment, want: Wanted = NET) -> list[str]:
    return [str(lease.address.ip) for lease in leases.reserve(owner, want)]


def add(leases: Leases, owner: Attachment, want: Wanted = NET) -> Record:
    chosen = leases.reserve(owner, want)
    held = replace(record(owner), addresses=tuple(lease.address for lease in chosen))
    leases.hold(held).result(WAIT_S)
    return held


def test_lease_has_prefix_gateway_and_novelty(leases: Allocator) -> None:
    four, six = leases.reserve(who(1), DUAL)

    assert (str(four.address), str(four.gateway), four.reused) == ("10.0.0.2/29", "10.0.0.1", False)
    assert (str(six.address), str(six.gateway), six.reused) == ("fd00::2/64", "fd00::1", False)


def test_held_record_is_found_by_key_and_network(leases: Allocator) -> None:
    one, two = add(leases, who(1)), add(leases, who(2, "db"))

    assert leases.find(who(1)) == one
    assert leases.find(who(9)) is None
    assert leases.of_network("db") == [two]
    assert set(leases.records()) == {one, two}


def test_repeated_reservation_gives_the_same_addresses(leases: Allocator) -> None:
    first = reserve(leases, who(1), DUAL)

    assert reserve(leases, who(1), DUAL) == first

    held = add(leases, who(1), DUAL)

    assert [str(one.ip) for one in held.addresses] == first
    assert leases.reserve(who(1), DUAL)[0].reused


def test_reservation_that_no_longer_fits_is_replaced_and_cools(leases: Allocator) -> None:
    held = add(leases, who(1), DUAL)
    moved = add(leases, who(1), wanted("10.7.0.0/29", "fd00::/64"))

    assert str(moved.addresses[0].ip) == "10.7.0.2"
    assert moved.addresses[1] == held.addresses[1]
    assert leases.check() == []
    assert reserve(leases, who(2), replace(NET, requested=(held.addresses[0].ip,)))


def test_abandoned_add_keeps_its_addresses_for_the_next_add_of_its_key(
    leases: Allocator, clock: Clock
) -> None:
    held = add(leases, who(1))
    clock.advance(5)

    leases.abandon(who(1)).result(WAIT_S)
    leases.abandon(who(1)).result(WAIT_S)

    assert leases.find(who(1)) == replace(held, state=State.RESERVED, reserved_ns=clock.ns)
    assert reserve(leases, who(2)) == ["10.0.0.3"]
    assert reserve(leases, who(1)) == ["10.0.0.2"]


def test_abandon_and_release_of_the_unknown_do_nothing(leases: Allocator) -> None:
    leases.abandon(who(1)).result(WAIT_S)
    leases.release(who(1)).result(WAIT_S)

    assert leases.records() == []


def test_reservation_expires_after_the_cool_down(leases: Allocator, clock: Clock) -> None:
    add(leases, who(1))
    reserve(leases, who(2))
    for number in (1, 2):
        leases.abandon(who(number)).result(WAIT_S)

    clock.advance(29.9)
    assert leases.expire() == ()

    clock.advance(0.1)
    assert set(leases.expire()) == {who(1), who(2)}

    assert leases.check() == []
    assert leases.records() == []
    assert leases.usage()[0].held == 0


def test_reservation_taken_up_again_does_not_expire_under_the_add(
    leases: Allocator, clock: Clock
) -> None:
    add(leases, who(1))
    leases.abandon(who(1)).result(WAIT_S)
    clock.advance(29)
    reserve(leases, who(1))
    clock.advance(29)

    assert leases.expire() == ()

    leases.abandon(who(1)).result(WAIT_S)
    clock.advance(29)

    assert leases.expire() == ()

    clock.advance(1)

    assert leases.expire() == (who(1),)


def test_reservation_of_an_earlier_boot_is_old(start: Start, store: FragileStore) -> None:
    old = replace(record(who(1), "10.0.0.2/29"), boot_id=OTHER_BOOT, state=State.RESERVED)
    store.commit([Put(replace(old, reserved_ns=2**60))])

    assert start(store).expire() == (who(1),)


def test_released_address_is_reused_longest_idle_first(leases: Allocator, clock: Clock) -> None:
    for number in range(5):
        add(leases, who(number))
    for number in (3, 1):
        leases.release(who(number)).result(WAIT_S)
        clock.advance(1)

    clock.advance(30)
    (lease,) = leases.reserve(who(7), NET)

    assert (str(lease.address.ip), lease.reused) == ("10.0.0.5", True)
    assert reserve(leases, who(8)) == ["10.0.0.3"]
    assert leases.counters.cooling_reused == 0


def test_cooling_address_is_given_when_nothing_else_is_free_and_counted(
    leases: Allocator,
) -> None:
    for number in range(5):
        add(leases, who(number))
    leases.release(who(3)).result(WAIT_S)

    (lease,) = leases.reserve(who(7), NET)

    assert (str(lease.address.ip), lease.reused) == ("10.0.0.5", True)
    assert leases.counters.cooling_reused == 1


def test_cool_down_survives_a_restart_but_not_a_reboot(
    start: Start, store: FragileStore, clock: Clock
) -> None:
    leases = start(store)
    for number in range(2):
        add(leases, who(number))
    leases.release(who(1)).result(WAIT_S)
    clock.advance(1)
    leases.release(who(0)).result(WAIT_S)

    after_restart, after_reboot = start(store), start(store, boot_id=OTHER_BOOT)
    for one in (after_restart, after_reboot):
        one.reserve(who(9), NET)

    assert [(one.idle, one.cooling) for one in after_restart.usage()] == [(2, 2)]
    assert [(one.idle, one.cooling) for one in after_reboot.usage()] == [(2, 0)]


def test_order_of_reuse_survives_a_restart(start: Start, store: FragileStore, clock: Clock) -> None:
    leases = start(store)
    for number in range(5):
        add(leases, who(number))
    for number in (4, 0, 2, 1, 3):
        leases.release(who(number)).result(WAIT_S)
        clock.advance(1)
    clock.advance(40)

    again = start(store)
    orders = [[reserve(one, who(9 + n))[0] for n in range(5)] for one in (leases, again)]

    assert orders[0] == orders[1] == [f"10.0.0.{last}" for last in (6, 2, 4, 3, 5)]


def test_exhaustion_names_the_range_and_is_counted(leases: Allocator) -> None:
    for number in range(5):
        add(leases, who(number))

    with pytest.raises(NoFreeAddress, match=r"no free address in 10\.0\.0\.0/29"):
        leases.reserve(who(9), NET)
    assert leases.counters.exhausted == 1


def test_exhausted_second_family_leaves_nothing_of_the_first(leases: Allocator) -> None:
    want = wanted("10.0.0.0/24", "fd00::/126")
    add(leases, who(1), want)
    add(leases, who(2), want)

    with pytest.raises(NoFreeAddress, match=r"fd00::/126"):
        leases.reserve(who(3), want)

    assert [usage.held for usage in leases.usage()] == [2, 2]
    assert leases.check() == []


def test_networks_of_the_same_subnet_share_no_address(leases: Allocator) -> None:
    add(leases, who(1, "web"))

    assert reserve(leases, who(1, "db")) == ["10.0.0.3"]


def test_range_sets_that_overlap_are_refused(leases: Allocator) -> None:
    with pytest.raises(InvalidRange, match="overlap"):
        leases.reserve(who(1), wanted("10.0.0.0/24", "10.0.0.0/29"))


def ask(*addresses: str, want: Wanted = DUAL) -> Wanted:
    return replace(want, requested=tuple(map(ip_address, addresses)))


def test_requested_addresses_are_given_in_any_order(leases: Allocator) -> None:
    assert reserve(leases, who(1), ask("fd00::77", "10.0.0.6")) == ["10.0.0.6", "fd00::77"]
    assert reserve(leases, who(2), ask("fd00::78")) == ["10.0.0.2", "fd00::78"]


def test_requested_address_is_given_while_it_cools_and_marked_reused(leases: Allocator) -> None:
    add(leases, who(1), ask("10.0.0.6"))
    leases.release(who(1)).result(WAIT_S)

    four, six = leases.reserve(who(2), ask("10.0.0.6"))

    assert (str(four.address.ip), four.reused) == ("10.0.0.6", True)
    assert not six.reused


def test_request_for_another_address_moves_the_reservation(leases: Allocator) -> None:
    add(leases, who(1))

    assert str(add(leases, who(1), ask("10.0.0.4", want=NET)).addresses[0].ip) == "10.0.0.4"
    assert leases.check() == []
    assert leases.usage()[0].held == 1


@pytest.mark.parametrize(
    ("want", "message"),
    [
        (ask("10.9.0.9"), "requested address 10.9.0.9 is not in 10.0.0.0/29 or fd00::/64"),
        (ask("10.0.0.1"), "requested address 10.0.0.1 is the gateway of 10.0.0.0/29"),
        (ask("10.0.0.0"), "requested address 10.0.0.0 is the network address of 10.0.0.0/29"),
        (ask("10.0.0.7"), "requested address 10.0.0.7 is the broadcast address of 10.0.0.0/29"),
        (
            replace(ask("10.0.0.4"), excluded=(ip_network("10.0.0.4/31"),)),
            "requested address 10.0.0.4 is excluded from 10.0.0.0/29",
        ),
        (
            ask("10.0.0.4", "10.0.0.5"),
            "requested address 10.0.0.5 cannot be given besides 10.0.0.4:"
            " 10.0.0.0/29 gives one address",
        ),
        (Wanted(range_sets=(), requested=(ip_address("10.0.0.4"),)), "there is none"),
    ],
)
def test_requested_address_out_of_place_is_refused_by_name(
    leases: Allocator, want: Wanted, message: str
) -> None:
    with pytest.raises(AddressUnavailable) as caught:
        leases.reserve(who(1), want)

    assert message in str(caught.value)
    assert leases.usage() == () or leases.usage()[0].held == 0


def test_requested_address_of_another_names_its_holder(leases: Allocator) -> None:
    add(leases, who(1))
    reserve(leases, who(2))
    add(leases, who(3))
    leases.abandon(who(3)).result(WAIT_S)

    with pytest.raises(AddressUnavailable, match=r"10\.0\.0\.2 is held by web/container-1/eth0"):
        leases.reserve(who(9), ask("10.0.0.2", want=NET))
    for number, address in ((2, "10.0.0.3"), (3, "10.0.0.4")):
        with pytest.raises(AddressUnavailable, match=f"reserved for web/container-{number}/eth0"):
            leases.reserve(who(9), ask(address, want=NET))


def test_failed_hold_is_a_reservation_in_memory_once_abandoned(
    leases: Allocator, store: FragileStore, clock: Clock
) -> None:
    reserve(leases, who(1))
    store.full = True

    with pytest.raises(StoreUnavailable, match="disk full"):
        leases.hold(record(who(1), "10.0.0.2/29")).result(WAIT_S)
    leases.abandon(who(1)).result(WAIT_S)

    assert leases.find(who(1)) is None
    assert leases.usage()[0].held == 1

    store.full = False
    clock.advance(30)
    assert leases.expire() == (who(1),)

    assert leases.check() == []
    assert leases.usage()[0].held == 0


def test_failed_hold_of_a_repeated_add_leaves_the_record_before_it(
    leases: Allocator, store: FragileStore
) -> None:
    held = add(leases, who(1))
    store.full = True

    failed = leases.hold(replace(held, started_ns=99)).exception(WAIT_S)

    assert isinstance(failed, StoreUnavailable)
    assert leases.find(who(1)) == held
    assert leases.check() == []


def test_failed_release_leaves_the_record_for_the_next_try(
    leases: Allocator, store: FragileStore
) -> None:
    held = add(leases, who(1))
    store.full = True

    with pytest.raises(StoreUnavailable, match="disk full"):
        leases.release(who(1)).result(WAIT_S)

    assert leases.find(who(1)) == held
    assert leases.usage()[0].held == 1

    store.full = False
    leases.release(who(1)).result(WAIT_S)

    assert leases.find(who(1)) is None
    assert (leases.usage()[0].held, leases.check()) == (0, [])


def test_failed_abandon_leaves_the_record(leases: Allocator, store: FragileStore) -> None:
    held = add(leases, who(1))
    store.full = True

    with pytest.raises(StoreUnavailable, match="disk full"):
        leases.abandon(who(1)).result(WAIT_S)

    assert leases.find(who(1)) == held


def test_hold_and_abandon_in_one_breath_end_as_a_reservation(
    leases: Allocator, store: FragileStore
) -> None:
    reserve(leases, who(1))
    store.go.clear()
    held = leases.hold(record(who(1), "10.0.0.2/29"))
    abandoned = leases.abandon(who(1))
    store.go.set()

    assert (held.exception(WAIT_S), abandoned.exception(WAIT_S)) == (None, None)
    found = leases.find(who(1))
    assert found is not None
    assert found.state is State.RESERVED
    assert leases.check() == []


def test_next_adds_choice_outlives_the_hold_of_the_one_before(
    leases: Allocator, store: FragileStore
) -> None:
    reserve(leases, who(1))
    store.go.clear()
    leases.hold(record(who(1), "10.0.0.2/29"))
    abandoned = leases.abandon(who(1))
    again = reserve(leases, who(1), wanted("10.7.0.0/29"))
    store.go.set()
    abandoned.result(WAIT_S)

    assert again == ["10.7.0.2"]
    with pytest.raises(AddressUnavailable, match="reserved for web/container-1/eth0"):
        leases.reserve(who(2), ask("10.7.0.2", want=wanted("10.7.0.0/29")))


def test_reservation_whose_end_is_not_durable_yet_is_not_ended_twice(
    leases: Allocator, store: FragileStore, clock: Clock
) -> None:
    add(leases, who(1))
    leases.abandon(who(1)).result(WAIT_S)
    clock.advance(30)
    store.go.clear()

    assert leases.expire() == (who(1),)
    assert leases.expire() == ()

    store.go.set()

    assert leases.check() == []


def test_address_is_nobody_elses_until_its_release_is_durable(
    leases: Allocator, store: FragileStore
) -> None:
    for number in range(5):
        add(leases, who(number))
    store.go.clear()
    released = leases.release(who(2))

    assert leases.find(who(2)) is None
    with pytest.raises(NoFreeAddress):
        leases.reserve(who(9), NET)

    store.go.set()
    released.result(WAIT_S)

    assert reserve(leases, who(9)) == ["10.0.0.4"]


def test_hold_refuses_an_address_of_another(leases: Allocator) -> None:
    add(leases, who(1))

    with pytest.raises(AddressUnavailable, match="is held by web/container-1/eth0"):
        leases.hold(record(who(2), "10.0.0.2/29"))


def test_addresses_of_another_allocator_are_held_too(leases: Allocator) -> None:
    leases.hold(record(who(1), "10.0.0.2/29")).result(WAIT_S)

    assert reserve(leases, who(2)) == ["10.0.0.3"]


def test_broken_store_refuses_reservations_until_it_works(
    leases: Allocator, store: FragileStore
) -> None:
    add(leases, who(1))
    store.full = True
    leases.release(who(1)).exception(WAIT_S)

    with pytest.raises(StoreUnavailable, match="no address can be made durable: disk full"):
        leases.reserve(who(2), NET)

    store.full = False
    leases.expire()
    leases.check()

    assert leases.degraded == ""
    assert reserve(leases, who(2))


class ForgetfulDisk(FragileStore):
    """Does what it says it did not: a sync that failed after the write."""

    def commit(self, changes: Iterable[Change]) -> None:
        full, self.full = self.full, False
        super().commit(changes)
        self.full = full
        if full:
            raise StoreUnavailable("disk I/O error")


def test_commit_that_took_effect_though_it_failed_is_taken_back(start: Start) -> None:
    store = ForgetfulDisk()
    leases = start(store)
    store.full = True
    leases.reserve(who(1), NET)
    leases.hold(record(who(1), "10.0.0.2/29")).exception(WAIT_S)
    store.full = False
    leases.abandon(who(1)).result(WAIT_S)
    assert leases.check() != []

    leases.expire()

    assert leases.check() == []
    assert store.load().records == ()


def test_suspended_allocator_adopts_but_does_not_reserve(leases: Allocator) -> None:
    leases.suspend("being rebuilt from links")

    with pytest.raises(StoreUnavailable, match="being rebuilt from links"):
        leases.reserve(who(2), NET)
    assert leases.adopt(record(who(1), "10.0.0.2/29")).result(WAIT_S) is None

    leases.resume()

    assert reserve(leases, who(2)) == ["10.0.0.3"]


def test_whoever_resumes_speaks_for_itself_alone(leases: Allocator) -> None:
    leases.suspend("no store")
    leases.suspend("links not recorded", by="adoption")

    leases.resume()

    assert leases.degraded == "links not recorded"
    leases.resume(by="adoption")
    assert leases.degraded == ""


def test_adoption_gives_the_holder_that_is_in_the_way(leases: Allocator) -> None:
    one = record(who(1), "10.0.0.2/29")

    assert leases.adopt(one).result(WAIT_S) is None
    assert leases.adopt(one).result(WAIT_S) is None
    assert leases.adopt(record(who(2), "10.0.0.3/29", "10.0.0.2/29")).result(WAIT_S) == who(1)
    assert leases.adopt(record(who(1), "10.0.0.4/29")).result(WAIT_S) == who(1)
    assert leases.records() == [one]


def test_failed_adoption_leaves_nothing(leases: Allocator, store: FragileStore) -> None:
    store.full = True

    assert leases.adopt(record(who(1), "10.0.0.2/29")).exception(WAIT_S) is not None
    assert leases.records() == []
    assert leases.check() == []


def test_unusable_store_fails_everything_with_its_reason(start: Start) -> None:
    leases = start(UnusableStore("leases.db is corrupt"))

    failed = leases.adopt(record(who(1), "10.0.0.2/29")).exception(WAIT_S)

    assert isinstance(failed, StoreUnavailable)
    with pytest.raises(StoreUnavailable, match=r"leases\.db is corrupt"):
        leases.reserve(who(1), NET)


def test_rewriting_makes_the_next_store_equal_to_memory(
    leases: Allocator, store: FragileStore, start: Start
) -> None:
    held = add(leases, who(1))
    add(leases, who(2))
    leases.release(who(2)).result(WAIT_S)
    store.full = True
    leases.release(who(1)).exception(WAIT_S)
    fresh = MemoryStore()
    stale = replace(held, who=who(9)), Released(held.addresses[0].ip, BOOT, 1)
    fresh.commit([Put(stale[0]), Remember((stale[1],))])

    leases.rewrite(lambda: fresh).result(WAIT_S)

    assert (leases.degraded, leases.check()) == ("", [])
    assert fresh.load().records == (held,)
    assert [str(one.address) for one in fresh.load().history] == ["10.0.0.3"]


def test_failed_rewriting_degrades_until_the_next_attempt(
    leases: Allocator, store: FragileStore
) -> None:
    held = add(leases, who(1))
    store.full = True
    fresh = MemoryStore()

    with pytest.raises(StoreUnavailable, match="disk full"):
        leases.rewrite(lambda: store).result(WAIT_S)
    assert leases.degraded == "disk full"
    assert leases.records() == [held]

    leases.rewrite(lambda: fresh).result(WAIT_S)

    assert (leases.degraded, fresh.load().records) == ("", (held,))


def test_change_of_mind_before_the_disk_followed_cools_both_addresses(
    leases: Allocator, store: FragileStore
) -> None:
    add(leases, who(1), ask("10.0.0.2", want=NET))
    store.go.clear()
    for address in ("10.0.0.3", "10.0.0.4"):
        (lease,) = leases.reserve(who(1), ask(address, want=NET))
        last = leases.hold(replace(record(who(1)), addresses=(lease.address,)))
    store.go.set()
    last.result(WAIT_S)

    assert leases.check() == []
    assert [(one.held, one.idle) for one in leases.usage()] == [(1, 2)]
    assert {str(one.address) for one in store.load().history} == {"10.0.0.2", "10.0.0.3"}


def test_closed_allocator_promises_nothing(leases: Allocator) -> None:
    held = add(leases, who(1))
    leases.close()

    assert isinstance(leases.release(who(1)).exception(WAIT_S), StoreUnavailable)
    assert isinstance(leases.hold(record(who(2))).exception(WAIT_S), StoreUnavailable)
    assert leases.records() == [held]


def test_check_names_what_the_store_has_lost_or_gained(
    leases: Allocator, store: FragileStore
) -> None:
    add(leases, who(1))
    MemoryStore.commit(store, [Put(record(who(2), "10.0.0.9/29"))])
    MemoryStore.commit(store, [Remember((Released(ip_address("10.0.0.2"), BOOT, 1),))])

    assert leases.check() == [
        "10.0.0.2: in a record and in the history",
        "web/container-2/eth0: in the store, not in memory",
    ]


def test_threads_share_a_small_range_without_sharing_an_address(leases: Allocator) -> None:
    want = wanted("10.0.0.0/27", "fd00::/64")
    failures: list[BaseException] = []

    def churn(worker: int) -> None:
        try:
            for turn in range(40):
                owner = who(1000 * worker + turn)
                add(leases, owner, want)
                if turn % 3 == 0:
                    leases.abandon(owner).result(WAIT_S)
                leases.release(owner).result(WAIT_S)
        except BaseException as exc:  # noqa: BLE001  told to the test's own thread
            failures.append(exc)

    threads = [Thread(target=churn, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert leases.check() == []
    assert leases.records() == []


KEYS = st.integers(0, 9).map(who)
WANTS = st.sampled_from(
    [
        NET,
        DUAL,
        wanted("fd00::/64"),
        wanted("10.0.0.0/28"),
        ask("10.0.0.4"),
        replace(NET, excluded=(ip_network("10.0.0.2/31"),)),
    ]
)


def test_a_preferred_address_is_given_where_it_is_free(leases: Allocator) -> None:
    like = replace(WIDE, preferred=(ip_address("10.0.0.200"), ip_address("10.9.9.9")))

    first, second = reserve(leases, who(1), like), reserve(leases, who(2), like)

    assert first[0] == "10.0.0.200"
    assert second[0] == "10.0.0.2"
    assert reserve(leases, who(1), WIDE) == first


def test_what_an_add_had_goes_before_what_its_pod_had(leases: Allocator) -> None:
    first = reserve(leases, who(1), WIDE)

    assert reserve(leases, who(1), replace(WIDE, preferred=(ip_address("10.0.0.200"),))) == first


def test_a_network_is_barred_only_while_nobody_has_an_address_in_it(leases: Allocator) -> None:
    barred, other = ip_network("10.0.0.0/30"), ip_network("10.0.0.4/30")
    reserve(leases, who(1), WIDE)

    held, free = leases.bar(barred), leases.bar(other)
    given = [reserve(leases, who(n), WIDE)[0] for n in (2, 3)]

    assert (held, free) == (False, True)
    assert given == ["10.0.0.3", "10.0.0.8"]
    assert leases.count((barred, other, ip_network("fd00::/64"))) == [2, 0, 0]
    leases.unbar(other)
    leases.retire(WIDE.range_sets)
    assert leases.usage() == ()
    assert reserve(leases, who(4), WIDE)[0] == "10.0.0.4"


def test_a_companion_hears_what_is_durable_and_writes_its_own(
    leases: Allocator, store: FragileStore
) -> None:
    class Heard:
        said: ClassVar[list[object]] = []

        def settled(self, who: Attachment, record: Record | None) -> None:
            self.said.append((who, record))

        def to_memory(self, found: Snapshot) -> Sequence[Change]:
            return () if found.holdings else (Own(Holdings(uid="u")),)

    leases.join(Heard())
    one = record(who(1), "10.0.0.9/24")
    leases.hold(one).result()
    store.full = True
    with pytest.raises(StoreUnavailable):
        leases.release(who(1)).result()
    with pytest.raises(StoreUnavailable):
        leases.keep((Own(Holdings(uid="v")),)).result()
    store.full = False
    leases.expire()
    leases.keep((Own(Holdings(uid="w")),)).result()
    leases.release(who(1)).result()

    assert Heard.said == [(who(1), one), (who(1), None)]
    assert store.load().holdings == Holdings(uid="w")


class Node(RuleBasedStateMachine):
    """ADDs, DELs, failures and restarts in any order; the model is one dict of records."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.store = Clock(), FragileStore()
        self.leases = Allocator(self.store, boot_id=BOOT, now=self.clock)
        self.model: dict[Attachment, Record] = {}
        self.released: dict[object, int] = {}

    def teardown(self) -> None:
        self.leases.close()

    @rule(owner=KEYS, want=WANTS, outcome=st.sampled_from(["held", "abandoned", "unwritten"]))
    def add(self, owner: Attachment, want: Wanted, outcome: str) -> None:
        try:
            chosen = self.leases.reserve(owner, want)
        except (NoFreeAddress, AddressUnavailable, StoreUnavailable):
            return
        for lease, ranges in zip(chosen, want.range_sets, strict=True):
            assert lease.address.ip in ranges
            assert not any(lease.address.ip in network for network in want.excluded)
            assert lease.address.ip != lease.gateway
        mine = replace(record(owner), addresses=tuple(lease.address for lease in chosen))
        if outcome != "unwritten":
            if self.leases.hold(mine).exception(WAIT_S) is None:
                self.model[owner] = mine
            else:
                outcome = "abandoned"
        if outcome != "held":
            self.abandon(owner)

    @rule(owner=KEYS)
    def abandon(self, owner: Attachment) -> None:
        failed = self.leases.abandon(owner).exception(WAIT_S)
        known = self.model.get(owner)
        if known is not None and known.state is State.HELD and not failed:
            self.model[owner] = replace(known, state=State.RESERVED, reserved_ns=self.clock.ns)

    @rule(owner=KEYS)
    def release(self, owner: Attachment) -> None:
        if self.leases.release(owner).exception(WAIT_S) is None:
            self.model.pop(owner, None)

    @rule(seconds=st.sampled_from([1, 10, 31]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: not self.store.full)
    @rule()
    def expire(self) -> None:
        for owner in self.leases.expire():
            gone = self.model.pop(owner, None)
            assert gone is None or gone.state is State.RESERVED

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.store.full = full

    @precondition(lambda self: not self.store.full)
    @rule()
    def restart(self) -> None:
        self.leases.close()
        self.leases = Allocator(self.store, boot_id=BOOT, now=self.clock)

    @invariant()
    def memory_disk_and_model_agree(self) -> None:
        assert self.leases.check() == []
        assert {one.who: one for one in self.leases.records()} == self.model
        assert set(self.store.load().records) == set(self.model.values())

    @invariant()
    def no_address_is_held_twice(self) -> None:
        held = [one.ip for each in self.leases.records() for one in each.addresses]
        assert len(held) == len(set(held))


Node.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNode = Node.TestCase
