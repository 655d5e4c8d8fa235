"""One table of ours: its skeleton by nft, its elements by netlink."""

import threading
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from itertools import chain
from typing import Protocol

from dataplane.errors import NetlinkError, NftError
from dataplane.nft.objects import Element, Family, NamedSet, Skeleton
from dataplane.nft.rules import RawChain


class Runner(Protocol):
    """Applies nft scripts."""

    def load(self, script: str, *, check: bool = False) -> None: ...


class Elements(Protocol):
    """Reads and changes elements."""

    def exists(self, family: Family, table: str, name: str) -> bool: ...
    def rules(self, family: Family, table: str) -> Counter[str]: ...
    def packets(self, family: Family, table: str, chain: str) -> int: ...
    def add_chain(self, family: Family, table: str, chain: RawChain) -> None: ...
    def observe(self, of: NamedSet) -> set[Element]: ...
    def apply(self, *, delete: Collection[Element], add: Collection[Element]) -> None: ...


class NftTable:
    """The kernel's side of a skeleton, in the network namespace that *elements* speaks to.

    Thread-safe.  `replace`, `remove` and `probe` run nft and have to be called by a thread in
    that namespace.
    """

    def __init__(self, skeleton: Skeleton, runner: Runner, elements: Elements) -> None:
        self._skeleton = skeleton
        self._runner = runner
        self._elements = elements
        self._lock = threading.Lock()

    def observe(self) -> frozenset[Element] | None:
        """All its elements but those that packets wrote.

        None when it is absent, of another layout, or lost rules.

        Raises NetlinkError, DumpInterrupted.
        """
        family, name = self._skeleton.family, self._skeleton.name
        with self._lock:
            if not self._elements.exists(family, name, self._skeleton.layout):
                return None
            there = self._elements.rules(family, name)
            if any(there[chain.name] != len(chain.rules) for chain in self._skeleton.chains):
                return None
            try:
                found = [
                    self._elements.observe(each)
                    for each in self._skeleton.sets
                    if not each.is_written_by_packets
                ]
            except NetlinkError as exc:
                if exc.absent:
                    return None
                raise
            return frozenset(chain.from_iterable(found))

    def observe_written(self, of: NamedSet) -> set[Element]:
        """The elements of one set that packets write.  Raises NetlinkError."""
        with self._lock:
            return self._elements.observe(of)

    def chains(self) -> frozenset[str]:
        """The chains that have a rule.  Raises NetlinkError."""
        with self._lock:
            return frozenset(self._elements.rules(self._skeleton.family, self._skeleton.name))

    def packets(self, chain: str) -> int:
        """How many packets the counters of one chain have.  Raises NetlinkError."""
        with self._lock:
            return self._elements.packets(self._skeleton.family, self._skeleton.name, chain)

    def add_chain(self, chain: RawChain) -> None:
        """Add a chain beyond the skeleton's.  Raises NetlinkError."""
        with self._lock:
            self._elements.add_chain(self._skeleton.family, self._skeleton.name, chain)

    def replace(self, elements: Collection[Element]) -> None:
        """Put the table with exactly *elements* in place of what is there, in one transaction.

        Raises NftUnavailable, NftError.
        """
        self._load(self._skeleton.script(elements))

    def exchange(self, elements: Collection[Element]) -> None:
        """`replace` what works, under packets that begin connections.

        While the kernel commits, a packet on its way by former rules finds their sets empty, and
        new sets of intervals are filled last (net/netfilter/nf_tables_api.c).  So another table
        of the same content answers meanwhile, and is asked only while all its elements are there.

        Raises NftUnavailable, NftError, NetlinkError.
        """
        other = self._skeleton.stand_in
        with ExitStack() as undo:
            undo.callback(self.end_exchange)
            self._load(other.unasked.script(elements))
            self._load(other.opening())
            self.replace(elements)

    def end_exchange(self) -> None:
        """Take away the other table of an exchange, also of one that was cut off.

        Raises NftUnavailable, NftError, NetlinkError.
        """
        self._take_away(self._skeleton.stand_in)

    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None:
        """Change elements in one transaction; NetlinkError `absent` when the table is not there."""
        with self._lock:
            self._elements.apply(delete=delete, add=add)

    def remove(self) -> None:
        """Delete the table, of whatever layout; where there is none, nft is not needed.

        Raises NetlinkError, NftUnavailable, NftError.
        """
        self._take_away(self._skeleton)
        self.end_exchange()

    def probe(self) -> None:
        """Ask whether this kernel and this nft would take the table, changing nothing.

        Raises NftUnavailable, NftError.
        """
        self._load(self._skeleton.script(), check=True)

    def _take_away(self, table: Skeleton) -> None:
        """The rules first: by them a packet on its way would find the sets empty, and be refused
        where another table would have translated it."""
        if self._is_there(table):
            self._load(table.closing())
            self._load(table.removal())

    def _is_there(self, table: Skeleton) -> bool:
        """Of whatever layout, as long as it has rules."""
        family, name = table.family, table.name
        with self._lock:
            return bool(self._elements.rules(family, name)) or self._elements.exists(
                family, name, table.layout
            )

    def _load(self, script: str, *, check: bool = False) -> None:
        with self._lock:
            try:
                self._runner.load(script, check=check)
            except NftError as exc:
                raise NftError(f"table {self._skeleton.head}: {exc}", exc.script) from exc
