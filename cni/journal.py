"""What was published and withdrawn lately, for a reader of stored state that is a little old.

An ADD stores its record and then publishes; a DEL withdraws and then removes its record.  So a
record without a publication is one of an ADD on its way, but a withdrawn attachment's record may
still be there, and a record read before an ADD's was stored lacks what is published by now.
"""

from collections.abc import Iterable

from cni.nat import Published
from ipam.leases import Attachment

_LIMIT = 1000  # more than there are DELs between their withdrawal and the end of their record


class Journal:
    """Not locked: the caller's calls exclude each other."""

    def __init__(self) -> None:
        self._withdrawn: dict[Attachment, None] = {}
        self._published: dict[Attachment, Published] | None = None

    def record(self, who: Attachment, published: Published | None) -> None:
        """Note that *who* has *published* now; None: nothing."""
        self._withdrawn.pop(who, None)
        if self._published is not None:
            self._published.pop(who, None)
        if published is None:
            self._withdrawn[who] = None
            if len(self._withdrawn) > _LIMIT:
                del self._withdrawn[next(iter(self._withdrawn))]
        elif self._published is not None:
            self._published[who] = published

    def begin(self) -> None:
        """Stored state is read from now on."""
        self._published = {}

    def end(self, stored: Iterable[Published]) -> list[Published]:
        """*stored* with all that happened since `begin`, and without whoever was withdrawn."""
        held = {each.who: each for each in stored}
        # A record that is gone cannot bring its attachment back.
        self._withdrawn = {who: None for who in self._withdrawn if who in held}
        current = {who: each for who, each in held.items() if who not in self._withdrawn}
        current |= self._published or {}
        self._published = None
        return list(current.values())
