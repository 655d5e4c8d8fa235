"""What differs between what is there and what shall be, cut into transactions.  Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from dataplane.nft.objects import Element
from proxy.model import ServiceName

PER_TRANSACTION = 400
"""Elements: what is more goes in several, in an order in which each is a good state."""


class Change(NamedTuple):
    """One key of one map: gone, new, or with another value."""

    delete: Element | None
    add: Element | None


def between(found: Iterable[Element], wanted: Iterable[Element]) -> Iterator[Change]:
    """In an order in which a part of them is a good state, too.

    First what is new, then what is other, then what is gone: a verdict never speaks of slots
    that are not there yet, or any more.
    """
    there, goal = ({(e.of.name, e.of.family, e.key, e.end): e for e in each}
                   for each in (found, wanted))  # fmt: skip
    for key, each in goal.items():
        if key not in there:
            yield Change(None, each)
    for key, each in goal.items():
        if key in there and there[key] != each:
            yield Change(there[key], each)
    for key, each in there.items():
        if key not in goal:
            yield Change(each, None)


def chunks(changes: Iterable[Change]) -> Iterator[list[Change]]:
    some: list[Change] = []
    count = 0
    for each in changes:
        own = (each.delete is not None) + (each.add is not None)
        if count + own > PER_TRANSACTION:
            yield some
            some, count = [], 0
        some.append(each)
        count += own
    if some:
        yield some


def gathered(
    changes: Mapping[ServiceName, list[Change]],
) -> Iterator[dict[ServiceName, list[Change]]]:
    """Services together, as many as go in one transaction."""
    some: dict[ServiceName, list[Change]] = {}
    for name, each in changes.items():
        if some and sum(map(len, some.values())) + len(each) > PER_TRANSACTION // 2:
            yield some
            some = {}
        some[name] = each
    if some:
        yield some
