"""Session affinity: the chains that remember which endpoint a client was given.

After translation, a new connection that came by a sticky chain is remembered: client and
frontend (address, protocol, port) with the endpoint, for the Service's timeout, begun anew by
each connection.  An endpoint that is no longer valid for the frontend is forgotten, and the
packet dropped: the client's next attempt is given another.  Where the map is full it is counted.

As raw rules: nft cannot write them for IPv6 (`dataplane.nft.rules`).
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from dataplane.errors import NetlinkError
from dataplane.nft import rules
from dataplane.nft.objects import Element, NamedSet
from dataplane.nft.rules import Expression, RawChain
from net.address import IPAddress
from proxy import tables
from proxy.plan import Backend, Frontend, backend_of, key_of
from proxy.tables import MAPS, affinity_map

MAP = "affinity"
_OVERFLOW = "overflow"
_SOURCE = {4: 12, 6: 8}
_DESTINATION = {4: 16, 6: 24}
_SIZE = {4: 4, 6: 16}


class Table(Protocol):
    """One family's table; raises DataplaneError."""

    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None: ...
    def chains(self) -> frozenset[str]: ...
    def add_chain(self, chain: RawChain) -> None: ...
    def packets(self, chain: str) -> int: ...
    def observe_written(self, of: NamedSet) -> set[Element]: ...


class Affinity:
    """What elements of sticky Services need of a table beside themselves."""

    def __init__(self, table: Table, version: int) -> None:
        self._table = table
        self._version = version
        self._chains: frozenset[str] | None = None

    def prepare(self, coming: Iterable[Element]) -> None:
        """Make the chains that *coming* elements go to.  Raises DataplaneError."""
        maps = MAPS[self._version]
        wanted = {
            each.data.decode(): each.of is maps.nodeport_affinity_of
            for each in coming
            if each.of in (maps.affinity_of, maps.nodeport_affinity_of)
        }
        if not wanted:
            return
        if self._chains is None:
            self._chains = self._table.chains()
        for chain in (forget_chain(self._version), RawChain(_OVERFLOW, ((rules.count(),),))):
            if chain.name not in self._chains:
                self._add(chain)
        for name in wanted.keys() - self._chains:
            seconds = int(name.rpartition("-")[2])
            self._add(timeout_chain(self._version, seconds, is_nodeport=wanted[name]))

    def look_again(self) -> None:
        """The table may be another than it was."""
        self._chains = None

    def forget(self, gone: Iterable[Element]) -> None:
        """Forget clients of endpoints that are *gone*: else each would lose its next packet.

        What a client remembers may run out meanwhile: one by one, and absence is fine.
        """
        maps = MAPS[self._version]
        # Of a NodePort the map has the address that was asked, the set of valid ones has none.
        stale = {
            each.key
            for each in gone
            if each.of in (maps.affinity_valid, maps.nodeport_affinity_valid)
        }
        if not stale:
            return
        for each in self._table.observe_written(affinity_map(self._version)):
            frontend = each.key[_SIZE[self._version] :]
            ends = (frontend + each.data, frontend[_SIZE[self._version] :] + each.data)
            if not stale.isdisjoint(ends):
                self._drop(each)

    def overflown(self) -> int:
        """How many connections could not be remembered, the map being full."""
        return self._table.packets(_OVERFLOW)

    def remembered(self, client: IPAddress, asked: Frontend) -> Backend | None:
        """Which endpoint *client* has of *asked*, a frontend with the address that it sent to."""
        key = client.packed + key_of(asked)
        for each in self._table.observe_written(affinity_map(self._version)):
            if each.key == key:
                return backend_of(each.data)
        return None

    def all_remembered(self) -> Collection[Element]:
        """All that clients have, where the map has the form that we know."""
        size = _SIZE[self._version]
        form = 2 * size + 8, size + 4
        try:
            found = self._table.observe_written(affinity_map(self._version))
            return [each for each in found if (len(each.key), len(each.data)) == form]
        except NetlinkError as exc:
            if exc.absent:
                return []
            raise

    def _drop(self, each: Element) -> None:
        try:
            self._table.apply(delete=[each])
        except NetlinkError as exc:
            if not exc.absent:
                raise

    def _add(self, chain: RawChain) -> None:
        self._table.add_chain(chain)
        assert self._chains is not None
        self._chains |= {chain.name}


def timeout_chain(version: int, seconds: int, *, is_nodeport: bool) -> RawChain:
    """The chain that remembers for *seconds*; NodePorts have a set of valid endpoints apart."""
    prefix = "nodeport-" if is_nodeport else ""
    words = _SIZE[version] // 4
    # Valid endpoints: [address] protocol port, endpoint's address and port.
    first = 0 if is_nodeport else words
    check = [
        *([] if is_nodeport else [rules.original_destination(version, to=0)]),
        rules.transport_protocol(to=first),
        rules.original_port(to=first + 1),
        rules.network_header(_DESTINATION[version], _SIZE[version], to=first + 2),
        rules.transport_header(2, 2, to=first + 2 + words),
        rules.found_in(f"{prefix}affinity-valid", at=0, inverted=True),
        rules.goto("forget"),
    ]
    after = 2 * words + 2
    remember = [
        *_client(version),
        rules.network_header(_DESTINATION[version], _SIZE[version], to=after),
        rules.transport_header(2, 2, to=after + words),
        rules.update(MAP, key=0, data=after, timeout_ms=seconds * 1000),
        rules.leave(),  # only where there was room
    ]
    return RawChain(
        tables.timeout_chain(seconds, is_nodeport=is_nodeport),
        (tuple(check), tuple(remember), (rules.goto(_OVERFLOW),)),
    )


def forget_chain(version: int) -> RawChain:
    forget = (*_client(version), rules.remove(MAP, key=0))
    return RawChain("forget", (forget, (rules.drop(),)))


def _client(version: int) -> Iterator[Expression]:
    """The key of the map: client, and the frontend that it asked."""
    words = _SIZE[version] // 4
    yield rules.network_header(_SOURCE[version], _SIZE[version], to=0)
    yield rules.original_destination(version, to=words)
    yield rules.transport_protocol(to=2 * words)
    yield rules.original_port(to=2 * words + 1)
