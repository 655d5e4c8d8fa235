"""The node's leases, written behind: nothing is decided by what ipamd has of them."""

from agent.talk import Talk
from ipam.calls import Mirror, MirroredLease
from ipam.leases import Attachment

AT_ONCE = 1000
WHOLE_S = 3600.0


class Teller:
    """One message after another; each has a higher sequence, so one that comes late is nothing."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._sequence: int | None = None
        # Of which store and epoch the mirror is, and whether claims were frozen: another store
        # may have forgotten what it had, and is not known as another before a recovery.
        self._mirrored_in = ("", 0, False)
        self._whole_at = 0.0
        self._told: set[Attachment] = set()

    async def tell_once(self) -> None:
        """Mirror what changed, or all: once in each store and epoch, when frozen, and each hour.

        The latter mends what somebody, or a message from before a recovery, did to the mirror.
        Raises IPAMError.
        """
        own, around = self._talk.blocks.holdings, self._talk.around
        now_in = (own.generation, own.epoch, bool(self._talk.condition.frozen))
        if self._mirrored_in != now_in or around.clock() >= self._whole_at:
            self._sequence = None
        if whole := self._sequence is None:
            # A former run of this agent may have told more than we know of.
            self._sequence = await self._talk.ipamd.mirror(Mirror(sequence=0, **self._talk.me()))
        taken = self._talk.blocks.take_dirty(AT_ONCE if not whole else self._talk.blocks.waiting)
        names = [r.who for r in self._talk.leases.records()] if whole else list(taken)
        leases = tuple(lease for who in names if (lease := self._lease(who)) is not None)
        if not leases and not whole:
            return
        self._sequence += 1
        sequence = self._sequence
        # Told, even where no answer comes: what may be there has to be taken back one day.
        self._told |= {_key(lease) for lease in leases}
        try:
            reached = await self._talk.ipamd.mirror(
                Mirror(sequence=sequence, whole=whole, leases=leases, **self._talk.me())
            )
        except BaseException:
            # It may have been stored, or come late: a higher sequence goes over it.
            self._talk.blocks.put_back(taken)
            self._sequence = None if whole else sequence
            raise
        self._told -= {_key(lease) for lease in leases if lease.gone}
        if reached != sequence:
            self._sequence = None
        elif whole:
            self._mirrored_in = now_in
            self._whole_at = around.clock() + WHOLE_S * (0.75 + 0.5 * around.random.random())

    def _lease(self, who: Attachment) -> MirroredLease | None:
        """What ipamd is to know of *who*: addresses of blocks, or that those it knew are gone."""
        record = self._talk.leases.find(who)
        lease = self._talk.told_of(record) if record else None
        if lease is not None or who not in self._told:
            return lease
        return MirroredLease(
            network=who.network, container_id=who.container_id, ifname=who.ifname, gone=True
        )


def _key(lease: MirroredLease) -> Attachment:
    return Attachment(lease.network, lease.container_id, lease.ifname)
