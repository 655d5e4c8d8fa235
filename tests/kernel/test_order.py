"""What waited is judged by when it began: no old DEL undoes a newer ADD of its key.

A runtime whose call got no answer in time repeats it, or gives up; meanwhile the call may lie in
the spool, or in the queue of an agent that hangs.
"""

from itertools import permutations

import pytest

from cni.frames import ANSWER_HEADER_SIZE, HEADER_SIZE, parse_answer_header
from tests.kernel.agents import Machine, addresses, until
from tests.kernel.launcher.process import Done

pytestmark = pytest.mark.kernel


@pytest.fixture
def machine(machine: Machine) -> Machine:
    machine.settings = {"grace_s": 3600}  # what happens here is no doing of a round
    machine.start()
    return machine


def settled(machine: Machine) -> None:
    """Wait until the agent has done all that waited for it."""
    until(lambda: machine.launcher.spooled() == [], "the spool is empty")
    until(lambda: machine.ask("status")["status"]["in_flight"] == 0, "no request is in work")


def test_deletion_made_while_the_agent_was_away_comes_before_the_first_add(
    machine: Machine,
) -> None:
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


def test_add_after_a_spooled_deletion_of_its_key_is_a_new_attachment(machine: Machine) -> None:
    web = machine.pod("web")
    machine.add(web)
    machine.kill()
    deleted = machine.delete(web)
    machine.start()
    added = machine.add(web)
    settled(machine)

    assert deleted.status == 0
    assert machine.records() == {"web": ("held", addresses(added))}
    assert len(machine.links()) == 1
    assert machine.problems() == []


def test_spooled_deletion_older_than_an_attachment_leaves_it_alone(machine: Machine) -> None:
    """The entry comes late: its launcher was slow to write what it had begun before the ADD."""
    web = machine.pod("web")
    machine.add(web)
    machine.kill()
    machine.delete(web)
    (entry,) = machine.launcher.spooled()
    late = machine.state / "late"
    (machine.launcher.spool / entry).rename(late)
    machine.start()
    machine.delete(web)
    given = addresses(machine.add(web))
    late.rename(machine.launcher.spool / entry)
    settled(machine)

    assert machine.records()["web"] == ("held", given)
    assert web.addresses() == list(given)
    assert machine.problems() == []


@pytest.mark.parametrize("order", list(permutations(("DEL", "ADD", "SIGCONT"))), ids="-".join)
@pytest.mark.parametrize("attached", [True, False], ids=["attached", "fresh"])
def test_hung_agent_does_what_was_asked_last(
    machine: Machine, order: tuple[str, ...], attached: bool
) -> None:
    """Hung, it lets calls run into their deadlines; what it answers afterwards has to be true.

    An ADD that its runtime has given up is not begun, so after such a one the last word is the
    DEL, wherever it came.
    """
    web = machine.pod("web")
    if attached:
        machine.add(web)
    machine.pause()
    done: dict[str, Done] = {}
    for step in order:
        if step == "SIGCONT":
            machine.resume()
        else:
            done[step] = machine.call(step, web)
    settled(machine)
    added, deleted = done["ADD"], done["DEL"]
    lasts = added.status == 0 and order.index("ADD") > order.index("DEL")

    records = machine.records()
    if added.status and order.index("ADD") > order.index("SIGCONT"):
        # A busy machine was too slow: it was begun, undone, and its address waits for its key.
        records = {who: record for who, record in records.items() if record[0] != "reserved"}

    assert deleted.status == 0
    assert records == ({"web": ("held", addresses(added))} if lasts else {})
    assert len(machine.links()) == len(web.addresses()) == lasts
    assert machine.problems() == []
    assert machine.delete(web).status == 0
    settled(machine)  # kept for later, where the machine was too slow for it
    assert machine.leftovers() == []
    assert machine.records() == {}


def test_add_whose_launcher_has_gone_is_not_begun(machine: Machine) -> None:
    web = machine.pod("web")
    machine.pause()
    with machine.calling("ADD", web) as launcher:
        launcher.kill()
    machine.resume()
    settled(machine)

    assert machine.add(machine.pod("other")).status == 0
    assert set(machine.records()) == {"other"}
    assert len(machine.links()) == 1


def test_deletion_that_began_before_an_add_does_not_undo_it_however_late_it_is_read(
    machine: Machine,
) -> None:
    web = machine.pod("web")
    machine.add(web)
    deletion = machine.frame("DEL", web)
    with machine.connect() as slow:
        slow.sendall(deletion[:HEADER_SIZE])
        assert machine.delete(web).status == 0
        given = addresses(machine.add(web))
        slow.sendall(deletion[HEADER_SIZE:])
        status, _ = parse_answer_header(slow.recv(ANSWER_HEADER_SIZE))

    assert status == 0
    assert machine.records() == {"web": ("held", given)}
    assert web.addresses() == list(given)
    assert machine.problems() == []
