"""A cluster that is never left in peace: who holds what, who churns, and what goes wrong.

The ledger is what runtimes were told.  An address is held from the answer of its ADD until its DEL
begins, or its machine is switched off; nobody else may be told of it meanwhile.
"""

import random
import re
import signal
import sqlite3
import subprocess
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ipam.holdings import Holdings, OwnState
from ipam.sqlite_cluster import holdings
from net.address import IPNetwork
from tests.kernel.agents import until
from tests.kernel.etcd import Etcd
from tests.kernel.ipamds import Ipamd, Site
from tests.kernel.switch import Switch
from tests.kernel.torture_nodes import Away, LightNode, Node, Refused

SETTLED_S = 120.0


@dataclass(slots=True)
class Place:
    """One node with its runtimes; *life* is of the machine, *is_disturbed* while it is drained."""

    node: Node
    containers: tuple[str, ...]
    life: int = 0
    is_off: bool = False
    is_disturbed: bool = False


@dataclass(slots=True)
class Ledger:
    """Who holds which address, how calls ended, and what must not have been."""

    holders: dict[str, tuple[Place, str]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    history: dict[str, list[str]] = field(default_factory=dict)
    _begun: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def given(self, place: Place, life: int, container: str, addresses: list[str]) -> None:
        with self._lock:
            self.outcomes["ADD"] += 1
            if life != place.life:
                return  # the machine was switched off since
            for address in addresses:
                other = self.holders.get(address)
                if other and other != (place, container) and not self._lost(other[0], address):
                    self._note(address, f"GIVEN TWICE, to {container}")
                    self.wrong += [f"{address}: {'; '.join(self.history[address][-8:])}"]
                self.holders[address] = (place, container)
                self._note(address, f"to {container}")

    def ending(self, place: Place, container: str) -> None:
        """Its DEL is about to begin: from now on its address may be another's."""
        with self._lock:
            for address in [a for a, by in self.holders.items() if by == (place, container)]:
                del self.holders[address]
                self._note(address, f"DEL of {container}")

    def switched_off(self, place: Place) -> None:
        with self._lock:
            place.life += 1
            for address in [a for a, (by, _) in self.holders.items() if by is place]:
                del self.holders[address]
                self._note(address, f"{place.node.name} is switched off")

    def wrongly(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)

    def _note(self, address: str, what: str) -> None:
        after = time.monotonic() - self._begun
        self.history.setdefault(address, []).append(f"{after:.3f} s {what}")

    def _lost(self, place: Place, address: str) -> bool:
        """Whether that node knows that the block is lost, and so drops the address's traffic."""
        lost = holdings_of(place.node).of_state(OwnState.LOST)
        return any(_within(address, block.cidr) for block in lost)


@dataclass(slots=True)
class Torture:
    """One run; *dice* are from one seed, for each hand another."""

    seed: str
    switch: Switch
    etcd: Etcd
    site: Site
    places: list[Place]
    ledger: Ledger = field(default_factory=Ledger)
    done: Counter[str] = field(default_factory=Counter)
    # Restores wait for drains and fences, and these for them: etcd forgets none half done.
    administration: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)
    resting: threading.Event = field(default_factory=threading.Event)

    def dice(self, hand: str) -> random.Random:
        return random.Random(f"{self.seed} {hand}")

    # Runtimes.

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
            self.ledger.outcomes["ADD refused"] += 1
            self.ledger.reasons[_kind(str(exc))] += 1
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
        while True:
            try:
                place.node.delete(container)
            except Away:
                _breath()
                continue
            self.ledger.outcomes["DEL"] += 1
            return

    # What goes wrong.

    def trouble(self, hand: str, troubles: dict[str, "Trouble"], pause_s: float) -> None:
        dice = self.dice(hand)
        while not self.resting.wait(dice.uniform(0.3, 1) * pause_s):
            name = dice.choices(list(troubles), [each.weight for each in troubles.values()])[0]
            troubles[name].make(dice)
            self.done[name] += 1

    def etcd_troubles(self) -> dict[str, "Trouble"]:
        return {
            "leader killed": Trouble(6, self.kill_leader),
            "member hung": Trouble(3, self.hang_member),
            "quorum lost": Trouble(1, self.lose_quorum),
            "compaction": Trouble(2, lambda dice: self.compact()),
        }

    def network_troubles(self) -> dict[str, "Trouble"]:
        return {
            "member alone": Trouble(3, self.isolate_member),
            "two members apart": Trouble(2, self.part_members),
            "replica and member apart": Trouble(3, self.part_replica_from_member),
            "replica alone": Trouble(1, self.isolate_replica),
            "node and replica apart": Trouble(2, self.part_node_from_replica),
        }

    def program_troubles(self) -> dict[str, "Trouble"]:
        return {
            "node killed": Trouble(8, self.kill_node),
            "ipamd killed": Trouble(3, self.kill_ipamd),
            "ipamd hung": Trouble(2, self.hang_ipamd),
        }

    def operator_troubles(self) -> dict[str, "Trouble"]:
        return {
            "node drained": Trouble(2, self.drain_node),
            "node fenced": Trouble(3, self.fence_node),
        }

    def wait(self, dice: random.Random, least: float, most: float) -> None:
        """For a while, or until the run rests."""
        self.resting.wait(dice.uniform(least, most))

    def kill_leader(self, dice: random.Random) -> None:
        leader = self.etcd.leader()
        number = dice.randrange(3) if leader is None else leader
        self.etcd.kill(number)
        self.wait(dice, 0.5, 3)
        self.etcd.start(number, wait=False)

    def hang_member(self, dice: random.Random) -> None:
        number = dice.randrange(3)
        self.etcd.pause(number)
        self.wait(dice, 0.5, 4)
        self.etcd.resume(number)

    def lose_quorum(self, dice: random.Random) -> None:
        first = dice.randrange(3)
        for number in (first, (first + 1) % 3):
            self.etcd.kill(number)
        self.wait(dice, 2, 5)
        self.etcd.start(wait=False)

    def compact(self) -> None:
        done = self.etcd.ctl("get", "health", "-w", "fields", check=False)
        found = [line for line in done.stdout.splitlines() if '"Revision"' in line]
        if found:
            self.etcd.ctl("compact", found[0].split(" : ")[1], check=False)

    def restore(self, bump: int) -> None:
        """Lose a claim, notice that, and have an operator accept it.

        What only mirrors wrote is not missed: nothing is decided by it.
        """
        pool, number = f"more{self.done['restore']}", self.done["restore"]
        place = self._light()[number]
        assert isinstance(place.node, LightNode)
        with self.administration:
            more = ("--block-length", "29", "--order", "1")
            self._admin("ipam", "pools", "create", pool, f"10.61.{number}.0/29", *more)
            snapshot = self._snapshot()
            until(lambda: self._demanded(place.node, pool), "a block of another pool is claimed")
            self.etcd.restore(snapshot, bump=bump)
            until(lambda: bool(self.frozen()), "claims are frozen", timeout=90)
            until(lambda: not self._unaware(), f"all know: {self._unaware()}", timeout=90)
            self._admin("ipam", "init", "--recover")
            until(lambda: self.frozen() == set(), "claims go on", timeout=90)
        self.done["restore"] += 1

    def _demanded(self, node: Node, pool: str) -> bool:
        assert isinstance(node, LightNode)
        node.demand(pool)
        return any(block["pool"] == pool for block in node.status()["blocks"])

    def _light(self) -> list[Place]:
        return [place for place in self.places if isinstance(place.node, LightNode)]

    def _snapshot(self) -> Path:
        file: list[Path] = []

        def saved() -> bool:
            try:
                file.append(self.etcd.snapshot())
            except (AssertionError, StopIteration):
                return False
            return True

        until(saved, "a snapshot is saved")
        return file[0]

    def frozen(self) -> set[str]:
        """What nodes were told of why claims are frozen."""
        return {status["frozen"] for status in self.statuses()} - {""}

    def statuses(self) -> Iterator[dict[str, Any]]:
        for place in self.places:
            try:
                yield place.node.status()
            except Away:
                continue

    def _unaware(self) -> list[str]:
        """Which nodes were not told yet that claims are frozen."""
        aware = {status["node"] for status in self.statuses() if status["frozen"]}
        return sorted({place.node.name for place in self.places} - aware)

    def _pairs(self, dice: random.Random, cuts: list[tuple[Any, Any]]) -> None:
        for one, other in cuts:
            self.switch.cut(one, other)
        self.wait(dice, 1, 6)
        for one, other in cuts:
            self.switch.heal(one, other)

    def isolate_member(self, dice: random.Random) -> None:
        """From the others; whoever asks it still reaches it."""
        hosts = [member.host for member in self.etcd.members]
        alone = hosts.pop(dice.randrange(3))
        self._pairs(dice, [(alone, other) for other in hosts])

    def part_members(self, dice: random.Random) -> None:
        one, other = dice.sample([member.host for member in self.etcd.members], 2)
        self._pairs(dice, [(one, other)])

    def part_replica_from_member(self, dice: random.Random) -> None:
        replica, member = dice.choice(self.site.replicas), dice.choice(self.etcd.members)
        self._pairs(dice, [(replica.host, member.host)])

    def isolate_replica(self, dice: random.Random) -> None:
        replica = dice.choice(self.site.replicas)
        self._pairs(dice, [(replica.host, member.host) for member in self.etcd.members])

    def part_node_from_replica(self, dice: random.Random) -> None:
        node = dice.choice(self._light()).node
        assert isinstance(node, LightNode)
        self._pairs(dice, [(node.host, dice.choice(self.site.replicas).host)])

    def kill_node(self, dice: random.Random) -> None:
        place = dice.choice(self.places)
        if place.is_off:
            return
        place.node.kill()
        self.wait(dice, 0, 0.5)
        if not place.is_off:
            place.node.start()

    def kill_ipamd(self, dice: random.Random) -> None:
        replica = self._replica(dice)
        replica.stop()
        self.wait(dice, 0, 2)
        replica.start()

    def hang_ipamd(self, dice: random.Random) -> None:
        replica = self._replica(dice)
        replica.tell(signal.SIGSTOP)
        self.wait(dice, 0.5, 6)
        replica.tell(signal.SIGCONT)

    def _replica(self, dice: random.Random) -> Ipamd:
        return dice.choice(self.site.replicas)

    def drain_node(self, dice: random.Random) -> None:
        """Take a node out, until it has given back what was empty, and let it back in."""
        place = dice.choice(self.places)
        with self.administration:
            place.is_disturbed = True
            self._admin("ipam", "drain", place.node.name)
            self.wait(dice, 1, 5)
            self._admin("ipam", "drain", place.node.name, "--undo")
        place.is_disturbed = False

    def fence_node(self, dice: random.Random) -> None:
        """Switch a machine off, let others have its blocks, and boot it again."""
        place = dice.choice(self._light())
        node = place.node
        assert isinstance(node, LightNode)
        with self.administration:
            place.is_off = True
            node.kill()
            self.ledger.switched_off(place)
            self._admin("ipam", "drain", node.name, "--fenced", "--force")
            self.wait(dice, 0, 10)
        node.boot += 1
        node.kill()
        node.start()
        place.is_off = False

    def _admin(self, *words: str) -> None:
        """Have an operator do it, who tries again until it is done."""
        said: list[str] = []

        def is_done() -> bool:
            done = self._said(*words)
            said[:] = [done.stdout + done.stderr]
            return done.returncode == 0

        try:
            until(is_done, f"isthmus {' '.join(words)}", timeout=90)
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {said}") from None

    def _said(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.site.isthmus(*words)

    # A run.

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
            start(lambda: self.trouble("etcd", self.etcd_troubles(), 4))
            start(lambda: self.trouble("network", self.network_troubles(), 4))
            start(lambda: self.trouble("programs", self.program_troubles(), 1.5))
            start(lambda: self.trouble("operator", self.operator_troubles(), 8))
            try:
                yield
            finally:
                self.resting.set()
        self.etcd.start()

    def settle(self) -> None:
        """Nothing goes wrong any more: all is told, and nobody waits."""
        for replica in self.site.replicas:
            until(replica.is_synced, "a replica follows the store", timeout=SETTLED_S)
        for place in self.places:
            until(lambda p=place: _is_settled(p.node), f"{place.node.name}", timeout=SETTLED_S)  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that goes wrong, and how often."""

    weight: float
    make: Callable[[random.Random], None]


def holdings_of(node: Node) -> Holdings:
    """What the node's file says of its blocks, whether it runs or not."""
    db = sqlite3.connect(f"{node.database.as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        found = holdings(db)
    finally:
        db.close()
    assert found is not None
    return found


def _breath() -> None:
    threading.Event().wait(0.1)


def _within(address: str, network: IPNetwork) -> bool:
    found = ip_address(address)
    return found.version == network.version and found in network


def _kind(reason: str) -> str:
    """*reason* without what differs from one to the next."""
    return re.sub(r"[0-9a-f]*[0-9:.][0-9a-f:./]*", "…", reason)[:160]


def _is_settled(node: Node) -> bool:
    try:
        status = node.status()
        well = status["connected"] and status["confirmed"] and not status["frozen"]
        return bool(well) and not status["mirror_waiting"] and node.check() == []
    except Away:
        return False


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
