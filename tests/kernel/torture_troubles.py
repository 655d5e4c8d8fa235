"""What goes wrong in a torture: with etcd, its network, the programs, and by operators."""

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kernel.agents import until
from tests.kernel.etcd import Etcd
from tests.kernel.ipamds import Ipamd, Site
from tests.kernel.switch import Switch
from tests.kernel.torture_ledger import Ledger, Place
from tests.kernel.torture_nodes import PATIENCE_S, Away, LightNode, until_each


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that goes wrong, and how often."""

    weight: float
    make: Callable[[random.Random], None]


@dataclass(slots=True)
class Troubles:
    """Everything that can go wrong, and is well again after it; *done* counts."""

    switch: Switch
    etcd: Etcd
    site: Site
    places: list[Place]
    ledger: Ledger
    resting: threading.Event
    done: Counter[str] = field(default_factory=Counter)
    # Restores wait for drains and fences, and these for them: etcd forgets none half done.
    administration: threading.Lock = field(default_factory=threading.Lock)

    def make(self, dice: random.Random, troubles: dict[str, Trouble], pause_s: float) -> None:
        """One after the other, about every *pause_s*, until the run rests.

        First each once, those that are to be the most first: also a short run has them.
        """
        names, weights = list(troubles), [each.weight for each in troubles.values()]
        first = sorted(names, key=lambda name: troubles[name].weight)
        while not self.resting.wait(dice.uniform(0.3, 1) * pause_s):
            name = first.pop() if first else dice.choices(names, weights)[0]
            troubles[name].make(dice)
            self.done[name] += 1

    def etcd_troubles(self) -> dict[str, Trouble]:
        return {
            "leader killed": Trouble(6, self.kill_leader),
            "member hung": Trouble(3, self.hang_member),
            "quorum lost": Trouble(1, self.lose_quorum),
            "compaction": Trouble(2, lambda dice: self.compact()),
        }

    def network_troubles(self) -> dict[str, Trouble]:
        return {
            "member alone": Trouble(3, self.isolate_member),
            "two members apart": Trouble(2, self.part_members),
            "replica and member apart": Trouble(3, self.part_replica_from_member),
            "replica alone": Trouble(1, self.isolate_replica),
            "node and replica apart": Trouble(2, self.part_node_from_replica),
        }

    def program_troubles(self) -> dict[str, Trouble]:
        return {
            "node killed": Trouble(8, self.kill_node),
            "ipamd killed": Trouble(3, self.kill_ipamd),
            "ipamd hung": Trouble(2, self.hang_ipamd),
        }

    def operator_troubles(self) -> dict[str, Trouble]:
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
        node = place.node
        assert isinstance(node, LightNode)
        nodes = [each.node for each in self.places]
        with self.administration:
            more = ("--block-length", "29", "--order", "1")
            self._admin("ipam", "pools", "create", pool, f"10.61.{number}.0/29", *more)
            snapshot = self._snapshot()
            until_each([node], lambda _: self._demanded(node, pool), f"a claim in {pool}")
            self.etcd.restore(snapshot, bump=bump)
            until_each(nodes, lambda node: node.status()["frozen"] != "", "all nodes know")
            self._admin("ipam", "init", "--recover")
            until_each(nodes, lambda node: node.status()["frozen"] == "", "claims go on")
        self.done["restore"] += 1

    def _demanded(self, node: LightNode, pool: str) -> bool:
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

        until(saved, "a snapshot is saved", timeout=PATIENCE_S)
        return file[0]

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
        with place.power:
            if not place.is_off:
                place.node.kill()
                self.wait(dice, 0, 0.5)
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
        """Take a node out, until it has given back what was empty, and let it back in.

        Not one that is fenced still.  It is until the sign of life of its former boot has run out:
        that takes as long as etcd has another leader every few seconds, and leases begin anew.
        """
        place = dice.choice(self.places)
        with self.administration:
            if not self._is_confirmed(place):
                return
            place.is_disturbed = True
            self._admin("ipam", "drain", place.node.name)
            self.wait(dice, 1, 5)
            self._admin("ipam", "drain", place.node.name, "--undo")
        place.is_disturbed = False

    def _is_confirmed(self, place: Place) -> bool:
        try:
            return bool(place.node.status()["confirmed"])
        except Away:
            return False

    def fence_node(self, dice: random.Random) -> None:
        """Switch a machine off, let others have its blocks, and boot it again."""
        place = dice.choice(self._light())
        node = place.node
        assert isinstance(node, LightNode)
        with self.administration:
            with place.power:
                place.is_off = True
                node.kill()
                self.ledger.switched_off(place)
            self._admin("ipam", "drain", node.name, "--fenced", "--force")
            self.wait(dice, 0, 10)
        node.boot += 1
        with place.power:
            node.start()
            place.is_off = False

    def _admin(self, *words: str) -> None:
        """Have an operator do it, who tries again until it is done."""
        said: list[str] = []

        def is_done() -> bool:
            done = self.site.isthmus(*words)
            said[:] = [done.stdout + done.stderr]
            return done.returncode == 0

        try:
            until(is_done, f"isthmus {' '.join(words)}", timeout=PATIENCE_S)
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {said}") from None
