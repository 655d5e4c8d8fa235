"""An old DEL never undoes a newer ADD of its key, however late the agent comes to it."""

import pytest

from tests.kernel.agents import Machine, addresses

pytestmark = pytest.mark.kernel


def test_deletion_made_while_the_agent_was_away_comes_before_the_first_add(
    machine: Machine,
) -> None:
    machine.start()
    web, shell = machine.pod("web"), machine.pod("shell")
    before = addresses(machine.add(web))
    machine.stop()
    deleted = machine.delete(web)
    spooled = machine.launcher.spooled()
    machine.start()
    known = machine.records()
    other = addresses(machine.add(shell))

    assert deleted.status == 0
    assert len(spooled) == 1
    assert known == {}
    assert other != before  # which cools down
    assert machine.launcher.spooled() == []
    assert web.addresses() == []
    assert machine.problems() == []
