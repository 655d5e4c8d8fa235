"""For which addresses this node could answer, from what it was told of Services.

One is bid for where every Service that has it lets us: those of external policy Local only with a
ready endpoint on this node.
"""

import threading
from dataclasses import dataclass

from agent.health_checks import check_of
from net.address import IPAddress
from proxy.model import ServiceName, TrafficPolicy
from proxy.reconciler import Wanted


@dataclass(frozen=True, slots=True)
class _Told:
    addresses: tuple[IPAddress, ...]
    can_answer: bool


class Bids:
    """Told by one thread and asked by another."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._told: dict[ServiceName, _Told] = {}
        self._lock = threading.Lock()

    def told(self, name: ServiceName, wanted: Wanted | None) -> None:
        """One Service is so now; None: it is gone, or not to be translated."""
        service = wanted.service if wanted else None
        with self._lock:
            if wanted is None or service is None or not service.is_assigned:
                self._told.pop(name, None)
                return
            is_local = service.external_policy is TrafficPolicy.LOCAL
            can_answer = not is_local or check_of(wanted, self._node).local > 0
            self._told[name] = _Told(service.load_balancer_ips, can_answer)

    def all(self) -> frozenset[IPAddress]:
        """Every address that Services have, whoever can answer for it."""
        with self._lock:
            return frozenset(one for told in self._told.values() for one in told.addresses)

    def now(self) -> frozenset[IPAddress]:
        with self._lock:
            refused = {
                address
                for told in self._told.values()
                if not told.can_answer
                for address in told.addresses
            }
        return self.all() - refused
