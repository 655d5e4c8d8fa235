"""Each step of ADD and DEL fails once, before and after it took effect: nothing is left of it.

Every step is found by counting those of a good run on a fresh machine, where there is most to do:
bridge, tables and kernel settings are made too.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from cni.request import Response
from ipam.leases import State
from tests.kernel.agents import Pod, made_machine
from tests.kernel.faults import Faults, Step, When, choked
from tests.kernel.nodes import BRIDGED, ROUTED, Site, error_of, in_child, in_children, site_of

pytestmark = pytest.mark.kernel

MODES = [pytest.param(BRIDGED, id="bridge"), pytest.param(ROUTED, id="routed")]
# A choke point that was renamed away would make the matrix empty.
FEWEST_STEPS = {"ADD": 20, "DEL": 5}

Scene = Callable[[Mapping[str, Any]], AbstractContextManager[tuple[Site, Pod]]]


@pytest.fixture
def scene(binary: str, tmp_path: Path) -> Scene:
    """Make a fresh machine with a pod whose next address, the 7, somebody had before.

    Both that there are cool down; who had the 8 left it later.
    """

    @contextmanager
    def make(network: Mapping[str, Any]) -> Iterator[tuple[Site, Pod]]:
        directory = Path(mkdtemp(dir=tmp_path))
        options = {"network": network, "settings": {"cooldown_s": 3600, "grace_s": 0}}
        with made_machine(directory, binary, **options) as machine:
            former = [machine.pod(), machine.pod()]
            with site_of(machine) as site:
                for one in former:
                    site.add(one)
                for one in former:
                    assert site.call("DEL", one).status == 0
            machine.host.run("ip", "link", "delete", "cni0", check=False)
            machine.host.run("nft", "flush", "ruleset")
            machine.host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
            with site_of(machine) as site:
                yield site, machine.pod("web")

    return make


def steps_of(scene: Scene, network: Mapping[str, Any], verb: str) -> list[Step]:
    """The steps of one good *verb* on a fresh machine."""
    with choked(Faults()) as faults, scene(network) as (site, pod):
        if verb == "DEL":
            site.add(pod)
        with faults.count():
            assert site.call(verb, pod).status == 0
    return sorted(faults.steps)


def fault(
    scene: Scene, network: Mapping[str, Any], verb: str, at: tuple[Step, When]
) -> tuple[bool, str]:
    """Whether a fault of *verb* came about, and what was wrong after it."""
    with choked(Faults(at=at)) as faults, scene(network) as (site, pod):
        if verb == "DEL":
            site.add(pod)
        with faults.count():
            response = site.call(verb, pod)
        judge = judge_add if verb == "ADD" else judge_delete
        try:
            judge(site, pod, response)
        except AssertionError as exc:
            return faults.struck, str(exc)
    return faults.struck, ""


def matrix(scene: Scene, network: Mapping[str, Any], verb: str) -> dict[str, str]:
    """What was wrong by fault, each in a process of its own."""
    steps = in_child(lambda: steps_of(scene, network, verb))
    assert len(steps) >= FEWEST_STEPS[verb], steps
    faults = [(step, when) for step in steps for when in step.sides]
    found = in_children(partial(fault, scene, network, verb, at) for at in faults)
    # How many flows there are to be forgotten differs a little from run to run.
    assert sum(struck for struck, _ in found) > 0.7 * len(faults)
    return {
        " ".join(map(str, at)): wrong for at, (_, wrong) in zip(faults, found, strict=True) if wrong
    }


def judge_add(site: Site, pod: Pod, response: Response) -> None:
    if response.status == 0:
        # A fault that an ADD may overlook has to leave it whole.
        network = {**site.machine.network, "prevResult": json.loads(response.stdout)}
        checked = site.call("CHECK", pod, network)
        assert checked.status == 0, checked
        clean(site, pod)
        return
    else:
        error_of(response)
        assert site.records(State.HELD) == []
        assert site.machine.leftovers() == []
        assert pod.addresses() == []
        assert {one.who.container_id for one in site.records()} <= {"web"}
    site.settle()  # the agent's next second
    assert site.problems() == []
    assert site.add(pod) == ("10.9.0.7", "fd09::7")
    assert site.problems() == []
    clean(site, pod)


def judge_delete(site: Site, pod: Pod, response: Response) -> None:
    if response.status:
        error_of(response)
    clean(site, pod)


def clean(site: Site, pod: Pod) -> None:
    """The DEL that has to succeed, after which nothing is left."""
    again = site.call("DEL", pod)
    if again.status:
        # A store that failed is tried again each second, and DEL with it.
        site.settle()
        again = site.call("DEL", pod)
    assert again.status == 0, again
    assert site.machine.leftovers() == []
    assert pod.addresses() == []
    assert site.records() == []
    assert site.problems() == []
    site.settle()
    assert site.problems() == []
    assert site.held() == 0


@pytest.mark.parametrize("network", MODES)
def test_failed_add_leaves_no_trace_and_the_next_one_succeeds(
    scene: Scene, network: Mapping[str, Any]
) -> None:
    assert matrix(scene, network, "ADD") == {}


@pytest.mark.parametrize("network", MODES)
def test_failed_deletion_can_be_repeated_and_leaves_nothing(
    scene: Scene, network: Mapping[str, Any]
) -> None:
    assert matrix(scene, network, "DEL") == {}
