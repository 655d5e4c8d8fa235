"""Attachments that the store does not know: it was lost, or is an older copy.

Links tell of their own attachments by their alias; what other plugins' interfaces have is looked
for in all namespaces, once, after a loss, and on a node where another plugin was before.
"""

import logging
from dataclasses import dataclass
from ipaddress import ip_network

from agent.rounds import Report, View
from agent.search import NETWORK, Search
from cni import attachment, former, spec
from cni.node import Node
from dataplane.errors import DataplaneError
from dataplane.links import Links
from ipam.allocator import Allocator
from ipam.errors import IPAMError
from ipam.leases import Record
from net.address import IPAddress

log = logging.getLogger(__name__)

_ADOPTION = "adoption"
_SEARCH = "search"


@dataclass(slots=True)
class Adoption:
    """No address is promised while something may be in use that is not recorded."""

    node: Node
    leases: Allocator
    links: Links
    search: Search

    def adopt(self, view: View, report: Report) -> None:
        """Take over what links tell of, and then what namespaces do, if the store was lost."""
        if self._adopt_links(view, report):
            self._adopt_former(report)
            self._search(report)

    def _adopt_links(self, view: View, report: Report) -> bool:
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

    def _adopt_former(self, report: Report) -> None:
        """Hold what host-local gave, and have files of ours in its directory."""
        if (shared := self.node.host_local) is None:
            return
        try:
            adopted, faults = former.hold(shared.others(), self.node)
            own = {one.ip: record.who for record in self._given() for one in record.addresses}
            networks = {one.network for record in self._given() for one in record.addresses}
            shared.keep(own, {*networks, *self.node.pools}, self._is_free)
        except OSError as exc:
            adopted, faults = 0, [str(exc)]
        report.adopted += adopted
        report.failed += len(faults)
        for fault in faults:
            log.error("addresses of another plugin", extra={"error": fault})

    def _given(self) -> list[Record]:
        """What we gave ourselves."""
        return [
            record
            for record in self.leases.records()
            if record.who.network != NETWORK and not spec.of(record).former
        ]

    def _is_free(self, address: IPAddress) -> bool:
        return self.leases.count([ip_network(address)]) == [0]

    def owe_search(self) -> None:
        """Promise no address until namespaces are searched: the store is new."""
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
