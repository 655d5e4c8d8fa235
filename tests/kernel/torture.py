"""A cluster that is never left in peace: runtimes that churn while everything goes wrong."""

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.kernel.agents import until
from tests.kernel.etcd import Etcd
from tests.kernel.ipamds import Site
from tests.kernel.switch import Switch
from tests.kernel.torture_ledger import Ledger, Place
from tests.kernel.torture_nodes import PATIENCE_S, Away, Node, Refused, described, left, until_each
from tests.kernel.torture_troubles import Troubles


@dataclass(slots=True)
class Torture:
    """One run; all choices are made from *seed*, for each hand by dice of its own."""

    seed: str
    switch: Switch
    etcd: Etcd
    site: Site
    places: list[Place] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    stopping: threading.Event = field(default_factory=threading.Event)
    resting: threading.Event = field(default_factory=threading.Event)
    troubles: Troubles = field(init=False)

    def __post_init__(self) -> None:
        self.troubles = Troubles(
            self.switch, self.etcd, self.site, self.places, self.ledger, self.resting
        )

    def dice(self, hand: str) -> random.Random:
        return random.Random(f"{self.seed} {hand}")

    def runtime(self, place: Place, container: str) -> None:
        dice = self.dice(container)
        while not self.stopping.is_set():
            self.attach(place, container)
            self.stopping.wait(dice.expovariate(1 / 0.7))
            self.detach(place, container)
            self.stopping.wait(dice.expovariate(1 / 0.3))

    def attach(self, place: Place, container: str) -> None:
        life = place.life
        try:
            given = place.node.add(container)
        except Away:
            self.ledger.outcomes["ADD unanswered"] += 1
            _breath()
        except Refused as exc:
            self.ledger.refused(str(exc))
            self._appeal(place, container, life)
        else:
            self.ledger.given(place, life, container, given)

    def _appeal(self, place: Place, container: str, life: int) -> None:
        """What was refused though there are addresses for every container must not be again."""
        try:
            if not self._is_able(place):
                _breath()
                return
            self.ledger.given(place, life, container, place.node.add(container))
        except Refused as exc:
            if place.life == life and not place.is_disturbed:
                self.ledger.wrongly(f"{place.node.name} refused an ADD: {exc}")
        except Away:
            return

    def _is_able(self, place: Place) -> bool:
        """Whether more addresses are the node's than its containers can have; it gains only."""
        status = place.node.status()
        room = Counter[bool]()
        for block in status["blocks"]:
            if block["state"] == "active":
                room[":" in block["cidr"]] += block["size"]
        enough = all(room[family] >= len(place.containers) for family in (True, False))
        return enough and status["confirmed"] and not place.is_disturbed

    def detach(self, place: Place, container: str) -> None:
        self.ledger.ending(place, container)
        since = time.monotonic()
        while not self._deleted(place.node, container):
            # A machine is off for as long as etcd takes to hear of its fence.
            since = time.monotonic() if place.is_off else since
            assert time.monotonic() < since + PATIENCE_S, described(place.node)
        self.ledger.outcomes["DEL"] += 1

    def _deleted(self, node: Node, container: str) -> bool:
        try:
            node.delete(container)
        except Away:
            _breath()
            return False
        return True

    @contextmanager
    def churning(self) -> Iterator[None]:
        """Runtimes at work during the block; all is detached after it."""
        with _threads(self) as start:
            for place in self.places:
                for container in place.containers:
                    start(lambda p=place, c=container: self.runtime(p, c))  # type: ignore[misc]
            try:
                yield
            finally:
                self.stopping.set()

    @contextmanager
    def troubled(self) -> Iterator[None]:
        """Everything goes wrong during the block, and is well again after it."""
        with _threads(self) as start:
            make, of = self.troubles.make, self.troubles
            start(lambda: make(self.dice("etcd"), of.etcd_troubles(), 4))
            start(lambda: make(self.dice("network"), of.network_troubles(), 4))
            start(lambda: make(self.dice("programs"), of.program_troubles(), 1.5))
            start(lambda: make(self.dice("operators"), of.operator_troubles(), 5))
            try:
                yield
            finally:
                self.resting.set()
        self.etcd.start()

    def settle(self) -> None:
        """Nothing goes wrong any more: all is told, and nobody waits."""
        for replica in self.site.replicas:
            until(replica.is_synced, "a replica follows the store", timeout=PATIENCE_S)
        until_each([place.node for place in self.places], _is_settled, "all nodes are settled")

    def clear(self) -> None:
        """Nothing is left, in nodes' stores and in the kernel: agents look after that each second.

        A runtime is told of an end that its node has yet to carry out.
        """
        nodes = [place.node for place in self.places]
        until_each(nodes, lambda node: not left(node), "nothing is left")


def _breath() -> None:
    threading.Event().wait(0.1)


def _is_settled(node: Node) -> bool:
    status = node.status()
    well = status["connected"] and status["confirmed"] and not status["frozen"]
    return bool(well) and not status["mirror_waiting"] and node.check() == []


@contextmanager
def _threads(run: Torture) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Start work that has ended after the block; what it raises is wrong."""
    started: list[threading.Thread] = []

    def start(work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception:  # noqa: BLE001 - whatever it was, the run is told
                run.ledger.wrongly(traceback.format_exc())

        thread = threading.Thread(target=guarded)
        started.append(thread)
        thread.start()

    try:
        yield start
    finally:
        for thread in started:
            thread.join()
