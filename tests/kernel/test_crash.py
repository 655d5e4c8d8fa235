"""The agent killed at each step of ADD, of DEL and of its own start: the next one tidies up.

Each life of the node is a process of its own, which kills itself at the step; what it leaves on
disk and in the kernel is all that the next one has.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from ipam.leases import State
from tests.kernel.agents import Machine, Pod, made_machine, until
from tests.kernel.faults import Faults, Step, When, choked
from tests.kernel.nodes import BRIDGED, ROUTED, error_of, in_child, in_children, request, site_of

pytestmark = pytest.mark.kernel

CASES = [
    pytest.param(network, verb, id=f"{verb} {mode}")
    for mode, network in (("bridge", BRIDGED), ("routed", ROUTED))
    for verb in ("ADD", "DEL", "start")
]
FILES = {"isthmus.db", "isthmus.db-wal", "isthmus.db-shm", "lock", "spool", "sysctl.json"}

Stage = Callable[[Mapping[str, Any]], AbstractContextManager[tuple[Machine, Pod, Pod]]]


@pytest.fixture
def stage(binary: str, tmp_path: Path) -> Stage:
    """A fresh machine with two containers, `web` and `other`, and no agent."""

    @contextmanager
    def make(network: Mapping[str, Any]) -> Iterator[tuple[Machine, Pod, Pod]]:
        options = {"network": network, "settings": {"cooldown_s": 3600, "grace_s": 0}}
        with made_machine(Path(mkdtemp(dir=tmp_path)), binary, **options) as machine:
            yield machine, machine.pod("web"), machine.pod("other")

    return make


def live(machine: Machine, verb: str, pod: Pod, other: Pod, faults: Faults) -> list[Step]:
    """One life: *verb* of *pod*, or a start that finds it gone with a deletion that waits."""
    with choked(faults):
        if verb == "start":
            faults.counting = True
        with site_of(machine) as site:
            if verb != "start":
                with faults.count():
                    assert site.call(verb, pod).status == 0
    return sorted(faults.steps)


def prepare(machine: Machine, verb: str, pod: Pod, other: Pod) -> None:
    """What an earlier life left: for a deletion the attachment, for a start much to do."""
    if verb == "ADD":
        return
    with site_of(machine) as site:
        site.add(pod)
        if verb == "start":
            site.add(other)
            site.wired.node.spool.add(request(site, "DEL", pod))
            machine.host.run("nft", "flush", "ruleset")


def steps_of(stage: Stage, network: Mapping[str, Any], verb: str) -> list[Step]:
    with stage(network) as (machine, pod, other):
        in_child(partial(prepare, machine, verb, pod, other))
        found: list[Step] = in_child(partial(live, machine, verb, pod, other, Faults()))
        return found


def crash(stage: Stage, network: Mapping[str, Any], verb: str, at: tuple[Step, When]) -> str | None:
    """What was wrong after the agent died there: nothing, if all is well; None if it did not.

    How many flows there are to be forgotten differs a little from run to run.
    """
    with stage(network) as (machine, pod, other):
        in_child(partial(prepare, machine, verb, pod, other))
        died = in_child(partial(live, machine, verb, pod, other, Faults(at=at, deadly=True)))
        if died != signal.SIGKILL:
            return None
        return str(in_child(partial(judged, machine, verb, pod, other)))


def judged(machine: Machine, verb: str, pod: Pod, other: Pod) -> str:
    try:
        judge(machine, verb, pod, other)
    except AssertionError as exc:
        return str(exc)
    return ""


def judge(machine: Machine, verb: str, pod: Pod, other: Pod) -> None:
    """The next life: nothing half made is left by its start, and nobody's address is given."""
    with site_of(machine) as site:
        assert site.problems() == []
        held = {one.who.container_id for one in site.records(State.HELD)}
        assert len(machine.links()) == len(held)
        assert {one.who.container_id for one in site.records()} <= {"web", "other"}
        if verb == "start":
            assert held == {"other"}
            assert site.call("DEL", other).status == 0
        # A runtime that got no answer deletes, and tries again.
        assert site.call("DEL", pod).status == 0
        assert site.records() == []
        assert machine.leftovers() == []
        taken = [*site.add(pod), *site.add(other)]
        assert sorted(taken) == ["10.9.0.7", "10.9.0.8", "fd09::7", "fd09::8"]
        assert site.problems() == []
        # Or it never comes back, and the containers end.
        machine.remove(pod)
        machine.remove(other)
        until(lambda: machine.links() == [], "namespaces take their links along")
        site.settle()
        site.settle()
        assert site.records() == []
        assert machine.leftovers() == []
        assert site.problems() == []
        assert site.held() == 0
    assert set(os.listdir(machine.state)) <= FILES


@pytest.mark.parametrize(("network", "verb"), CASES)
def test_agent_killed_at_any_step_loses_and_leaves_nothing(
    stage: Stage, network: Mapping[str, Any], verb: str
) -> None:
    steps = steps_of(stage, network, verb)
    faults = [(step, when) for step in steps for when in step.sides]
    found = in_children(partial(crash, stage, network, verb, at) for at in faults)
    wrong = {" ".join(map(str, at)): what for at, what in zip(faults, found, strict=True) if what}

    assert len(steps) > 5
    assert found.count(None) < 0.3 * len(faults)
    assert wrong == {}


MOMENTS = [
    "Netlink.transact:1:before",
    "Netlink.transact:2:after",
    "Netlink.transact:4:after",
    "NftRunner.load:1:after",
    "SQLiteStore.commit:1:before",
    "SQLiteStore.commit:1:after",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_runtime_of_an_agent_killed_in_an_add_is_told_and_its_deletion_kept(
    machine: Machine, moment: str
) -> None:
    machine.network = BRIDGED
    entry, machine.entry = machine.entry, ("-m", "tests.kernel.faulty_agent")
    machine.start(environment={"ISTHMUS_TEST_FAULT": f"ADD:{moment}"})
    web = machine.pod("web")
    added = machine.add(web)
    assert machine.wait_for_end() == -signal.SIGKILL
    deleted = machine.delete(web)
    kept = machine.launcher.spooled()
    machine.entry = entry
    machine.start()

    assert error_of(added)["code"] == 11
    assert deleted.status == 0
    assert len(kept) == 1
    assert machine.records() == {}
    assert machine.leftovers() == []
    assert machine.problems() == []
    assert machine.add(web).status == 0


@pytest.mark.parametrize(
    "moment",
    [
        "Netlink.transact:1:before",
        "Netlink.transact:2:after",
        "SQLiteStore.commit:1:before",
        "SQLiteStore.commit:1:after",
    ],
)
def test_deletion_in_which_the_agent_was_killed_is_kept_and_done(
    machine: Machine, moment: str
) -> None:
    machine.network = BRIDGED
    entry, machine.entry = machine.entry, ("-m", "tests.kernel.faulty_agent")
    machine.start(environment={"ISTHMUS_TEST_FAULT": f"DEL:{moment}"})
    web = machine.pod("web")
    assert machine.add(web).status == 0
    deleted = machine.delete(web)
    assert machine.wait_for_end() == -signal.SIGKILL
    kept = machine.launcher.spooled()
    machine.entry = entry
    machine.start()

    assert deleted.status == 0
    assert len(kept) == 1
    assert machine.records() == {}
    assert machine.leftovers() == []
    assert machine.problems() == []
