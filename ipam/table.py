"""The cluster's table of blocks and its pools, as an agent was streamed them, and keeps them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ipam.calls import TableRow, Update
from ipam.store import Snapshot, Tabulate
from net.address import IPNetwork


class Table:
    """Begins as a former life of the agent stored it; not thread-safe."""

    def __init__(self, stored: Snapshot) -> None:
        self._rows = {row.cidr: row for row in stored.rows}
        self._stored_rows = dict(self._rows)
        self._missed: dict[IPNetwork, TableRow] = {}
        self.pools = self._stored_pools = stored.pools

    @property
    def rows(self) -> Mapping[IPNetwork, TableRow]:
        """Each change makes another mapping, so one that was taken stays as it is."""
        return MappingProxyType(self._rows)

    @property
    def remembered(self) -> tuple[TableRow, ...]:
        """The rows, and those that whole tables lacked, until `trust`."""
        return tuple({**self._missed, **self._rows}.values())

    def trust(self) -> None:
        """What went from the table is gone."""
        self._missed = {}

    def streamed(self, update: Update) -> None:
        """Take note of what became of it."""
        kept = {} if update.whole else dict(self._rows)
        if update.whole:
            self._missed |= self._rows
        for cidr in update.gone:
            kept.pop(cidr, None)
        self._rows = kept | {row.cidr: row for row in update.rows}
        if update.with_pools:
            self.pools = update.pools

    def rewrite(self, found: Snapshot) -> None:
        """Have it written into a store that has *found*."""
        self._stored_rows = {row.cidr: row for row in found.rows}
        self._stored_pools = found.pools

    def unsaved(self) -> Sequence[Tabulate]:
        """Return what is to be written, and take it for written."""
        if self._rows == self._stored_rows and self.pools == self._stored_pools:
            return ()
        gone = tuple(cidr for cidr in self._stored_rows if cidr not in self._rows)
        rows = tuple(r for c, r in self._rows.items() if self._stored_rows.get(c) != r)
        pools = None if self.pools == self._stored_pools else self.pools
        self._stored_rows, self._stored_pools = dict(self._rows), self.pools
        return (Tabulate(rows, gone, pools),)
