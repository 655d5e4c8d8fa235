"""When an address is announced again, and who gives way to whom on the link.  Pure.

Election settles it between nodes that hear each other.  Another who announces an address of ours
and is none of these (heartbeats do not pass, or it is no node of ours) is a contest on the link:
the lower MAC gives way at once, for as long as the other is heard; the higher announces again.
So of two that cannot talk, and whose frames pass, one is left.
"""

from collections.abc import Collection

from net.address import IPAddress

BURST_S = (0.0, 0.2, 0.5, 1.0, 2.0)
"""After taking an address: frames can be lost, and hosts ignore news for a second (locktime)."""

SLOW_S = 10.0
QUICK_S = 1.0
"""While somebody may announce of whom we do not hear: within it each hears of the other."""

HURRY_S = 0.3
"""Not sooner after the last: who insists is not to make us flood the link."""

YIELD_S = 3 * QUICK_S


class Announcements:
    """Which addresses are to be announced when; every *now* is monotonic, in seconds."""

    def __init__(self) -> None:
        self._last: dict[IPAddress, float] = {}
        self._next: dict[IPAddress, tuple[float, int]] = {}
        self._begun: dict[IPAddress, float] = {}

    def due(self, mine: Collection[IPAddress], now: float, *, in_doubt: bool) -> list[IPAddress]:
        """Return what of *mine* is to be announced now, and count on that."""
        for address in self._begun.keys() - set(mine):
            del self._begun[address], self._next[address]
            self._last.pop(address, None)
        found = []
        for address in mine:
            begun = self._begun.setdefault(address, now)
            at, done = self._next.get(address, (now, 0))
            if in_doubt and done >= len(BURST_S):
                at = min(at, now + QUICK_S)
            if now >= at:
                found.append(address)
                self._last[address] = now
                done += 1
                rest = QUICK_S if in_doubt else SLOW_S
                at = begun + BURST_S[done] if done < len(BURST_S) else now + rest
            self._next[address] = (at, done)
        return found

    def hurry(self, address: IPAddress, now: float) -> None:
        """Announce it again soon: another's word has to be corrected."""
        if address in self._next:
            at, done = self._next[address]
            soon = max(now, self._last.get(address, now) + HURRY_S)
            self._next[address] = (min(at, soon), done)


class Contest:
    """What others announce of what is ours."""

    def __init__(self) -> None:
        self._until: dict[IPAddress, float] = {}
        self._rivals: dict[IPAddress, tuple[str, float]] = {}

    def hear(self, address: IPAddress, theirs: str, ours: str, now: float) -> bool:
        """Somebody who is no node that we hear announced it; returns whether we give way."""
        self._rivals[address] = theirs, now
        if theirs <= ours:
            return False
        self._until[address] = now + YIELD_S
        return True

    def lost(self, now: float) -> frozenset[IPAddress]:
        """Return what is left to others for now."""
        self._until = {one: until for one, until in self._until.items() if until > now}
        return frozenset(self._until)

    def rivals(self, now: float) -> dict[IPAddress, str]:
        """Return who announced what of ours in the last seconds."""
        recent = {one: rival for one, rival in self._rivals.items() if now - rival[1] < SLOW_S}
        self._rivals = recent
        return {one: mac for one, (mac, _) in recent.items()}
