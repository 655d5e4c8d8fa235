from announcement.model import Heartbeat, State


def test_a_node_that_says_nothing_more_bids_for_nothing() -> None:
    said = Heartbeat(state=State())

    assert not said.state.bids
    assert not said.hears | said.knows | said.misses
    assert said.relayed == ()
