"""The addresses that each named pod had last, for one that comes back to this node."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence

from ipam.holdings import Former, OwnBlock
from ipam.leases import Record
from ipam.store import Stick
from net.address import IPAddress

FORMERS = 4096


class Formers:
    """Those of FORMERS pods, the ones that came last; not thread-safe.

    *pod_of* says whom a record is for, or "".
    """

    def __init__(self, stored: Iterable[Former], pod_of: Callable[[Record], str]) -> None:
        self._pod_of = pod_of
        self._formers = OrderedDict(
            (one.pod, one) for one in sorted(stored, key=lambda one: one.used)
        )
        self._used = max((one.used for one in self._formers.values()), default=0)
        self._unsaved: set[str] = set()
        self._news: list[Record] = []

    def note(self, record: Record) -> None:
        """Take note of a new record, which is looked at later: this is on the path of an ADD."""
        self._news.append(record)

    def of(self, pod: str, blocks: Collection[OwnBlock]) -> tuple[IPAddress, ...]:
        self.digest(blocks)
        former = self._formers.get(pod)
        return former.addresses if former else ()

    def digest(self, blocks: Collection[OwnBlock]) -> None:
        """Remember what was noted, if an address is in one of *blocks*, the node's."""
        news, self._news = self._news, []
        for record in news:
            pod = self._pod_of(record)
            held = tuple(address.ip for address in record.addresses)
            if not pod or not any(ip in block.cidr for ip in held for block in blocks):
                continue
            self._used += 1
            self._formers.pop(pod, None)
            self._formers[pod] = Former(pod, held, self._used)
            self._unsaved.add(pod)
        while len(self._formers) > FORMERS:
            pod, _ = self._formers.popitem(last=False)
            self._unsaved.add(pod)

    def rewrite(self, found: Iterable[Former]) -> None:
        """Have all of it written into a store that has *found*."""
        self._unsaved = {*self._formers, *(one.pod for one in found)}

    def unsaved(self) -> Sequence[Stick]:
        """Return what is to be written, and take it for written."""
        if not self._unsaved:
            return ()
        kept = tuple(self._formers[pod] for pod in self._unsaved if pod in self._formers)
        gone = tuple(pod for pod in self._unsaved if pod not in self._formers)
        self._unsaved = set()
        return (Stick(kept, gone),)
