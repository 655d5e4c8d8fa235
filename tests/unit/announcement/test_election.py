from collections import Counter
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from announcement.election import rank, winner, winners
from net.address import IPAddress

ADDRESS = ip_address("192.0.2.7")
addresses = st.ip_addresses()
names = st.sets(st.text("abcdef-", min_size=1, max_size=6), min_size=1, max_size=6)


def test_of_nobody_nobody_wins() -> None:
    assert winner(ADDRESS, ()) is None


@given(addresses, names)
def test_the_order_of_bidders_does_not_matter(address: IPAddress, nodes: set[str]) -> None:
    assert winner(address, sorted(nodes)) == winner(address, sorted(nodes, reverse=True))


@given(st.dictionaries(st.text("abc", min_size=1), st.frozensets(addresses, max_size=4)))
def test_who_has_each_address_is_the_winner_of_those_who_bid_for_it(
    bids: dict[str, frozenset[IPAddress]],
) -> None:
    assert winners(bids) == {
        one: winner(one, [node for node, those in bids.items() if one in those])
        for one in set().union(*bids.values())
    }


@given(addresses, names)
def test_a_node_that_goes_moves_nothing_that_was_not_its(
    address: IPAddress, nodes: set[str]
) -> None:
    won = winner(address, nodes)

    for gone in nodes - {won}:
        assert winner(address, nodes - {gone}) == won


def test_addresses_spread_over_nodes() -> None:
    nodes = [f"node-{number}" for number in range(5)]
    won = Counter(winner(ADDRESS + number, nodes) for number in range(1000))

    assert set(won) == set(nodes)
    assert min(won.values()) > 120


def test_no_two_nodes_have_the_same_rank() -> None:
    assert len({rank(ADDRESS, f"n{number}") for number in range(1000)}) == 1000
