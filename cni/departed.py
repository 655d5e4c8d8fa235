"""Which deletions came before their ADD did: an agent that hung finds both in its queue.

Start times decide between the two, not the order in which the queue is emptied.  A deletion
that ends an attachment needs no memory; one that finds nothing is remembered for as long as an
older ADD may still be waiting.
"""

import threading
from collections import OrderedDict

from ipam.leases import Attachment

# Beyond what any launcher waits for: 5 s to connect and 25 s for the answer.
_KEPT_NS = 60_000_000_000


class Departed:
    """When the last deletion of a key started that found nothing; thread-safe.

    Times are CLOCK_BOOTTIME in nanoseconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: OrderedDict[Attachment, tuple[int, int]] = OrderedDict()

    def note(self, who: Attachment, started_ns: int, *, now_ns: int) -> None:
        """Remember a deletion of *who*; forget those that no ADD can be older than any more."""
        with self._lock:
            last, _ = self._started.pop(who, (0, 0))
            self._started[who] = max(last, started_ns), now_ns
            while next(iter(self._started.values()))[1] < now_ns - _KEPT_NS:
                self._started.popitem(last=False)

    def since(self, who: Attachment, started_ns: int) -> bool:
        """Whether a deletion of *who* started after *started_ns*."""
        with self._lock:
            last, _ = self._started.get(who, (0, 0))
            return last > started_ns
