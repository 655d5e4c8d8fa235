"""Keeps the table of the translation in line with pools, nodes and settings.

The last good rules stay where something fails, and until it is known what the pools are.
"""

import logging
from collections.abc import Collection
from typing import Protocol

from dataplane.errors import DataplaneError
from dataplane.nft.objects import Element
from masquerade.model import Told
from masquerade.plan import plan
from masquerade.settings import Settings

log = logging.getLogger(__name__)


class Table(Protocol):
    """See dataplane.nft.table.NftTable."""

    def observe(self) -> frozenset[Element] | None: ...
    def replace(self, elements: Collection[Element]) -> None: ...
    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None: ...
    def remove(self) -> None: ...


class Reconciler:
    """From one thread at a time, but for `doubt`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: frozenset[Element] | None = None
        self._made_of: tuple[Told, Settings] | None = None
        self._removed = False
        self.changes = 0

    @property
    def elements(self) -> int:
        return len(self._known or ())

    def doubt(self) -> None:
        """Look at the kernel anew the next time."""
        self._known, self._removed = None, False

    def reconcile(self, told: Told, settings: Settings | None) -> bool:
        """Bring the table to the plan, with no *settings* away; says whether it changed.

        Raises DataplaneError.
        """
        if settings is None:
            return self._remove()
        if not told.pools or (self._known is not None and self._made_of == (told, settings)):
            return False
        self._made_of = told, settings
        wanted = plan(told, settings)
        known, self._known, self._removed = self._known, None, False
        if known == wanted:
            self._known = wanted
            return False
        changed = self._bring(known, wanted)
        self._known = wanted
        self.changes += changed
        return changed

    def _bring(self, known: frozenset[Element] | None, wanted: frozenset[Element]) -> bool:
        if known is not None:
            try:
                self._table.apply(delete=known - wanted, add=wanted - known)
            except DataplaneError as exc:
                log.info("table not as remembered", extra={"error": str(exc)})
            else:
                return True
        found = self._table.observe()
        if found is None:
            self._table.replace(wanted)
        elif found != wanted:
            self._table.apply(delete=found - wanted, add=wanted - found)
        return found != wanted

    def _remove(self) -> bool:
        if self._removed:
            return False
        self._table.remove()
        had, self._known, self._removed = bool(self._known), None, True
        return had
