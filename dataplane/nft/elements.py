"""Elements of nft sets and maps by raw nfnetlink messages.

One transaction is one datagram: a batch begin, element messages, a batch end; any error and
nothing of it happened.  0.03 ms for a change, whatever the size of the table, where a run of
nft costs 5-12 ms (docs/design).  Numbers in attributes are big-endian throughout nf_tables.
"""

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Self

from dataplane.errors import NetlinkError
from dataplane.netlink import (
    ACK,
    CREATE,
    DUMP,
    Netlink,
    attribute,
    attributes,
    each_attribute,
    message,
    nested,
    text,
)
from dataplane.nft.objects import Element, Family, NamedSet
from dataplane.nft.rules import RawChain, encode, packets

NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFTABLES = 10
NEW_ELEMENT, _GET_ELEMENT, DELETE_ELEMENT, _GET_RULE, _NEW_CHAIN, _GET_CHAIN, _NEW_RULE = (
    _NFTABLES << 8 | number for number in (12, 13, 14, 7, 3, 4, 6)
)
_APPEND = 0x800
_CHAIN_OF_RULE, _CHAIN_NAME, _EXPRESSIONS = 2, 3, 4
_ERROR = 2
_TABLE, _SET, _ELEMENTS, _LIST_MEMBER = 1, 2, 3, 1
_KEY, _DATA, _FLAGS, _EXPIRATION, _USERDATA, _KEY_END = 1, 2, 3, 5, 6, 10
_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2
_GOTO = -4
_INTERVAL_END = 1
_COMMENT = 0  # libnftnl's NFTNL_UDATA_SET_ELEM_COMMENT: type, length, text with its NUL
_PER_MESSAGE = 200  # one nested attribute holds at most 64 KiB; 200 of the largest are 50
_PER_TRANSACTION = 500  # a datagram has to fit the socket's send buffer, 208 KiB by default


class Elements:
    """A socket for elements, of the network namespace of the thread that opened it.

    From one thread at a time.
    """

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    @property
    def port(self) -> int:
        """By which news of its changes are known (`Netlink.news`)."""
        return self._netlink.port()

    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None:
        """Delete, then add: one transaction, or several above five hundred elements.

        Raises NetlinkError, `absent` when table, set or an element to be deleted is not
        there; after several transactions the earlier ones stand.
        """
        changes = [(DELETE_ELEMENT, each) for each in delete]
        changes += [(NEW_ELEMENT, each) for each in add]
        for start in range(0, len(changes), _PER_TRANSACTION):
            self._transact(list(messages(changes[start : start + _PER_TRANSACTION])))

    def observe(self, of: NamedSet) -> set[Element]:
        """All elements of one set; raises NetlinkError, `absent` without the set."""
        body = _header(of.family) + text(_TABLE, of.table) + text(_SET, of.name)
        listed = [
            attributes(member)
            for _, payload in self._netlink.dump(message(_GET_ELEMENT, DUMP, body))
            for _, member in each_attribute(attributes(payload, 4).get(_ELEMENTS, b""))
        ]
        if _has_ends_of_their_own(of):
            return set(_joined(of, listed))
        return {decode(of, each) for each in listed}

    def exists(self, family: Family, table: str, name: str) -> bool:
        """Is there a set of this name?"""
        body = _header(family) + text(_TABLE, table) + text(_SET, name)
        try:
            self._netlink.dump(message(_GET_ELEMENT, DUMP, body))
        except NetlinkError as exc:
            if exc.absent:
                return False
            raise
        return True

    def has_chain(self, family: Family, table: str, name: str) -> bool:
        """Is there a chain of this name, in a table of anybody's?  Raises NetlinkError."""
        body = _header(family) + text(_TABLE, table) + text(_CHAIN_NAME, name)
        try:
            self._netlink.get(message(_GET_CHAIN, 0, body))
        except NetlinkError as exc:
            if exc.absent:
                return False
            raise
        return True

    def rules(self, family: Family, table: str) -> Counter[str]:
        """How many rules each chain of a table has; none for a table that is not there."""
        body = _header(family) + text(_TABLE, table)
        return Counter(
            attributes(payload, 4)[_CHAIN_OF_RULE].rstrip(b"\0").decode()
            for _, payload in self._netlink.dump(message(_GET_RULE, DUMP, body))
        )

    def packets(self, family: Family, table: str, chain: str) -> int:
        """How many packets the counters of a chain's rules have; 0 without it."""
        body = _header(family) + text(_TABLE, table) + text(_CHAIN_OF_RULE, chain)
        return sum(
            packets(found[_EXPRESSIONS])
            for _, payload in self._netlink.dump(message(_GET_RULE, DUMP, body))
            if (found := attributes(payload, 4))[_CHAIN_OF_RULE] == chain.encode() + b"\0"
        )

    def add_chain(self, family: Family, table: str, chain: RawChain) -> None:
        """Make a chain that is not there yet, with its rules, in one transaction.

        Raises NetlinkError.
        """
        head = _header(family)
        made = head + text(_TABLE, table) + text(_CHAIN_NAME, chain.name)
        rules = [
            head + text(_TABLE, table) + text(_CHAIN_OF_RULE, chain.name) + encode(rule)
            for rule in chain.rules
        ]
        members = [message(_NEW_CHAIN, CREATE, made)]
        members += [message(_NEW_RULE, CREATE | _APPEND, each) for each in rules[:-1]]
        members += [message(_NEW_RULE, CREATE | _APPEND | ACK, each) for each in rules[-1:]]
        self._transact(members)

    def _transact(self, members: Sequence[bytes]) -> None:
        # Failures are always answered, so only the last member asks for an acknowledgement;
        # the batch's own messages cannot be asked: kernels before 6.10 do not answer.
        batch = struct.pack(">BBH", 0, 0, _NFTABLES)
        first = self._netlink.send(
            [message(_BATCH_BEGIN, 0, batch), *members, message(_BATCH_END, 0, batch)]
        )
        last, failure = first + len(members), None
        for kind, sequence, payload in self._netlink.receive():
            if kind != _ERROR or not first <= sequence <= last:
                continue
            (number,) = struct.unpack_from("=i", payload)
            if number and failure is None:
                explanation = attributes(payload, 20).get(1, b"").rstrip(b"\0").decode()
                failure = NetlinkError(
                    -number, "nftables transaction", index=sequence - first - 1, text=explanation
                )
            # A failure of the commit itself is answered for the batch begin, before the rest.
            if sequence == last:
                break
        if failure:
            raise failure


def messages(changes: Sequence[tuple[int, Element]]) -> Iterator[bytes]:
    """Changes as (DELETE_ELEMENT or NEW_ELEMENT, element), those of one set in a message.

    All are one transaction, so that of their order only which kind comes first is kept.
    """
    alike: dict[tuple[int, int], list[Element]] = {}
    for kind, each in changes:
        alike.setdefault((kind, id(each.of)), []).append(each)
    parts = [
        (kind, members[0].of, members[start : start + _PER_MESSAGE])
        for (kind, _), members in alike.items()
        for start in range(0, len(members), _PER_MESSAGE)
    ]
    for number, (kind, of, members) in enumerate(parts, 1):
        flags = (CREATE if kind == NEW_ELEMENT else 0) | (ACK if number == len(parts) else 0)
        encode = _member if kind == NEW_ELEMENT else _name
        body = text(_TABLE, of.table) + text(_SET, of.name)
        body += nested(_ELEMENTS, *_listed(of, members, encode))
        yield message(kind, flags, _header(of.family) + body)


def _header(family: Family) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


@lru_cache
def _frame(key: int, data: int, rest: int) -> tuple[bytes, bytes]:
    """What stands before the key and before the data of a member, with these lengths.

    Nearly all members have this form, and attribute by attribute each would cost thrice.
    """
    between = nested(_DATA, attribute(_VALUE, bytes(data)))[:-data] if data else b""
    after = between + bytes(data + rest)
    whole = nested(_LIST_MEMBER, nested(_KEY, attribute(_VALUE, bytes(key))), after)
    return whole[: -(key + len(after))], between


def _member(each: Element) -> bytes:
    if each.of.goes or each.end:
        return nested(_LIST_MEMBER, *_parts(each))
    rest = _commented(each.comment)
    before, between = _frame(len(each.key), len(each.data), len(rest))
    return b"".join((before, each.key, between, each.data, rest))


def _name(each: Element) -> bytes:
    """It without its value, as a deletion wants it."""
    return nested(_LIST_MEMBER, *_key_parts(each))


def _key_parts(each: Element) -> list[bytes]:
    parts = [nested(_KEY, attribute(_VALUE, each.key))]
    if each.end and not _has_ends_of_their_own(each.of):
        parts.append(nested(_KEY_END, attribute(_VALUE, each.end)))
    return parts


def _parts(each: Element) -> list[bytes]:
    parts = _key_parts(each)
    if each.of.goes:
        goto = attribute(_CODE, struct.pack(">i", _GOTO)) + attribute(_CHAIN, each.data + b"\0")
        parts.append(nested(_DATA, nested(_VERDICT, goto)))
    elif each.data:
        parts.append(nested(_DATA, attribute(_VALUE, each.data)))
    return [*parts, _commented(each.comment)]


def _commented(comment: str) -> bytes:
    if not comment:
        return b""
    raw = comment.encode() + b"\0"
    return attribute(_USERDATA, bytes([_COMMENT, len(raw)]) + raw)


def _listed(
    of: NamedSet, members: Sequence[Element], encode: Callable[[Element], bytes]
) -> Iterator[bytes]:
    if not _has_ends_of_their_own(of):
        yield from map(encode, members)
        return
    # Bound after bound, as the kernel looks for overlaps.
    for each in sorted(members, key=lambda each: each.key):
        yield encode(each)
        if end := _end_of(each):
            yield end


def _has_ends_of_their_own(of: NamedSet) -> bool:
    """Intervals of a single field are a tree of bounds; those of several have both in one."""
    return of.interval and len(of.key) == 1


def _end_of(each: Element) -> bytes:
    """The bound just after *each*; the highest of all values has none."""
    after = int.from_bytes(each.end) + 1
    if after >> (8 * len(each.end)):
        return b""
    key = nested(_KEY, attribute(_VALUE, after.to_bytes(len(each.end))))
    return nested(_LIST_MEMBER, key, attribute(_FLAGS, struct.pack(">I", _INTERVAL_END)))


def _joined(of: NamedSet, listed: Sequence[dict[int, bytes]]) -> Iterator[Element]:
    """Elements from the bounds of a tree: a start, and the next end."""

    def is_end(each: dict[int, bytes]) -> bool:
        return bool(int.from_bytes(each.get(_FLAGS, b"")) & _INTERVAL_END)

    starts = sorted((decode(of, each) for each in listed if not is_end(each)), key=lambda e: e.key)
    ends = sorted(decode(of, each).key for each in listed if is_end(each))
    for start in starts:
        place = bisect_right(ends, start.key)
        size = len(start.key)
        after = int.from_bytes(ends[place]) if place < len(ends) else 1 << (8 * size)
        yield replace(start, end=(after - 1).to_bytes(size))


def decode(of: NamedSet, found: dict[int, bytes]) -> Element:
    """The element of *of* with these attributes."""

    def value(kind: int) -> bytes:
        return attributes(found[kind]).get(_VALUE, b"") if kind in found else b""

    userdata = found.get(_USERDATA, b"")
    comment = ""
    if len(userdata) > 1 and userdata[0] == _COMMENT:
        comment = userdata[2 : 2 + userdata[1]].rstrip(b"\0").decode(errors="replace")
    data = value(_DATA)
    if of.goes:
        verdict = attributes(attributes(found[_DATA])[_VERDICT])
        data = verdict.get(_CHAIN, b"").rstrip(b"\0")
    left_ms = int.from_bytes(found.get(_EXPIRATION, b""))
    return Element(of, value(_KEY), value(_KEY_END), data, comment, left_ms)
