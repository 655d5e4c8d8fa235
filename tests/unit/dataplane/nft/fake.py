"""A table in memory that refuses what the kernel refuses, for tests of what writes tables."""

import errno
from collections.abc import Collection, Sequence
from itertools import combinations

from dataplane.errors import DataplaneError, NetlinkError
from dataplane.nft.objects import Element, Kind, NamedSet
from dataplane.nft.rules import RawChain


class FakeTable:
    """Held by the same contract as `NftTable` (tests/unit/dataplane/nft/contract.py).

    *failures* are raised by the next changes, one each: those in *late* after the change took
    effect.  *transactions* counts what reached the kernel.
    """

    def __init__(self) -> None:
        self.elements: frozenset[Element] | None = None
        self.failures: list[DataplaneError] = []
        self.late: list[DataplaneError] = []
        self.transactions = 0
        self.added: set[str] = set()
        self.counted: dict[str, int] = {}

    def observe(self) -> frozenset[Element] | None:
        return self.elements

    def replace(self, elements: Collection[Element]) -> None:
        self._change(frozenset(elements))

    def exchange(self, elements: Collection[Element]) -> None:
        self.replace(elements)

    def end_exchange(self) -> None:
        """There is no other table: nothing is asked while this one changes."""

    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None:
        if self.elements is None:
            raise NetlinkError(errno.ENOENT, "table")
        places = {_place(each): each for each in self.elements}
        for each in delete:
            if places.pop(_place(each), None) is None:
                raise NetlinkError(errno.ENOENT, f"delete {each}")
        for each in add:
            there = places.setdefault(_place(each), each)
            if there.data != each.data:
                raise NetlinkError(errno.EEXIST, f"add {each}")
        self._change(frozenset(places.values()))

    def chains(self) -> frozenset[str]:
        return frozenset(self.added) if self.elements is not None else frozenset()

    def packets(self, chain: str) -> int:
        return self.counted.get(chain, 0)

    def add_chain(self, chain: RawChain) -> None:
        self.added.add(chain.name)

    def observe_written(self, of: NamedSet) -> set[Element]:
        return {each for each in self.elements or () if each.of == of}

    def remove(self) -> None:
        self.elements = None

    def _change(self, elements: frozenset[Element]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        _refuse_overlaps(elements)
        self.elements = elements
        self.transactions += 1
        if self.late:
            raise self.late.pop(0)


def _place(each: Element) -> tuple[NamedSet, bytes, bytes]:
    return each.of, each.key, each.end


def _refuse_overlaps(elements: Collection[Element]) -> None:
    intervals = [each for each in elements if each.of.interval]
    for one, other in combinations(intervals, 2):
        if one.of == other.of and _overlap(one.of.key, one, other):
            raise NetlinkError(errno.ENOTEMPTY, f"{one} overlaps {other}")


def _overlap(kinds: Sequence[Kind], one: Element, other: Element) -> bool:
    offset = 0
    for kind in kinds:
        part = slice(offset, offset + kind.size)
        if one.end[part] < other.key[part] or other.end[part] < one.key[part]:
            return False
        offset += kind.size
    return True
