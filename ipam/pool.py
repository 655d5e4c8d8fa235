"""Which address of a range set is given next.

The longest idle one, so that whoever still talks to its last holder notices in time.  In order:

1. one never used, as long as few (*HISTORY*) used ones are idle;
2. the one idle longest, if it is past the cool-down;
3. one never used, however long the history;
4. the one idle longest though it still cools, and the choice says so;
5. none: NoFreeAddress.

"Never used" is what a cursor that only moves forward has not passed, less what is held or idle:
each address is looked at once, so a choice costs the same in a /64, a /16 and a full /16.  The
rules also bound memory: a fresh address is taken only while the history is short or nothing in
it has cooled.  Everything here is a function of its arguments and of what it was told before.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ipam.errors import NoFreeAddress
from ipam.ranges import RangeSet
from net.address import IPAddress, IPNetwork

HISTORY = 256


@dataclass(frozen=True, slots=True)
class Choice:
    """An address; *reused*: it had a holder before; *cooling*: too short a time ago."""

    address: IPAddress
    reused: bool = False
    cooling: bool = False


class Pool:
    """The addresses of one range set less *excluded*, and which of them are idle since when.

    *held* is asked, not owned: it has the addresses (integers of this family) held by any
    network of the node.
    """

    def __init__(
        self,
        ranges: RangeSet,
        excluded: Iterable[IPNetwork] = (),
        *,
        held: Container[int],
        cooldown_ns: int,
        history: int = HISTORY,
    ) -> None:
        self.ranges = ranges
        self._spans = ranges.spans(excluded)
        self._sorted = sorted(self._spans)
        self.size = sum(end - start + 1 for start, end in self._spans)
        self._held = held
        self._cooldown_ns = cooldown_ns
        self._history = history
        self._make = IPv4Address if ranges.version == 4 else IPv6Address
        # Not a plain dict: its first key is found by walking over all that were removed.
        self._idle: OrderedDict[int, int] = OrderedDict()
        self._span = 0
        self._next = self._spans[0][0] if self._spans else 0
        self._forgot = False

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self._sorted, value, key=lambda span: span[0])
        return at > 0 and value <= self._sorted[at - 1][1]

    def choose(self, now_ns: int) -> Choice:
        """Say which address is next; it stays so until `take`.  Raises NoFreeAddress."""
        few = len(self._idle) < self._history
        if few and (fresh := self._fresh()) is not None:
            return Choice(self._make(fresh))
        if not self._idle:
            fresh = self._fresh()
            if fresh is None:
                raise NoFreeAddress(f"no free address in {self.ranges}: all {self.size} are held")
            return Choice(self._make(fresh))
        oldest, since_ns = next(iter(self._idle.items()))
        cooling = now_ns - since_ns < self._cooldown_ns
        if cooling and not few and (fresh := self._fresh()) is not None:
            return Choice(self._make(fresh))
        return Choice(self._make(oldest), reused=True, cooling=cooling)

    def take(self, value: int) -> None:
        """Note that *value* is held now."""
        self._idle.pop(value, None)

    def free(self, value: int, since_ns: int) -> None:
        """Note that *value*, held until now, is idle since *since_ns*; calls come in that order."""
        self._idle[value] = since_ns

    def forget(self, value: int) -> None:
        """Count the idle *value* as never used."""
        if self._idle.pop(value, None) is not None:
            self._forgot = True

    @property
    def idle(self) -> int:
        return len(self._idle)

    def cooling(self, now_ns: int) -> int:
        """Count the idle addresses that are not past the cool-down."""
        count = 0
        for since_ns in reversed(self._idle.values()):
            if now_ns - since_ns >= self._cooldown_ns:
                break
            count += 1
        return count

    def _fresh(self) -> int | None:
        fresh = self._advance()
        if fresh is None and self._forgot:
            self._forgot, self._span, self._next = False, 0, self._spans[0][0]
            fresh = self._advance()
        return fresh

    def _advance(self) -> int | None:
        while self._span < len(self._spans):
            end = self._spans[self._span][1]
            while self._next <= end:
                if self._next not in self._held and self._next not in self._idle:
                    return self._next
                self._next += 1
            self._span += 1
            if self._span < len(self._spans):
                self._next = self._spans[self._span][0]
        return None
