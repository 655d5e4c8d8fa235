"""This node's part in answering for addresses of Services on the local network.

    Services ─► agent.bids ────────┐                             ┌─► agent.answers (ARP, NDP)
    table of nodes ─► peers ───────┼─► announcement.membership ──┤
    agent.heartbeats (UDP) ────────┘      what is mine           └─► announced, again and again

All of it in one event loop, ten times a second: whoever's loop hangs answers for nothing.  The API
server is not asked: while it is away Services are as they were said last, and nodes hear each
other.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.answers import Answers
from agent.bids import Bids
from agent.heartbeats import Heartbeats, Peers
from agent.sessions import Sessions
from announcement.contest import Announcements, Contest
from announcement.election import winners
from announcement.membership import BEAT_S, Membership
from announcement.model import NOTHING, Heartbeat, State
from announcement.settings import Settings
from dataplane.answering import Responder
from dataplane.neighbours import Claim, Question
from ipam.tls import TLSFiles
from net.address import IPAddress

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
TICK_S = 0.1
LOOK_S = 1.0
_STALE_S = 0.5
_LAST_WORDS = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What announcing is tied to.

    *peers*: by node, where it is, ourselves among them; *own*: addresses of this node; *unfit*: why
    no load balancer should send anything here, or ""; *clock*: monotonic seconds; *host*: at which
    address to hear others, "": at all.
    """

    name: str
    peers: Callable[[], Peers]
    own: Callable[[], Iterable[IPAddress]]
    unfit: Callable[[], str]
    files: TLSFiles
    clock: Callable[[], float]
    host: str = ""


def unfit(unhealthy: str, *, is_leaving: bool, labels: Mapping[str, str]) -> str:
    """Why a node is to get no traffic of load balancers, or ""."""
    if is_leaving:
        return "the Node is about to be removed"
    return f"the Node has the label {EXCLUDED}" if EXCLUDED in labels else unhealthy


class Announcing:
    """One for the life of an agent."""

    def __init__(self, settings: Settings, bids: Bids, seams: Seams) -> None:
        self._bids, self._seams, self._clock = bids, seams, seams.clock
        name, port, host = seams.name, settings.port, seams.host
        self._sessions = Sessions(name, seams.files, port, clock=self._clock, host=host or None)
        self._heartbeats = Heartbeats(
            name, self._sessions, port, heard=self._heard, clock=self._clock, host=host
        )
        self._answers = Answers(settings.interfaces, seams.own, self._asked)
        self._membership = Membership(seams.name, seams.clock())
        self._announcements, self._contest = Announcements(), Contest()
        self._peers: Peers = {}
        self._mine = self._won = NOTHING
        self._elected_at = self._beat_at = self._look_at = float("-inf")
        self._trouble = ""
        self._taken = self._given_up = 0
        self._told: dict[str, Any] = {}

    async def run(self) -> None:
        """Hear, say and answer until cancelled; then let others have what was ours at once."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    try:
                        await self.round(tasks)
                    except Exception:  # the edge: a bug here must not end the service of others
                        log.exception("addresses of Services, will retry")
                    await asyncio.sleep(TICK_S)
        finally:
            self._leave()

    async def round(self, tasks: asyncio.TaskGroup) -> None:
        """Look at everything once, as often as each part is due."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            await self._look(tasks)
            self._told = self._describe(now)
        self._peers = self._seams.peers()
        self._heartbeats.settle(self._peers)
        self._elect(now)
        due = self._announcements.due(self._mine, now, in_doubt=self._membership.is_in_doubt(now))
        self._answers.announce(due)
        if now >= self._beat_at:
            self._beat(now)

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        self._trouble = ""
        try:
            self._heartbeats.open(tasks)
        except OSError as exc:
            self._trouble = f"no heartbeats: {exc}"
        await self._sessions.serve()
        self._answers.settle()

    def _elect(self, now: float) -> None:
        """Decide anew what is ours."""
        membership, absent = self._membership, self._heartbeats.absent
        membership.look(now)
        membership.settle(self._others() - absent)
        bids = NOTHING if self._seams.unfit() else self._bids.now()
        before = membership.said(now)
        membership.bid(State(bids, self._answers.macs), now)
        self._won = membership.mine(now)
        mine = self._won - self._contest.lost(now)
        self._elected_at = now
        self._answers.listen_for(bids)
        if membership.said(now) != before:
            self._beat_at = now  # others need not wait for it
        if mine == self._mine:
            return
        self._taken += len(mine - self._mine)
        self._given_up += len(self._mine - mine)
        for address in sorted(mine ^ self._mine, key=str):
            what = "answers for" if address in mine else "answers no more for"
            log.info("%s an address of Services", what, extra={"address": str(address)})
        self._mine = mine

    def _others(self) -> set[str]:
        return set(self._peers) - {self._seams.name}

    def _beat(self, now: float) -> None:
        self._beat_at = now + BEAT_S
        for peer in self._others():
            try:
                self._heartbeats.send(peer, self._membership.say(peer, now))
            except ValueError as exc:
                self._trouble = f"{exc}: Services have too many addresses to be announced"

    def _leave(self) -> None:
        """Say that we bid for nothing any more: others need not wait until we are silent."""
        now = self._clock()
        self._mine = NOTHING
        self._membership.bid(State(), now)
        for _ in range(_LAST_WORDS):
            self._beat(now)
        self._heartbeats.close()
        self._sessions.close()
        self._answers.close()

    # What comes.

    def _heard(self, peer: str, said: Heartbeat) -> None:
        now = self._clock()
        if self._membership.hear(peer, said, now):
            self._elect(now)

    def _asked(self, said: Question | Claim, link: Responder) -> None:
        now = self._clock()
        if now - self._elected_at > _STALE_S:
            self._elect(now)
        if isinstance(said, Question):
            if said.address in self._mine:
                self._answers.answer(said, link)
            return
        theirs, ours = said.mac.hex(":"), link.mac.hex(":")
        if said.address not in self._won or theirs in self._answers.macs:
            return
        if self._membership.is_settled_with(theirs, now):
            self._announcements.hurry(said.address, now)
        elif self._contest.hear(said.address, theirs, ours, now):
            log.warning(
                "another announces an address, and is left it",
                extra={"address": str(said.address), "mac": theirs},
            )
            self._elect(now)
        else:
            self._announcements.hurry(said.address, now)

    # What is told of it, from any thread.

    def describe(self) -> dict[str, Any]:
        told = dict(self._told)
        if "bids_of" in told:  # worked out here: not where heartbeats wait
            owners = winners(told.pop("bids_of"))
            told["owners"] = {str(one): owners[one] for one in sorted(owners, key=str)}
        return told

    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        return [f"load balancers: {line}" for line in self._told.get("problems", ())]

    def _describe(self, now: float) -> dict[str, Any]:
        return {
            "addresses": sorted(map(str, self._mine)),
            "bids": len(self._membership.said(now).bids),
            "hears": sorted(self._membership.mutual(now)),
            "silent": sorted(self._silent(now)),
            "absent": sorted(self._heartbeats.absent),
            "is_many": self._membership.is_many(now),
            "unfit": self._seams.unfit(),
            "rivals": {str(one): mac for one, mac in self._contest.rivals(now).items()},
            "taken": self._taken,
            "given_up": self._given_up,
            "refused": dict(self._heartbeats.refused),
            "problems": list(self._problems(now)),
            "bids_of": self._membership.bids(now),
        }

    def _problems(self, now: float) -> Iterator[str]:
        yield from filter(None, (self._trouble, self._sessions.trouble))
        yield from self._answers.troubles.values()
        silent = self._silent(now)
        for name in sorted(silent):
            why = self._heartbeats.troubles.get(name, "heartbeats do not pass both ways")
            yield f"node {name} is not heard: {why}"
        if not self._membership.is_many(now):
            total = len(silent) + len(self._membership.mutual(now)) + 1
            yield f"of {total} nodes this one hears less than half: it answers for nothing"
        for address, mac in self._contest.rivals(now).items():
            yield f"{address} is announced by {mac} too, which is none of our nodes that are heard"

    def _silent(self, now: float) -> set[str]:
        return self._others() - self._heartbeats.absent - self._membership.mutual(now)
