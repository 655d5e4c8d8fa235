"""Who is there and what is mine, as far as one node can tell from heartbeats.  Pure.

The law: of two nodes that both hear more than half of all, one hears of the other.  A node *hears*
another while heartbeats came within LOST_S; *mutually*, while the other says that it hears it,
too.  Who mutually hears more than half bids for addresses; others say nothing but that they are
there.  Any two halves share a node, and that one tells each of them of the other (`relayed`), so
that one of the two has the worse rank, knows it, and is silent.

Of two nodes in all that do not hear each other none knows better: both bid, and who hears the
other's announcements on the link gives way (`announcement.contest`).

Nobody announces before those that he hears know of him, nor within LOST_S of his beginning, nor
of a time at which he was not looking (he was stopped, and others took over), nor what he did not
bid for SAID_S ago.  Who begins, was lost to the others or no part of a majority bids for nothing
first, and for SETTLED_S leaves to those that are settled what they bid for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from announcement.election import rank
from announcement.model import NOTHING, Heartbeat, Relayed, State
from net.address import IPAddress

BEAT_S = 0.3
MISSED_S = 0.8
"""Then others are asked whether they hear of it, who answer before it is lost."""

LOST_S = 2.0
"""Six heartbeats: one that is lost, or late on a busy machine, moves nothing."""

SAID_S = 2 * BEAT_S
"""By then the others know of a bid, and who else began to bid at the same time is known."""

SETTLED_S = 30.0
"""Who comes and goes again and again breaks connections when it goes first, and then none."""

STOPPED_S = LOST_S - 2 * BEAT_S
"""Whoever did not look for so long may have been lost to others, who took over."""


@dataclass(slots=True)
class _Known:
    """The state of another, and when it was said; *heard_at* what it said itself last.

    *is_settled*: what it bids for is left to it by those that are not.
    """

    state: State
    said_at: float
    heard_at: float = float("-inf")
    hears: frozenset[str] = frozenset()
    knows: frozenset[str] = frozenset()
    misses: frozenset[str] = frozenset()
    is_settled: bool = True


class Membership:
    """Every *now* is of one monotonic clock, in seconds."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self._others: frozenset[str] = frozenset()
        self._known: dict[str, _Known] = {}
        self._whose: dict[str, str] = {}
        self._state = State()
        self._since: dict[IPAddress, float] = {}
        self._begun = self._looked_at = now
        self._settled_at = now + SETTLED_S

    # What comes from outside.

    def settle(self, others: Iterable[str]) -> None:
        """These announce beside us, whether they are heard or not."""
        self._others = frozenset(others) - {self.name}
        for name in self._known.keys() - self._others:
            del self._known[name]

    def bid(self, state: State, now: float) -> None:
        """Say what we could do; it is told, and counts, only while enough hear us."""
        bids = self._chosen(state.bids, now)
        self._since = {address: self._since.get(address, now) for address in bids}
        self._state = State(bids, state.macs)

    def _chosen(self, could: frozenset[IPAddress], now: float) -> frozenset[IPAddress]:
        """What we bid for, of all that we could: what others have is left to them at first."""
        if not self._others:
            return could
        if now - self._begun < LOST_S:
            return could & self._state.bids
        if now >= self._settled_at:
            return could
        if not self.is_many(now):
            return NOTHING
        others = [self._known[name] for name in self.knows(now)]
        taken = NOTHING.union(*(one.state.bids for one in others if one.is_settled))
        return could & (self._state.bids | could - taken)

    def look(self, now: float) -> None:
        """To be called all the time: who was not looking does not know what happened."""
        away_s = now - self._looked_at
        if away_s > STOPPED_S:
            self._begun = now
        if away_s > LOST_S:
            self._state = State(NOTHING, self._state.macs)
        if away_s > LOST_S or not self.is_many(now):
            self._settled_at = now + SETTLED_S
        self._looked_at = now

    def hear(self, sender: str, said: Heartbeat, now: float) -> bool:
        """Take note of what *sender* said just now; returns whether it is news.

        Of those that we do not know nothing is taken.
        """
        if sender not in self._others:
            return False
        self._whose |= dict.fromkeys(said.state.macs, sender)
        before = self._known.get(sender)
        self._known[sender] = _Known(
            said.state, now, now, said.hears, said.knows, said.misses, said.is_settled
        )
        is_news = before is None or (
            (before.state, self.name in before.hears, self.name in before.knows)
            != (said.state, self.name in said.hears, self.name in said.knows)
        )
        for one in said.relayed:
            is_news |= self._hear_of(one, now)
        return is_news

    def _hear_of(self, one: Relayed, now: float) -> bool:
        said_at = now - max(one.age_s, 0.0)
        known = self._known.get(one.node)
        if one.node not in self._others or (known and known.said_at >= said_at):
            return False
        self._whose |= dict.fromkeys(one.state.macs, one.node)
        if known is None:
            self._known[one.node] = _Known(one.state, said_at)
            return True
        is_news = known.state != one.state
        known.state, known.said_at = one.state, said_at
        return is_news

    # What follows from it.

    def hears(self, now: float) -> frozenset[str]:
        return frozenset(name for name, one in self._known.items() if now - one.heard_at < LOST_S)

    def misses(self, now: float) -> frozenset[str]:
        """Return those that we have not heard for a while, or never."""
        return frozenset(
            name
            for name in self._others
            if name not in self._known or now - self._known[name].heard_at >= MISSED_S
        )

    def mutual(self, now: float) -> frozenset[str]:
        """Return those that we hear and that hear us."""
        return frozenset(name for name in self.hears(now) if self.name in self._known[name].hears)

    def knows(self, now: float) -> frozenset[str]:
        """Return those whose state is recent, by whomever we have it."""
        return frozenset(name for name, one in self._known.items() if now - one.said_at < LOST_S)

    def is_many(self, now: float) -> bool:
        """Tell whether we are one of a majority; two in all are one each."""
        total = len(self._others) + 1
        return total <= 2 or 2 * (len(self.mutual(now)) + 1) > total

    def is_in_doubt(self, now: float) -> bool:
        """Tell whether another may announce of whom we do not hear: of two in all."""
        return len(self._others) == 1 and not self.mutual(now)

    def said(self, now: float) -> State:
        """Return our state as others are to know it."""
        return self._state if self.is_many(now) else State(NOTHING, self._state.macs)

    def say(self, to: str, now: float) -> Heartbeat:
        """Return the heartbeat for one of the others."""
        hears = self.hears(now)
        other = self._known.get(to)
        asked = other.misses if other is not None else frozenset()
        return Heartbeat(
            state=self.said(now),
            hears=hears,
            knows=self.knows(now),
            misses=self.misses(now),
            is_settled=now >= self._settled_at,
            relayed=tuple(
                Relayed(name, now - self._known[name].heard_at, self._known[name].state)
                for name in sorted(hears & asked - {to})
            ),
        )

    def bids(self, now: float) -> dict[str, frozenset[IPAddress]]:
        """Return what each node bids for, ourselves among them, as far as we know."""
        return {name: self._known[name].state.bids for name in self.knows(now)} | {
            self.name: self.said(now).bids
        }

    def is_settled_with(self, mac: str, now: float) -> bool:
        """Tell whether *mac* is of a node that we know of: then ranks say whose an address is."""
        return self._whose.get(mac) in self.knows(now)

    def mine(self, now: float) -> frozenset[IPAddress]:
        """Return the addresses that we answer for, as heartbeats have it."""
        if now - self._begun < LOST_S and self._others:
            return NOTHING
        patience_s = SAID_S if self._others else 0.0
        rivals = [(name, self._known[name].state.bids) for name in self.knows(now)]
        hears = self.hears(now)
        deaf = {name for name in hears if self.name not in self._known[name].knows}
        return frozenset(
            address
            for address in self.said(now).bids
            if now - self._since[address] >= patience_s
            and not any(
                name in deaf or rank(address, name) > rank(address, self.name)
                for name, bids in rivals
                if address in bids
            )
        )
