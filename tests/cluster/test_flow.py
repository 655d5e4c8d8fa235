"""What is laid to the network's charge, and what to the machine's own queues."""

import pytest

from tests.cluster.flow import Flow


@pytest.mark.parametrize(
    ("flow", "lost"),
    [
        (Flow(lost=3), 3),
        (Flow(lost=3, overflown=3), 0),
        (Flow(lost=3, overflown=1), 2),
        (Flow(sent_again=5, needless=5), 0),
        (Flow(sent_again=5, needless=4), 1),
        (Flow(lost=2, sent_again=1, needless=3), 2),
    ],
)
def test_a_loss_that_no_queue_accounts_for_is_the_networks(flow: Flow, lost: int) -> None:
    assert flow.by_the_network == lost
