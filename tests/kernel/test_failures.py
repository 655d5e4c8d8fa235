"""Each step of ADD and DEL fails once, before and after it took effect: nothing is left of it.

Every step is found by counting those of a good run: on a fresh machine, where bridge, tables and
kernel settings are made too, and beside another container, where they are there already.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from cni.request import Response
from ipam.leases import Record
from tests.kernel.agents import Machine, Pod, made_machine
from tests.kernel.faults import Faults, Step, When, choked
from tests.kernel.nodes import BRIDGED, ROUTED, Site, error_of, in_child, in_children, site_of

pytestmark = pytest.mark.kernel

# A choke point that was renamed away would make the matrix empty.
FEWEST_STEPS = {"ADD": 15, "DEL": 5}
NEIGHBOURS = {
    "type": "isthmus",
    "ranges": [
        [{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.20", "rangeEnd": "10.9.0.20"}],
        [{"subnet": "fd09::/64", "rangeStart": "fd09::20", "rangeEnd": "fd09::20"}],
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One verb on one kind of attachment; *beside* tells whether there is another container."""

    network: Mapping[str, Any]
    verb: str
    beside: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A node, the container that a call is about, and what there was without it."""

    site: Site
    pod: Pod
    records: list[Record]
    traces: list[str]

    def others(self) -> list[Record]:
        """What the node remembers of others."""
        return [one for one in self.site.records() if one.who.container_id != "web"]

    def holds(self, state: str) -> bool:
        return any(
            one.who.container_id == "web" for one in self.site.records() if one.state == state
        )


Stage = Callable[[Case], AbstractContextManager[Scene]]
CASES = [
    pytest.param(
        Case(network=network, verb=verb, beside=beside),
        id=f"{verb} {mode} {'beside another' if beside else 'alone'}",
        # Half of them at every change: each mode, each verb, each surrounding.
        marks=[pytest.mark.slow] if (mode == "bridge") == beside else [],
    )
    for mode, network in (("bridge", BRIDGED), ("routed", ROUTED))
    for verb in ("ADD", "DEL")
    for beside in (False, True)
]


@pytest.fixture
def stage(binary: str, tmp_path: Path) -> Stage:
    """Make a machine with a pod whose next address, the 7, somebody had before.

    Both that there are cool down; who had the 8 left it later.
    """

    @contextmanager
    def make(case: Case) -> Iterator[Scene]:
        directory = Path(mkdtemp(dir=tmp_path))
        options = {"network": case.network, "settings": {"cooldown_s": 3600, "grace_s": 0}}
        with made_machine(directory, binary, **options) as machine:
            use_both_addresses(machine)
            with site_of(machine) as site:
                if case.beside:
                    network = {**case.network, "ipam": NEIGHBOURS, "runtimeConfig": {}}
                    assert site.call("ADD", machine.pod("other"), network).status == 0
                before = list(site.records()), sorted(machine.leftovers())
                pod = machine.pod("web")
                if case.verb == "DEL":
                    site.add(pod)
                yield Scene(site, pod, *before)

    return make


def use_both_addresses(machine: Machine) -> None:
    """And take away what is shared and was made for it, so that it has to be made again."""
    former = [machine.pod(), machine.pod()]
    with site_of(machine) as site:
        for one in former:
            site.add(one)
        for one in former:
            assert site.call("DEL", one).status == 0
    machine.host.run("ip", "link", "delete", "cni0", check=False)
    machine.host.run("nft", "flush", "ruleset")
    machine.host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")


def steps_of(stage: Stage, case: Case) -> list[Step]:
    """The steps of one good call."""
    with choked(Faults()) as faults, stage(case) as scene, faults.count():
        assert scene.site.call(case.verb, scene.pod).status == 0
    return sorted(faults.steps)


def fault(stage: Stage, case: Case, at: tuple[Step, When]) -> tuple[bool, str]:
    """Whether a fault came about, and what was wrong after it."""
    with choked(Faults(at=at)) as faults, stage(case) as scene:
        with faults.count():
            response = scene.site.call(case.verb, scene.pod)
        try:
            if case.verb == "ADD":
                judge_add(scene, response)
            else:
                judge_delete(scene, response)
        except AssertionError as exc:
            return faults.struck, str(exc)
    return faults.struck, ""


def judge_add(scene: Scene, response: Response) -> None:
    """It left no trace, and the next one gets the same address."""
    site, pod = scene.site, scene.pod
    if response.status == 0:
        # A fault that an ADD may overlook has to leave it whole.
        network = {**site.machine.network, "prevResult": json.loads(response.stdout)}
        checked = site.call("CHECK", pod, network)
        assert checked.status == 0, checked
        clean(scene)
        return
    error_of(response)
    assert not scene.holds("held")
    assert scene.others() == scene.records
    assert sorted(site.machine.leftovers()) == scene.traces
    assert pod.addresses() == []
    site.settle()  # the agent's next second
    assert site.problems() == []
    assert site.add(pod) == ("10.9.0.7", "fd09::7")
    assert site.problems() == []
    clean(scene)


def judge_delete(scene: Scene, response: Response) -> None:
    """Whatever it said, it can be repeated."""
    if response.status:
        error_of(response)
    clean(scene)


def clean(scene: Scene) -> None:
    """The DEL that has to succeed, after which nothing is left."""
    site = scene.site
    again = site.call("DEL", scene.pod)
    if again.status:
        # A store that failed is tried again each second, and DEL with it.
        site.settle()
        again = site.call("DEL", scene.pod)
    assert again.status == 0, again
    assert sorted(site.machine.leftovers()) == scene.traces
    assert scene.pod.addresses() == []
    assert list(site.records()) == scene.records
    assert site.problems() == []
    site.settle()
    assert site.problems() == []
    assert sorted(site.machine.leftovers()) == scene.traces
    assert site.held() == sum(len(one.addresses) for one in scene.records)


@pytest.mark.parametrize("case", CASES)
def test_failure_of_any_step_leaves_no_trace_and_the_next_call_succeeds(
    stage: Stage, case: Case
) -> None:
    steps = in_child(partial(steps_of, stage, case))
    faults = [(step, when) for step in steps for when in step.sides]
    found = in_children(partial(fault, stage, case, at) for at in faults)
    wrong = {
        " ".join(map(str, at)): what for at, (_, what) in zip(faults, found, strict=True) if what
    }

    assert len(steps) >= FEWEST_STEPS[case.verb]
    # How many flows there are to be forgotten differs a little from run to run.
    assert sum(struck for struck, _ in found) > 0.7 * len(faults)
    assert wrong == {}
