"""What `cni.nat` plans, kept up to date one attachment at a time.

Everything here is a function of the calls made; nothing is locked.
"""

from collections import Counter
from collections.abc import Iterable

from cni.nat import Claim, Published, Slot, claims, local, masqueraded_networks
from dataplane.nft.objects import Element, Family
from ipam.leases import Attachment
from net.address import IPNetwork


class Desired:
    """What `plan` says, kept up to date: a change costs what it touches."""

    def __init__(self, published: Iterable[Published] = ()) -> None:
        self._published: dict[Attachment, Published] = {}
        self._claims: dict[Slot, dict[Attachment, Claim]] = {}
        self._networks: Counter[tuple[IPNetwork, ...]] = Counter()
        self._local: frozenset[Element] = frozenset()
        for each in published:
            self.put(each.who, each)

    def find(self, who: Attachment) -> Published | None:
        return self._published.get(who)

    def everybody(self) -> tuple[Published, ...]:
        return tuple(self._published.values())

    def elements(self, family: Family) -> frozenset[Element]:
        """All elements of the table of *family*."""
        won = (each for slot in self._claims for each in self._won(slot))
        return frozenset(each for each in (*won, *self._local) if each.of.family is family)

    def of(self, each: Published) -> frozenset[Element]:
        """The elements that serve *each*: its claims but for those that a later one took."""
        own = frozenset(claim.element for claim in claims(each) if self._wins(claim))
        return own | (self._local & local(masqueraded_networks(each)))

    def put(
        self, who: Attachment, each: Published | None
    ) -> tuple[frozenset[Element], frozenset[Element]]:
        """Make *each* (None: nothing) what *who* wants; returns elements (stale, missing).

        Raises ValueError, and has changed nothing then.
        """
        come = claims(each) if each else ()
        former = self._published.pop(who, None)
        gone = claims(former) if former else ()
        slots = {claim.slot for claim in (*gone, *come)}
        before = {member for slot in slots for member in self._won(slot)} | self._local
        for claim in gone:
            del self._claims[claim.slot][who]
            if not self._claims[claim.slot]:
                del self._claims[claim.slot]
        for claim in come:
            self._claims.setdefault(claim.slot, {})[who] = claim
        if each:
            self._published[who] = each
        self._count(former, each)
        after = {member for slot in slots for member in self._won(slot)} | self._local
        return frozenset(before - after), frozenset(after - before)

    def _count(self, former: Published | None, each: Published | None) -> None:
        known = set(self._networks)
        self._networks.subtract(masqueraded_networks(former) if former else ())
        self._networks.update(masqueraded_networks(each) if each else ())
        self._networks = +self._networks
        if set(self._networks) != known:
            self._local = local(self._networks)

    def _won(self, slot: Slot) -> tuple[Element, ...]:
        rivals = self._claims.get(slot)
        return (max(rivals.values(), key=lambda claim: claim.rank).element,) if rivals else ()

    def _wins(self, claim: Claim) -> bool:
        rivals = self._claims.get(claim.slot, {}).values()
        return all(rival.rank <= claim.rank for rival in rivals)
