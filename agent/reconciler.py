"""Compare what is promised with what is there: at start, every minute, and when the kernel says so.

No runtime can be trusted to say when a sandbox ends (containerd killed during an ADD sends no
DEL and never calls GC), so this is the node's own garbage collection.  An attachment is alive
as long as its pair is: a namespace takes its end with it when it goes.  What looks dead is
ended only when it was seen so twice, with a grace period in between.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from agent.adoption import Adoption
from agent.replay import Replay
from agent.rounds import Report, View
from agent.search import NETWORK as FOUND
from agent.search import Search, has_ended
from cni import add, attachment, check, delegate, delete, former, spec
from cni.errors import CNIError
from cni.nat import Published
from cni.node import Node
from cni.spec import Spec
from dataplane import rtnl
from dataplane.errors import DataplaneError, InvalidNamespace
from dataplane.links import Links
from dataplane.model import Bandwidth
from ipam.allocator import Allocator
from ipam.errors import IPAMError
from ipam.leases import Attachment, Record, State
from net.address import IPNetwork

log = logging.getLogger(__name__)

_KEY_WAIT_S = 5.0


@dataclass(slots=True)
class Reconciler:
    """One for a node; rounds exclude each other.  *grace_s* is in seconds."""

    node: Node
    leases: Allocator
    links: Links
    resync: Callable[[Callable[[], Iterable[Published]]], int]
    grace_s: float
    search: Search = field(default_factory=Search)
    _suspects: dict[str, int] = field(default_factory=dict)
    _round: threading.Lock = field(default_factory=threading.Lock)
    _replay: Replay = field(init=False)
    _adoption: Adoption = field(init=False)

    def __post_init__(self) -> None:
        self._replay = Replay(self.node)
        self._adoption = Adoption(self.node, self.leases, self.links, self.search)

    def start(self) -> Report:
        """Before serving: adopt, undo what a crash cut off, replay deletions, program nftables.

        Raises DataplaneError where links cannot be listed.
        """
        with self._round:
            report = Report()
            view = self._look()
            for record in self.leases.records():
                self._recover(record, view, report)
            self._adoption.adopt(view, report)
            self._remove_unfinished(view, report)
            self._replay.replay()
            self._program(report)
            self._sweep_limits(report)
            self._replay.tidy()
            return report

    def round(self) -> Report:
        """Once more, with what is running left alone."""
        with self._round:
            report = Report()
            view = self._look()
            self._adoption.adopt(view, report)
            self._end_dead(view, report)
            self._remove_orphans(view, report)
            self._repair(view, report)
            self._program(report)
            self._open_host(report)
            self._sweep_limits(report)
            self._replay.tidy()
            return report

    def replay(self) -> int:
        """Carry out spooled deletions; see Replay."""
        return self._replay.replay()

    def owe_search(self) -> None:
        """Promise no address until namespaces were searched; see Adoption."""
        self._adoption.owe_search()

    def check(self) -> list[str]:
        """Every difference between memory, disk, links and namespaces; changes nothing."""
        with self._round:
            faults = self.leases.check()
            view = self._look()
            known = set()
            for record in self.leases.records():
                known.add(attachment.host_name(record.who))
                if record.state is State.HELD:
                    faults += self._faults(record, view)
            faults += [
                f"link {link.name} belongs to no attachment ({link.alias or 'no alias'})"
                for link in view.ours()
                if link.name not in known
            ]
            return faults

    def is_alive(self, record: Record) -> bool:
        """Whether the sandbox of *record* is still there: the same one."""
        return self._is_alive(record, spec.of(record), self._look())

    def release(self, who: Attachment) -> None:
        """End *who* on an operator's word."""
        with self.node.locks.hold(who):
            record = self.node.leases.find(who)
            if record:
                self._end(record)

    def _look(self) -> View:
        links = {link.name: link for link in self.links.all()}
        return View(links, cache(self.search.survey), cache(partial(former.reserved, self.node)))

    def _program(self, report: Report) -> None:
        """Bring nftables in line; without it, what needs none goes on."""
        try:
            report.repaired += self.resync(self._published)
        except (DataplaneError, ValueError) as exc:
            log.warning("nftables not in line, will retry", extra={"error": str(exc)})
            report.failed += 1

    def _open_host(self, report: Report) -> None:
        """Put settings of the host back that attachments need and somebody changed."""
        for record in self.leases.records():
            what = spec.of(record)
            if record.state is not State.HELD or not what.link:
                continue
            name = attachment.host_name(record.who)
            try:
                add.forward(what, self.node)
                if what.port_mappings and self.links.find(name):
                    add.let_localhost_in(what, name, self.node)
            except DataplaneError as exc:
                log.warning(
                    "settings not in line, will retry",
                    extra={"attachment": str(record.who), "error": str(exc)},
                )
                report.failed += 1

    def _sweep_limits(self, report: Report) -> None:
        """Put limits back where somebody took them, and take away those of pairs that are gone."""
        try:
            report.removed += len(self.node.host.sweep_limits(self._limited))
            for name, limits in self._limited().items():
                if self.links.find(name) and not self.node.host.shaped(name, limits):
                    self.node.host.shape(name, limits)
                    report.repaired += 1
        except DataplaneError as exc:
            log.warning("rate limits not in line, will retry", extra={"error": str(exc)})
            report.failed += 1

    def _limited(self) -> dict[str, Bandwidth]:
        return {
            attachment.host_name(record.who): limits
            for record in self.leases.records()
            if record.state is State.HELD and (limits := spec.of(record).bandwidth)
        }

    def _published(self) -> list[Published]:
        found = []
        for record in self.leases.records():
            what = spec.of(record)
            needs = what.masquerade or what.port_mappings or what.mac_spoof_check
            if record.state is State.HELD and what.link and needs:
                found.append(attachment.published(record, what, self.node.pools))
        return found

    def _recover(self, record: Record, view: View, report: Report) -> None:
        """One record as the last life of this agent left it."""
        if record.boot_id != self.node.boot_id:
            self._try(self._end, record, report)  # nothing outlives a boot
            return
        is_link = record.state is State.HELD and spec.of(record).link
        if is_link and not view.complete(attachment.host_name(record.who)):
            self._try(self._abandon, record, report)

    def _abandon(self, record: Record) -> None:
        what = spec.of(record)
        with self.node.locks.hold(record.who):
            if what.delegate:
                delegate.tell_end(what.delegate, record.who)
            add.abandon(record.who, self.node)

    def _remove_unfinished(self, view: View, report: Report) -> None:
        """At start no ADD is running: a pair without its alias is nobody's."""
        for link in view.ours():
            if not view.complete(link.name):
                self._try_name(link.name, report)

    def _remove_orphans(self, view: View, report: Report) -> None:
        """While serving, such a pair may be one just being made: it has to be seen twice."""
        orphans = {link.name for link in view.ours() if not view.complete(link.name)}
        owners = {attachment.host_name(record.who): record.who for record in self.leases.records()}
        for name in orphans:
            if self._is_over(f"link {name}"):
                self._remove_orphan(name, owners.get(name), report)
        self._forget_suspects("link ", orphans)

    def _remove_orphan(self, name: str, who: Attachment | None, report: Report) -> None:
        """Remove a pair unless somebody works on it: an ADD that hung is no orphan's."""
        if who is None:
            self._try_name(name, report)
            return
        with self.node.locks.hold(who, timeout=0) as held:
            now = self.links.find(name) if held else None
            if now is not None and not now.alias:
                self._try_name(name, report)

    def _try_name(self, name: str, report: Report) -> None:
        try:
            self.links.detach(name)
            report.removed += 1
        except DataplaneError as exc:
            log.warning("link not removed, will retry", extra={"link": name, "error": str(exc)})
            report.failed += 1

    def _end_dead(self, view: View, report: Report) -> None:
        dead = set()
        for record in self.leases.records():
            what = spec.of(record)
            if record.state is not State.HELD or self._is_alive(record, what, view):
                continue
            name = f"attachment {record.who} {record.started_ns}"
            dead.add(name.removeprefix("attachment "))
            if self._is_over(name):
                self._try(self._end_if_still_dead, record, report)
        self._forget_suspects("attachment ", dead)

    def _end_if_still_dead(self, record: Record) -> None:
        with self.node.locks.hold(record.who, timeout=_KEY_WAIT_S) as held:
            now = self.leases.find(record.who) if held else None
            if now is None or now.started_ns != record.started_ns:
                return
            if self._is_alive(now, spec.of(now), self._look()):
                return
            self._end(now)

    def _end(self, record: Record) -> None:
        delete.end_unasked(record, self.node)
        log.info("dead attachment ended", extra={"attachment": str(record.who)})

    def _is_alive(self, record: Record, what: Spec, view: View) -> bool:
        if record.boot_id != self.node.boot_id:
            return False
        if what.link:
            return view.complete(attachment.host_name(record.who))
        if what.former and any(one.ip in view.reserved() for one in record.addresses):
            return True
        if (record.netns_cookie or not what.former) and self._same_namespace(record):
            return True
        # The path may be that of a process which has ended in a namespace that lives on.
        try:
            is_foreign = what.former or record.who.network == FOUND
            return is_foreign and not has_ended(record, view.surveyed())
        except DataplaneError:
            return True

    def _same_namespace(self, record: Record) -> bool:
        """By its cookie: an inode may be another namespace's by now.  Without one, say yes."""
        if not record.netns_cookie:
            return True
        try:
            with self.node.open_sandbox(record.sandbox, None) as pod:
                return pod.cookie == record.netns_cookie
        except (InvalidNamespace, OSError):
            return False

    def _is_over(self, name: str) -> bool:
        """Whether *name* was suspect before, and for longer than the grace period."""
        now = self.node.now()
        first = self._suspects.setdefault(name, now)
        return first != now and now - first >= self.grace_s * 1e9

    def _forget_suspects(self, prefix: str, still: set[str]) -> None:
        for name in [n for n in self._suspects if n.startswith(prefix)]:
            if name.removeprefix(prefix) not in still:
                del self._suspects[name]

    def _repair(self, view: View, report: Report) -> None:
        """Bring host sides, bridges and host routes back to what they were made as."""
        routes = self.links.host_routes()
        for record in self.leases.records():
            what = spec.of(record)
            name = attachment.host_name(record.who)
            if record.state is State.HELD and what.link and view.complete(name):
                self._repair_one(record, what, view.links[name], routes, report)

    def _repair_one(
        self,
        record: Record,
        what: Spec,
        link: rtnl.Link,
        routes: dict[IPNetwork, int],
        report: Report,
    ) -> None:
        wanted = attachment.plan(
            record.who, what, started_ns=record.started_ns, seed=self.node.seed
        )
        try:
            faults = check.host_faults(wanted, self.node, link=link, routes=routes)
            if not faults:
                return
            with self.node.locks.hold(record.who, timeout=0) as held:
                if not held or self.leases.find(record.who) != record:
                    return
                self.links.forget_bridges()
                self.links.repair(wanted)
            log.warning("drift repaired", extra={"attachment": str(record.who), "faults": faults})
            report.repaired += 1
        except DataplaneError as exc:
            log.warning(
                "drift not repaired, will retry",
                extra={"attachment": str(record.who), "error": str(exc)},
            )
            report.failed += 1

    def _faults(self, record: Record, view: View) -> list[str]:
        what = spec.of(record)
        if not self._is_alive(record, what, view):
            return [f"{record.who} holds {_list(record.addresses)} but its sandbox is gone"]
        return []

    @staticmethod
    def _try(step: Callable[[Record], None], record: Record, report: Report) -> None:
        try:
            step(record)
            report.ended += 1
        except (CNIError, DataplaneError, IPAMError) as exc:
            log.warning(
                "attachment not ended, will retry",
                extra={"attachment": str(record.who), "error": str(exc)},
            )
            report.failed += 1


def _list(addresses: Sequence[object]) -> str:
    return ", ".join(map(str, addresses)) or "no address"
