"""One cluster, used by one at a time: a lock held for as long as a command takes.

What runs under the lock inherits that from its environment: a test can bring the cluster up.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.kind.places import LOCK
from tools.kind.progress import say

HELD = "ISTHMUS_KIND_LOCK_HELD"


@contextmanager
def held(path: Path = LOCK) -> Iterator[None]:
    """Wait until nobody else uses the cluster, and keep others waiting meanwhile."""
    if HELD in os.environ:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting: the cluster is in use by {file.read().strip() or 'somebody'}")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()}: {' '.join(sys.argv)[:200]}\n")
        file.flush()
        os.environ[HELD] = str(os.getpid())
        try:
            yield
        finally:
            del os.environ[HELD]
            file.truncate(0)
