"""One table of holders for all networks, and a history that pools share."""

from ipaddress import ip_address

from ipam.ledger import POOLS, Ledger
from ipam.pool import HISTORY
from tests.unit.ipam.cases import SECOND, range_set, who

COOLDOWN = 30 * SECOND
A = ip_address("10.0.0.2")
B = ip_address("10.0.0.3")


def test_holder_is_known_until_the_address_is_free() -> None:
    ledger = Ledger(COOLDOWN)
    ledger.take(A, who(1))

    assert ledger.holder(A) == who(1)
    assert ledger.holder(ip_address("::10.0.0.2")) is None

    ledger.free(A, 5)

    assert ledger.holder(A) is None
    assert ledger.is_idle(A)
    assert list(ledger.idle()) == [(A, 5)]


def test_address_that_cools_in_one_network_cools_in_another_of_the_same_subnet() -> None:
    ledger = Ledger(COOLDOWN)
    small, large = range_set("10.0.0.0/29"), range_set("10.0.0.0/24")
    pools = [ledger.pool(small), ledger.pool(large)]
    ledger.take(A, who(1))
    ledger.free(A, 0)

    assert [pool.choose(0).address for pool in pools] == [B, B]
    assert [pool.idle for pool in pools] == [1, 1]

    ledger.take(A, who(2))

    assert [pool.idle for pool in pools] == [0, 0]


def test_pool_first_seen_later_knows_the_history() -> None:
    ledger = Ledger(COOLDOWN)
    for address, since_ns in ((B, 1), (A, 2), (ip_address("10.9.0.2"), 3)):
        ledger.take(address, who(1))
        ledger.free(address, since_ns)

    pool = ledger.pool(range_set("10.0.0.0/30", "10.0.0.2"))

    assert pool.idle == 1
    assert pool.choose(COOLDOWN + 2).reused


def test_same_ranges_have_the_same_pool_until_many_others_came() -> None:
    ledger = Ledger(COOLDOWN)
    first = ledger.pool(range_set("10.0.0.0/24"))

    assert ledger.pool(range_set("10.0.0.0/24")) is first

    for number in range(POOLS):
        ledger.pool(range_set(f"10.1.{number}.0/24"))

    assert ledger.pool(range_set("10.0.0.0/24")) is not first


def test_long_history_is_forgotten_oldest_first_but_never_while_it_cools() -> None:
    ledger = Ledger(COOLDOWN, remembered=10)
    pool = ledger.pool(range_set("10.0.0.0/20"))
    for number in range(HISTORY + 10):
        address = pool.choose(0).address
        ledger.take(address, who(number))
        ledger.free(address, number)

    assert ledger.forget(now_ns=COOLDOWN - 1) == ()

    forgotten = ledger.forget(now_ns=COOLDOWN + 4)

    assert forgotten == tuple(ip_address("10.0.0.2") + number for number in range(5))
    assert pool.idle == HISTORY + 5
    assert not ledger.is_idle(A)


def test_usage_counts_held_idle_and_cooling_of_each_pool() -> None:
    ledger = Ledger(COOLDOWN)
    ranges = range_set("10.0.0.0/24")
    ledger.pool(ranges)
    for number, address in enumerate((A, B, ip_address("10.7.0.1"))):
        ledger.take(address, who(number))
    ledger.free(B, 0)

    (usage,) = ledger.usage(COOLDOWN)

    assert (usage.ranges, usage.size, usage.held) == (ranges, 253, 1)
    assert (usage.idle, usage.cooling) == (1, 0)
    assert dict(ledger.held()) == {A: who(0), ip_address("10.7.0.1"): who(2)}
