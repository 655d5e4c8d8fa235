"""Deletions that nobody was there to carry out: the launcher left them in the spool."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cni import delete
from cni.errors import CNIError
from cni.node import Node
from cni.spool import Entry
from dataplane.errors import DataplaneError
from ipam.errors import IPAMError

log = logging.getLogger(__name__)

_KEY_WAIT_S = 5.0
_REPLAYERS = 16


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
class Replay:
    """Thread-safe but for two replays at once."""

    node: Node
    _patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        self._patience = Patience(self.node.now)

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
            return sum(map(self._one, entries))
        with ThreadPoolExecutor(_REPLAYERS, "replay") as threads:
            return sum(threads.map(self._one, entries))

    def _one(self, entry: Entry) -> bool:
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

    def tidy(self) -> None:
        """Remove what launchers that were killed left half written."""
        try:
            self.node.spool.tidy(time.time())
        except OSError as exc:
            log.warning("spool not tidied, will retry", extra={"error": str(exc)})
