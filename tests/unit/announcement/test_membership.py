"""The law of membership, by a few cases and by any course of a simulated network."""

import itertools
from dataclasses import dataclass, field
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from announcement.membership import BEAT_S, LOST_S, SAID_S, SETTLED_S, Membership
from announcement.model import Heartbeat, Relayed, State
from net.address import IPAddress

ADDRESSES = frozenset(ip_address(f"192.0.2.{number}") for number in range(4))
TICK_S = 0.1
PROMISE_S = 3.0


@dataclass
class Network:
    """Nodes that tick ten times a second; *cut* are directed links that lose everything."""

    names: tuple[str, ...]
    now: float = 100.0
    cut: set[tuple[str, str]] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    delay: int = 0
    bids: dict[str, frozenset[IPAddress]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = {name: self._node(name) for name in self.names}
        self.mine = {name: frozenset[IPAddress]() for name in self.names}
        self._waiting: list[tuple[int, str, str, Heartbeat]] = []
        self._ticks = 0
        self._beats = {name: number for number, name in enumerate(self.names)}

    def _node(self, name: str) -> Membership:
        node = Membership(name, self.now)
        node.settle(self.names)
        return node

    def start(self, name: str) -> None:
        self.dead.discard(name)
        self.nodes[name] = self._node(name)

    def owners(self, address: IPAddress) -> set[str]:
        return {name for name in self.names if name not in self.dead and address in self.mine[name]}

    def tick(self) -> None:
        self.now += TICK_S
        self._ticks += 1
        due = [one for one in self._waiting if one[0] <= self._ticks]
        self._waiting = [one for one in self._waiting if one[0] > self._ticks]
        for _, sender, to, said in due:
            if to in self.dead:
                continue
            if to in self.stopped:  # its socket keeps what comes
                self._waiting.append((self._ticks + 1, sender, to, said))
            else:
                self.nodes[to].hear(sender, said, self.now)
        for name, node in self.nodes.items():
            if name in self.dead or name in self.stopped:
                continue
            node.look(self.now)
            node.bid(State(self.bids.get(name, ADDRESSES)), self.now)
            self.mine[name] = node.mine(self.now)
            self._beats[name] += 1
            if self._beats[name] % round(BEAT_S / TICK_S) == 0:
                self._send(name, node)

    def _send(self, name: str, node: Membership) -> None:
        for to in self.names:
            if to != name and (name, to) not in self.cut:
                said = node.say(to, self.now)
                self._waiting.append((self._ticks + 1 + self.delay, name, to, said))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.tick()

    def split(self, *parts: str) -> None:
        """Only nodes of one part reach each other."""
        part_of = {name: number for number, part in enumerate(parts) for name in part}
        self.cut = {
            (one, other)
            for one, other in itertools.permutations(self.names, 2)
            if part_of[one] != part_of[other]
        }


def count(network: Network) -> set[int]:
    return {len(network.owners(address)) for address in ADDRESSES}


def test_a_node_alone_answers_at_once() -> None:
    network = Network(("a",))
    network.tick()

    assert network.mine["a"] == ADDRESSES


def test_every_address_has_one_owner_soon_after_the_start() -> None:
    network = Network(("a", "b", "c"))
    network.run(PROMISE_S)

    assert count(network) == {1}


def test_what_a_dead_node_had_others_have_within_the_promise() -> None:
    network = Network(("a", "b", "c"))
    network.run(5)
    network.dead.add("a")
    network.run(PROMISE_S)

    assert count(network) == {1}


def test_who_leaves_in_order_is_replaced_within_a_heartbeat() -> None:
    network = Network(("a", "b", "c"))
    network.run(5)
    network.bids["a"] = frozenset()
    network.run(BEAT_S + 2 * TICK_S)

    assert count(network) == {1}
    assert not network.mine["a"]


def test_who_is_cut_off_from_the_majority_is_silent() -> None:
    network = Network(("a", "b", "c"))
    network.run(5)
    network.split("a", "bc")
    network.run(PROMISE_S)

    assert count(network) == {1}
    assert not network.mine["a"]
    assert not network.nodes["a"].is_many(network.now)


def test_without_a_majority_nobody_answers_but_of_two_both_do() -> None:
    three, two = Network(("a", "b", "c")), Network(("a", "b"))
    for network in (three, two):
        network.run(5)
    three.split("a", "b", "c")
    two.split("a", "b")
    for network in (three, two):
        network.run(PROMISE_S)

    assert count(three) == {0}
    assert count(two) == {2}
    assert two.nodes["a"].is_in_doubt(two.now)


def test_two_that_a_third_hears_know_of_each_other() -> None:
    network = Network(("a", "b", "c"))
    network.run(5)
    network.cut = {("a", "c"), ("c", "a")}
    network.run(PROMISE_S)

    assert count(network) == {1}
    assert "c" in network.nodes["a"].knows(network.now)
    assert "c" not in network.nodes["a"].hears(network.now)


def test_of_two_the_one_that_is_not_heard_gives_way() -> None:
    network = Network(("a", "b"))
    network.run(5)
    network.cut = {("a", "b")}
    network.run(PROMISE_S)

    assert network.mine["a"] == frozenset()
    assert network.mine["b"] == ADDRESSES


def test_who_was_stopped_answers_for_nothing_until_it_has_heard_the_others() -> None:
    network = Network(("a", "b"))
    network.run(5)
    network.stopped.add("a")
    network.run(10)
    assert network.mine["b"] == ADDRESSES
    network.stopped.clear()

    for _ in range(round(LOST_S / TICK_S)):
        network.tick()
        assert not network.mine["a"] & network.mine["b"]
    network.run(PROMISE_S)
    assert count(network) == {1}


def test_who_has_just_begun_or_was_not_looking_waits_before_it_concludes_that_it_is_alone() -> None:
    node = Membership("a", 0.0)
    node.settle({"a", "b"})

    def owns(now: float) -> bool:
        node.look(now)
        node.bid(State(ADDRESSES), now)
        return bool(node.mine(now))

    owned = {tenth: owns(tenth / 10) for tenth in range(100)}

    begins = round((LOST_S + SAID_S) * 10)
    assert not any(owned[tenth] for tenth in range(begins))
    assert owned[begins + 1]
    assert not owns(60.0)


def settled(*names: str) -> Network:
    """Nodes that have been there for a while."""
    network = Network(names)
    network.run(SETTLED_S + 2 * PROMISE_S)
    return network


def test_who_comes_back_leaves_to_others_what_they_took_over_until_it_is_settled() -> None:
    network = settled("a", "b", "c")
    had = network.mine["a"]
    network.dead.add("a")
    network.run(PROMISE_S)
    network.start("a")
    for _ in range(round(SETTLED_S / TICK_S)):
        network.tick()
        assert (count(network), network.mine["a"]) == ({1}, frozenset())

    for _ in range(round(2 * PROMISE_S / TICK_S)):
        network.tick()
        assert max(count(network)) <= 1  # what it bids for the others leave, and then it has it
    assert (count(network), network.mine["a"]) == ({1}, had)


def test_who_comes_and_goes_again_and_again_takes_nothing_from_anybody() -> None:
    network = settled("a", "b")
    for _ in range(6):
        network.dead.add("a")
        network.run(PROMISE_S)
        network.start("a")
        network.run(SETTLED_S / 2)
        assert network.mine["b"] == ADDRESSES


def test_what_nobody_settled_has_a_newcomer_takes_within_the_promise() -> None:
    network = settled("a", "b", "c")
    network.dead.add("a")
    network.run(PROMISE_S)
    network.start("a")
    network.run(SETTLED_S / 2)
    network.dead.add("b")
    network.bids["c"] = frozenset()
    network.run(PROMISE_S)

    assert network.mine["a"] == ADDRESSES


def test_who_was_cut_off_from_the_majority_is_a_newcomer_again() -> None:
    network = settled("a", "b", "c")
    network.split("a", "bc")
    network.run(PROMISE_S)
    network.cut.clear()
    network.run(SETTLED_S / 2)

    assert (count(network), network.mine["a"]) == ({1}, frozenset())


def test_who_was_not_looking_for_too_short_to_be_lost_keeps_what_it_has() -> None:
    network = settled("a", "b")
    had = network.mine["a"]
    network.stopped.add("a")
    network.run(LOST_S - 2 * BEAT_S + TICK_S)
    network.stopped.clear()
    network.tick()
    assert not network.mine["a"]  # it cannot know
    for _ in range(round(PROMISE_S / TICK_S)):
        network.tick()
        assert network.mine["b"] == ADDRESSES - had

    assert network.mine["a"] == had


def test_only_bidders_win() -> None:
    network = Network(("a", "b", "c"))
    address = min(ADDRESSES, key=str)
    network.bids = {"a": frozenset(), "b": frozenset({address}), "c": frozenset()}
    network.run(PROMISE_S)

    assert network.owners(address) == {"b"}
    assert not any(network.owners(one) for one in ADDRESSES - {address})


def test_of_strangers_nothing_is_taken() -> None:
    node = Membership("a", 0.0)
    node.settle({"a", "b"})
    relayed = (Relayed("stranger", 0.0, State(ADDRESSES)),)

    assert not node.hear("stranger", Heartbeat(state=State(ADDRESSES)), 1.0)
    assert node.hear("b", Heartbeat(state=State(), relayed=relayed), 1.0)
    assert node.knows(1.0) == {"b"}


def test_what_says_the_same_again_is_no_news() -> None:
    node = Membership("a", 0.0)
    node.settle({"a", "b"})
    said = Heartbeat(state=State(ADDRESSES), hears=frozenset({"a"}), knows=frozenset({"a"}))

    assert node.hear("b", said, 1.0)
    assert not node.hear("b", said, 1.4)
    assert node.hear("b", Heartbeat(state=State(ADDRESSES), hears=frozenset({"a"})), 1.8)


def test_whose_a_mac_is_is_remembered_while_the_node_is_known_of() -> None:
    node, here, far = Membership("a", 0.0), "02:00:00:00:00:0b", "02:00:00:00:00:0c"
    node.settle({"b", "c"})
    relayed = (Relayed("c", 0.0, State(macs=frozenset({far}))),)
    node.hear("b", Heartbeat(state=State(macs=frozenset({here})), relayed=relayed), 1.0)

    assert node.is_settled_with(here, 1.5)
    assert node.is_settled_with(far, 1.5)
    assert not node.is_settled_with("02:00:00:00:00:0d", 1.5)
    assert not node.is_settled_with(here, 1.0 + LOST_S)
    node.hear("b", Heartbeat(state=State()), 60.0)  # its link was just made anew
    assert node.is_settled_with(here, 60.0)


def test_a_node_that_is_no_longer_there_does_not_count() -> None:
    network = Network(("a", "b", "c"))
    network.run(5)
    network.split("a", "bc")
    network.run(PROMISE_S)
    network.nodes["a"].settle({"a"})
    network.tick()

    assert network.mine["a"] == ADDRESSES


troubles = st.lists(
    st.tuples(
        st.sampled_from(["cut", "cut", "heal", "oneway", "kill", "start", "stop", "go on"]),
        st.integers(0, 4),
        st.integers(0, 4),
        st.floats(0.1, 4.0),
    ),
    max_size=8,
)


def make_trouble(network: Network, what: str, one: str, other: str) -> None:
    match what:
        case "cut" if one != other:
            network.cut |= {(one, other), (other, one)}
        case "oneway" if one != other:
            network.cut |= {(one, other)}
        case "heal":
            network.cut -= {(one, other), (other, one)}
        case "kill":
            network.dead.add(one)
            network.stopped.discard(one)
            network.mine[one] = frozenset()
        case "start" if one in network.dead:
            network.start(one)
        case "stop" if one not in network.dead:
            network.stopped.add(one)
            network.mine[one] = frozenset()  # its packets are not answered: it does not run
        case "go on":
            network.stopped.discard(one)


@settings(max_examples=150)
@given(st.integers(3, 5), st.integers(0, 1), troubles, st.data())
def test_after_any_troubles_no_address_has_two_owners_and_one_where_anybody_hears_most(
    size: int, delay: int, course: list[tuple[str, int, int, float]], data: st.DataObject
) -> None:
    network = Network(tuple("abcde"[:size]), delay=delay)
    network.run(data.draw(st.sampled_from([PROMISE_S, SETTLED_S - 5, SETTLED_S + 5])))
    for what, one, other, seconds in course:
        names = network.names
        make_trouble(network, what, names[one % size], names[other % size])
        network.run(seconds)
    links = st.sampled_from(list(itertools.permutations(network.names, 2)))
    for one, other in data.draw(st.lists(links, max_size=size)):
        network.cut |= {(one, other), (other, one)} if data.draw(st.booleans()) else {(one, other)}
    network.run(PROMISE_S)

    for _ in range(30):
        network.tick()
        assert max(count(network)) <= 1
    running = [n for n in network.names if n not in network.dead | network.stopped]
    if any(network.nodes[name].is_many(network.now) for name in running):
        assert count(network) == {1}
