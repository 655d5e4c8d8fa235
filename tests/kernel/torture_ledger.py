"""What runtimes were told: who holds which address, how calls ended, and what must not have been.

An address is held from the answer of its ADD until its DEL begins, or its machine is switched
off; nobody else may be told of it meanwhile.
"""

import re
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address

from ipam.holdings import Holdings, OwnState
from ipam.sqlite_cluster import holdings
from net.address import IPNetwork
from tests.kernel.torture_nodes import Node


@dataclass(slots=True)
class Place:
    """One node with its runtimes; *life* is of the machine, *is_disturbed* while it is drained.

    *power*: who kills or starts it holds that, so that no two of them are at one node.
    """

    node: Node
    containers: tuple[str, ...]
    life: int = 0
    is_off: bool = False
    is_disturbed: bool = False
    power: threading.Lock = field(default_factory=threading.Lock)


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

    def refused(self, reason: str) -> None:
        """Count an ADD that was refused, by *reason* without what differs each time."""
        kind = re.sub(r"[0-9a-f]*[0-9:.][0-9a-f:./]*", "…", reason)[:160]
        with self._lock:
            self.outcomes["ADD refused"] += 1
            self.reasons[kind] += 1

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


def holdings_of(node: Node) -> Holdings:
    """What the node's file says of its blocks, whether it runs or not."""
    db = sqlite3.connect(f"{node.database.as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        found = holdings(db)
    finally:
        db.close()
    assert found is not None
    return found


def _within(address: str, network: IPNetwork) -> bool:
    found = ip_address(address)
    return found.version == network.version and found in network
