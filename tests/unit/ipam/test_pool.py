"""The order in which addresses are given."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.errors import NoFreeAddress
from ipam.pool import Choice, Pool
from tests.unit.ipam.cases import SECOND, range_set

COOLDOWN = 30 * SECOND


class Node:
    """A pool, and the table of what is held that it asks."""

    def __init__(self, subnet: str, *, history: int = 1024, excluded: tuple[str, ...] = ()) -> None:
        self.held: set[int] = set()
        self.pool = Pool(
            range_set(subnet),
            tuple(map(ip_network, excluded)),
            held=self.held,
            cooldown_ns=COOLDOWN,
            history=history,
        )

    def give(self, now_ns: int = 0) -> str:
        choice = self.pool.choose(now_ns)
        self.held.add(int(choice.address))
        self.pool.take(int(choice.address))
        marks = "*" * choice.reused + "!" * choice.cooling
        return f"{choice.address}{marks}"

    def take_back(self, address: str, now_ns: int) -> None:
        value = int(ip_address(address))
        self.held.discard(value)
        self.pool.free(value, now_ns)


def test_never_used_addresses_come_first_and_in_order() -> None:
    node = Node("10.0.0.0/29")

    first = node.give()
    node.take_back(first, now_ns=1)

    assert first == "10.0.0.2"
    assert [node.give(99 * COOLDOWN) for _ in range(4)] == [
        "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6",
    ]  # fmt: skip


def test_choice_stands_until_it_is_taken() -> None:
    node = Node("10.0.0.0/29")

    assert node.pool.choose(0) == node.pool.choose(0) == Choice(ip_address("10.0.0.2"))


def test_address_held_by_another_network_is_passed_over() -> None:
    node = Node("10.0.0.0/29")
    node.held.add(int(ip_address("10.0.0.2")))

    assert node.give() == "10.0.0.3"


def test_longest_idle_comes_next_once_it_has_cooled() -> None:
    node = Node("10.0.0.0/29", history=0)
    given = [node.give() for _ in range(3)]

    for now_ns, address in enumerate((given[1], given[0], given[2])):
        node.take_back(address, now_ns)

    assert node.give(COOLDOWN + 1) == "10.0.0.3*"
    assert node.give(COOLDOWN + 1) == "10.0.0.2*"


def test_never_used_one_is_given_while_all_idle_ones_cool() -> None:
    node = Node("10.0.0.0/29", history=0)
    node.take_back(node.give(), now_ns=0)

    assert node.give(COOLDOWN - 1) == "10.0.0.3"
    assert node.give(COOLDOWN) == "10.0.0.2*"


def test_longest_cooled_is_given_and_flagged_when_nothing_else_is_free() -> None:
    node = Node("10.0.0.0/29")
    given = [node.give() for _ in range(5)]
    node.take_back(given[3], now_ns=5)
    node.take_back(given[1], now_ns=6)

    assert node.give(7) == "10.0.0.5*!"
    assert node.give(7) == "10.0.0.3*!"


def test_exhaustion_names_the_ranges() -> None:
    node = Node("10.0.0.0/29")
    for _ in range(5):
        node.give()

    with pytest.raises(NoFreeAddress, match=r"no free address in 10\.0\.0\.0/29: all 5 are held"):
        node.give()


def test_exclusion_of_everything_is_exhaustion() -> None:
    node = Node("10.0.0.0/29", excluded=("10.0.0.0/24",))

    with pytest.raises(NoFreeAddress, match=r"10\.0\.0\.0/29"):
        node.give()


def test_excluded_addresses_are_no_part_of_the_pool() -> None:
    node = Node("10.0.0.0/28", excluded=("10.0.0.2/31", "10.0.0.8/29"))

    assert [node.give() for _ in range(node.pool.size)] == [
        "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7",
    ]  # fmt: skip
    assert int(ip_address("10.0.0.4")) in node.pool
    assert int(ip_address("10.0.0.3")) not in node.pool
    assert int(ip_address("10.0.0.9")) not in node.pool


def test_requested_address_ahead_of_the_cursor_is_idle_after_its_release() -> None:
    node = Node("10.0.0.0/29")
    node.take_back("10.0.0.3", now_ns=0)

    assert [node.give(COOLDOWN) for _ in range(5)] == [
        "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.3*",
    ]  # fmt: skip


def test_forgotten_address_counts_as_never_used() -> None:
    node = Node("10.0.0.0/29")
    given = [node.give() for _ in range(5)]
    node.take_back(given[2], now_ns=0)

    node.pool.forget(int(ip_address(given[2])))

    assert node.give(COOLDOWN) == given[2]
    with pytest.raises(NoFreeAddress):
        node.give(COOLDOWN)


def test_cooling_counts_only_the_young_ones() -> None:
    node = Node("10.0.0.0/29")
    for now_ns in (0, 10, 20):
        node.take_back(node.give(), now_ns)

    assert node.pool.idle == 3
    assert node.pool.cooling(COOLDOWN + 10) == 1


def test_history_stays_short_in_an_endless_range() -> None:
    node = Node("fd00::/64", history=8)
    for turn in range(200):
        address = node.give(turn * COOLDOWN).rstrip("*")
        node.take_back(address, turn * COOLDOWN)

    assert node.pool.idle == 8


def expected(fresh: list[str], idle: list[tuple[str, int]], now_ns: int, history: int) -> str:
    """The rules of the module, over plain lists."""
    cooled = bool(idle) and now_ns - idle[0][1] >= COOLDOWN
    if fresh and (len(idle) < history or not cooled):
        return fresh.pop(0)
    if not idle:
        return "none"
    address, _ = idle.pop(0)
    return f"{address}*" if cooled else f"{address}*!"


STEPS = st.lists(
    st.tuples(st.sampled_from(["give", "give", "back"]), st.integers(0, 40), st.integers(0, 9)),
    max_size=80,
)


@given(steps=STEPS, history=st.integers(0, 6))
def test_every_choice_follows_the_rules(steps: list[tuple[str, int, int]], history: int) -> None:
    node, now_ns = Node("10.0.0.0/28", history=history), 0
    fresh = [f"10.0.0.{last}" for last in range(2, 15)]
    idle: list[tuple[str, int]] = []
    held: list[str] = []
    for step, seconds, which in steps:
        now_ns += seconds * SECOND
        if step == "back" and held:
            address = held.pop(which % len(held))
            node.take_back(address, now_ns)
            idle.append((address, now_ns))
        elif step == "give":
            want = expected(fresh, idle, now_ns, history)
            try:
                given_one = node.give(now_ns)
            except NoFreeAddress:
                given_one = "none"
            assert given_one == want
            if want != "none":
                held.append(want.rstrip("*!"))


class Counted(set[int]):
    """A table of held addresses that counts how often it is asked."""

    asked = 0

    def __contains__(self, value: object) -> bool:
        self.asked += 1
        return super().__contains__(value)


def test_full_large_range_is_walked_once_however_often_it_is_asked() -> None:
    held = Counted()
    pool = Pool(range_set("10.0.0.0/16"), held=held, cooldown_ns=COOLDOWN)
    for _ in range(pool.size):
        held.add(int(pool.choose(0).address))
    held.asked = 0

    for turn in range(1000):
        value = 0x0A000002 + turn
        held.discard(value)
        pool.free(value, turn)
        choice = pool.choose(turn)
        held.add(int(choice.address))
        pool.take(int(choice.address))

    assert held.asked <= 2
