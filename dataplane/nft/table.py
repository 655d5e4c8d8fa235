"""One table of ours: its skeleton by nft, its elements by netlink."""

import threading
from collections.abc import Collection
from itertools import chain

from dataplane.nft.elements import Elements
from dataplane.nft.objects import Element, Skeleton
from dataplane.nft.runner import NftRunner


class NftTable:
    """The kernel's side of a skeleton, in the network namespace of the thread that made it.

    Thread-safe.  `replace` runs nft and has to be called in that namespace.
    """

    def __init__(self, skeleton: Skeleton, runner: NftRunner, elements: Elements) -> None:
        self._skeleton = skeleton
        self._runner = runner
        self._elements = elements
        self._lock = threading.Lock()

    def observe(self) -> frozenset[Element] | None:
        """All its elements; None when it is absent, of another layout, or lost rules."""
        family, name = self._skeleton.family, self._skeleton.name
        with self._lock:
            if not self._elements.exists(family, name, self._skeleton.layout):
                return None
            if self._elements.rules(family, name) != self._skeleton.rules:
                return None
            found = map(self._elements.observe, self._skeleton.sets)
            return frozenset(chain.from_iterable(found))

    def replace(self, elements: Collection[Element]) -> None:
        """Put the table with exactly *elements* in place of what is there, in one transaction."""
        with self._lock:
            self._runner.load(self._skeleton.script(elements))

    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None:
        """Change elements in one transaction; NetlinkError `absent` when the table is not there."""
        with self._lock:
            self._elements.apply(delete=delete, add=add)

    def remove(self) -> None:
        """Delete the table, present or not."""
        head = f"table {self._skeleton.family.name.lower()} {self._skeleton.name}"
        with self._lock:
            self._runner.load(f"add {head}\ndelete {head}\n")
