"""One lock for each attachment, there only while somebody wants it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ipam.leases import Attachment


class KeyLocks:
    """Verbs of one attachment exclude each other; those of different ones do not."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Attachment, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, who: Attachment, *, timeout: float = -1) -> Iterator[bool]:
        """Hold *who*'s lock for the block; gives False where *timeout* seconds did not do."""
        with self._guard:
            lock, users = self._locks.get(who, (threading.Lock(), 0))
            self._locks[who] = lock, users + 1
        taken = lock.acquire(timeout=timeout)
        try:
            yield taken
        finally:
            if taken:
                lock.release()
            with self._guard:
                lock, users = self._locks[who]
                if users == 1:
                    del self._locks[who]
                else:
                    self._locks[who] = lock, users - 1
