"""Thirty runtimes at once, on a node whose agent is killed, hung and restarted all the time.

Each acts as a runtime does: what failed is deleted before it is tried again.  What was
acknowledged is written down, so that an address given twice is seen when it happens.
"""

import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.kernel.agents import Machine, Pod, until
from tests.kernel.launcher.process import Done

pytestmark = pytest.mark.kernel

RUNTIMES = 30
LONG_S = float(os.environ.get("ISTHMUS_CHURN_S", "300"))
TRY_AGAIN = 11
# One address more than containers: each is used again as soon as it can be.
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "shop",
    "type": "isthmus",
    "ipMasq": True,
    "macspoofchk": True,
    "ipam": {
        "type": "isthmus",
        "ranges": [
            [{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.10", "rangeEnd": "10.9.0.40"}],
            [{"subnet": "fd09::/64", "rangeStart": "fd09::10", "rangeEnd": "fd09::2e"}],
        ],
    },
}


@dataclass(slots=True)
class Ledger:
    """What runtimes were told: who has which address, and how calls ended."""

    holders: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def given(self, pod: Pod, done: Done) -> None:
        with self._lock:
            for one in json.loads(done.stdout)["ips"]:
                address = one["address"]
                if other := self.holders.get(address):
                    self.wrong.append(f"{address} of {other} was given to {pod.container_id}")
                self.holders[address] = pod.container_id

    def ending(self, pod: Pod) -> None:
        """Its DEL is about to begin: from now on its address may be another's."""
        with self._lock:
            mine = [at for at, holder in self.holders.items() if holder == pod.container_id]
            for address in mine:
                del self.holders[address]

    def ended(self, verb: str, done: Done, *, allowed: tuple[int, ...] = (TRY_AGAIN,)) -> None:
        code = done.status and json.loads(done.stdout)["code"]
        with self._lock:
            name = f"{verb} {code}"
            self.outcomes[name] = self.outcomes.get(name, 0) + 1
            if code not in (0, *allowed):
                self.wrong.append(f"{verb}: {done}")


@dataclass(slots=True)
class Runtime:
    """One runtime with one container, again and again."""

    machine: Machine
    pod: Pod
    ledger: Ledger
    dice: random.Random

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            if self.dice.random() < 0.15:
                self.cut_off(self.dice.choice(("ADD", "DEL")))
            else:
                self.attach()
            self.detach()

    def attach(self) -> None:
        added = self.machine.add(self.pod)
        self.ledger.ended("ADD", added)
        if added.status:
            return
        self.ledger.given(self.pod, added)
        if self.dice.random() < 0.3:
            network = {**self.machine.network, "prevResult": json.loads(added.stdout)}
            checked = self.machine.call("CHECK", self.pod, network=network)
            self.ledger.ended("CHECK", checked)

    def detach(self) -> None:
        self.ledger.ending(self.pod)
        while True:
            done = self.machine.delete(self.pod)
            self.ledger.ended("DEL", done)
            if done.status == 0:
                return

    def cut_off(self, verb: str) -> None:
        """The runtime dies with its plugin, somewhere on the way."""
        self.ledger.ending(self.pod)
        with self.machine.calling(verb, self.pod) as launcher:
            try:
                launcher.wait(self.dice.uniform(0, 0.05))
            except subprocess.TimeoutExpired:
                launcher.kill()


@contextmanager
def trouble(machine: Machine, dice: random.Random) -> Iterator[dict[str, int]]:
    """Kill, hang and restart the agent during the block; it serves again after it."""
    stopping, made = threading.Event(), {"killed": 0, "hung": 0, "restarted": 0}

    def make() -> None:
        while not stopping.wait(dice.uniform(0.1, 1.0)):
            kind = dice.choices(list(made), weights=(4, 4, 2))[0]
            made[kind] += 1
            if kind == "hung":
                machine.signal(signal.SIGSTOP)
                stopping.wait(dice.uniform(0, 2))
                machine.resume()
                continue
            if kind == "killed":
                machine.kill()
            else:
                machine.stop()
            machine.start()

    with ThreadPoolExecutor(1) as maker:
        going_on = maker.submit(make)
        try:
            yield made
        finally:
            stopping.set()
            going_on.result()


def churn(machine: Machine, seconds: float) -> None:
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    machine.network = NETWORK
    machine.start()
    ledger = Ledger()
    runtimes = [
        Runtime(machine, machine.pod(f"c{number}"), ledger, random.Random(seed + number))
        for number in range(RUNTIMES)
    ]
    stopping = threading.Event()
    with ThreadPoolExecutor(RUNTIMES) as threads:
        with trouble(machine, dice) as made:
            going_on = [threads.submit(one.run, stopping) for one in runtimes]
            stopping.wait(seconds)
            stopping.set()
        for each in going_on:
            each.result()
    print(f"seed {seed}, agent {made}, calls {ledger.outcomes}")  # noqa: T201 - of a failed test

    assert ledger.wrong == []
    assert ledger.outcomes["ADD 0"] > seconds
    assert min(made.values()) > 0
    settle(machine, runtimes)


def settle(machine: Machine, runtimes: list[Runtime]) -> None:
    """Some containers stay, some end with their runtime: the node is consistent all the same."""
    for one in runtimes:
        one.attach()
    held = {pod for pod, (state, _) in machine.records().items() if state == "held"}

    assert held == {one.pod.container_id for one in runtimes}
    assert machine.problems() == []
    assert len(machine.links()) == len(held)
    for one in runtimes:
        assert one.pod.addresses() == list(machine.records()[one.pod.container_id][1])

    for one in runtimes[::2]:
        one.detach()
    for one in runtimes[1::2]:
        machine.remove(one.pod)
    for draft in machine.launcher.spool.glob(".tmp-*"):
        os.utime(draft, (0, 0))  # of a launcher that was killed, long ago
    until(lambda: machine.records() == {}, "every attachment ends", timeout=60)
    until(lambda: machine.launcher.spooled() == [], "the spool is tidied")

    assert machine.problems() == []
    assert machine.leftovers() == []
    assert [usage["held"] for usage in machine.ask("ipam-show")["usage"]] == [0, 0]


def test_churn_under_trouble_ends_consistent(machine: Machine) -> None:
    churn(machine, 20)


@pytest.mark.slow
def test_minutes_of_churn_under_trouble_end_consistent(machine: Machine) -> None:
    churn(machine, LONG_S)
