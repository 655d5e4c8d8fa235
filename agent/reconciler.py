"""Compare what is promised with what is there: at start, every minute, and when the kernel says so.

No runtime can be trusted to say when a sandbox ends (containerd killed during an ADD sends no
DEL and never calls GC), so this is the node's own garbage collection.  An attachment is alive
as long as its pair is: a namespace takes its end with it when it goes.  What looks dead is
ended only when it was seen so twice, with a grace period in between.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

from agent.search import NETWORK as FOUND
from agent.search import Search, has_ended
from cni import add, attachment, check, delegate, delete, spec
from cni.errors import CNIError
from cni.nat import Published
from cni.node import Node
from cni.spec import Spec
from cni.spool import Entry
from dataplane import rtnl
from dataplane.errors import DataplaneError, InvalidNamespace
from dataplane.links import Links
from dataplane.model import Bandwidth
from dataplane.survey import Surveyed
from ipam.allocator import Allocator
from ipam.errors import IPAMError
from ipam.leases import Attachment, Record, State
from net.address import IPNetwork

log = logging.getLogger(__name__)

_KEY_WAIT_S = 5.0
_REPLAYERS = 16
_ADOPTION = "adoption"
_SEARCH = "search"


@dataclass(frozen=True, slots=True)
class View:
    """The host's links by name, and which of them are attachments' host sides.

    *surveyed* looks into all other namespaces, once.
    """

    links: dict[str, rtnl.Link]
    surveyed: Callable[[], list[Surveyed]]

    def complete(self, name: str) -> bool:
        """A pair whose ADD ended and whose DEL has not begun."""
        link = self.links.get(name)
        return link is not None and bool(link.alias) and link.group != rtnl.DELETE_GROUP

    def ours(self) -> Iterable[rtnl.Link]:
        return (
            link
            for name, link in self.links.items()
            if attachment.is_host_name(name) and link.kind == "veth"
        )


@dataclass(slots=True)
class Report:
    """What one round did; for the log and the metrics."""

    adopted: int = 0
    ended: int = 0
    removed: int = 0
    repaired: int = 0
    failed: int = 0

    def __bool__(self) -> bool:
        return bool(self.adopted or self.ended or self.removed or self.repaired or self.failed)


@dataclass(slots=True)
class Patience:
    """How long to leave alone what failed: each time twice as long, up to a minute."""

    now: Callable[[], int]
    _failed: dict[str, tuple[int, float]] = field(default_factory=dict)

    def is_over(self, what: str) -> bool:
        return self.now() >= self._failed.get(what, (0, 0.0))[0]

    def lose(self, what: str) -> float:
        """Note a failure; returns the seconds until the next try."""
        wait_s = min(60.0, max(1.0, 2 * self._failed.get(what, (0, 0.0))[1]))
        self._failed[what] = self.now() + int(wait_s * 1e9), wait_s
        return wait_s

    def forget(self, what: str) -> None:
        self._failed.pop(what, None)


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
    _patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        self._patience = Patience(self.node.now)

    def start(self) -> Report:
        """Before serving: adopt, undo what a crash cut off, replay deletions, program nftables.

        Raises DataplaneError where links cannot be listed.
        """
        with self._round:
            report = Report()
            view = self._look()
            for record in self.leases.records():
                self._recover(record, view, report)
            if self._adopt(view, report):
                self._search(report)
            self._remove_unfinished(view, report)
            self.replay()
            self._program(report)
            self._sweep_limits(report)
            self._tidy_spool()
            return report

    def round(self) -> Report:
        """Once more, with what is running left alone."""
        with self._round:
            report = Report()
            view = self._look()
            if self._adopt(view, report):
                self._search(report)
            self._end_dead(view, report)
            self._remove_orphans(view, report)
            self._repair(view, report)
            self._program(report)
            self._open_host(report)
            self._sweep_limits(report)
            self._tidy_spool()
            return report

    def _tidy_spool(self) -> None:
        """Remove what launchers that were killed left half written."""
        try:
            self.node.spool.tidy(time.time())
        except OSError as exc:
            log.warning("spool not tidied, will retry", extra={"error": str(exc)})

    def replay(self) -> int:
        """Carry out spooled deletions; those that fail stay for the next time.

        Many at once, as when they come by the socket: they share commits and grace periods.
        """
        try:
            entries = self.node.spool.pending()
        except OSError as exc:
            log.warning("spool cannot be read, will retry", extra={"error": str(exc)})
            return 0
        entries = [entry for entry in entries if self._patience.is_over(str(entry.path))]
        if len(entries) < 2:
            return sum(map(self._replay, entries))
        with ThreadPoolExecutor(_REPLAYERS, "replay") as threads:
            return sum(threads.map(self._replay, entries))

    def _replay(self, entry: Entry) -> bool:
        who = delete.key_of(entry.request)
        try:
            if who is None:
                log.warning("deletion names nobody", extra={"path": str(entry.path)})
                self.node.spool.remove(entry)
                return False
            with self.node.locks.hold(who, timeout=_KEY_WAIT_S) as held:
                if held:
                    delete.replay(entry.request, self.node)
                    self.node.spool.remove(entry)
                    self._patience.forget(str(entry.path))
                return held
        except (CNIError, DataplaneError, IPAMError, OSError) as exc:
            wait_s = self._patience.lose(str(entry.path))
            log.warning(
                "deletion not done, will retry",
                extra={"attachment": str(who), "error": str(exc), "in_s": wait_s},
            )
            return False

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
        return View(links, cache(self.search.survey))

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

    def _adopt(self, view: View, report: Report) -> bool:
        """Take over attachments that the store does not know: it was lost, or is an old copy.

        Returns whether all that there are were looked at and are recorded.
        """
        unrecorded, busy = 0, False
        for link in view.ours():
            if not view.complete(link.name):
                continue
            record = attachment.record_of_alias(link.alias, boot_id=self.node.boot_id)
            if record is None or self.leases.find(record.who):
                continue
            with self.node.locks.hold(record.who, timeout=0) as held:
                # Its DEL may have run since we looked.
                now = self.links.find(link.name) if held else None
                busy = busy or not held
                if now is None or now.alias != link.alias or self.leases.find(record.who):
                    continue
                try:
                    holder = self.leases.adopt(record).result()
                except IPAMError:
                    unrecorded += 1
                    continue
            if holder:
                log.error(
                    "attachment holds what another has",
                    extra={"attachment": str(record.who), "holder": str(holder)},
                )
                report.failed += 1
            else:
                report.adopted += 1
        if unrecorded:
            # Their addresses look free to an allocator that may give some again soon.
            reason = f"{unrecorded} attachments found on this host are not recorded yet"
            log.error("attachments not adopted, ADD is refused", extra={"number": unrecorded})
            self.leases.suspend(reason, by=_ADOPTION)
            report.failed += unrecorded
        else:
            self.leases.resume(by=_ADOPTION)
        return not unrecorded and not busy

    def owe_search(self) -> None:
        """Promise no address until `_search` was made: the store is new, memory knows the links."""
        self.leases.suspend("namespaces are yet to be searched for addresses", by=_SEARCH)

    def _search(self, report: Report) -> None:
        """Take over the addresses that the lost store knew of, and no link of ours does.

        After adoption: what a link tells of is its own attachment's.
        """
        if not self.search.owed:
            return
        self.owe_search()
        held = (address.ip for record in self.leases.records() for address in record.addresses)
        try:
            found = self.search.records(held, boot_id=self.node.boot_id, now_ns=self.node.now())
            adopted = [self.leases.adopt(record) for record in found]
            # None: nobody was in the way.
            report.adopted += [each.result() for each in adopted].count(None)
            self.search.end()
        except (DataplaneError, IPAMError, OSError) as exc:
            log.error("addresses not searched for, ADD is refused", extra={"error": str(exc)})
            report.failed += 1
            return
        log.warning(
            "addresses found in use without a record",
            extra={"addresses": [str(one) for record in found for one in record.addresses]},
        )
        self.leases.resume(by=_SEARCH)

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
        if self._same_namespace(record):
            return True
        # The path may be that of a process which has ended in a namespace that lives on.
        try:
            return record.who.network == FOUND and not has_ended(record, view.surveyed())
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
