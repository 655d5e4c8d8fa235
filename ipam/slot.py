"""What is known of one key, in three tenses.

*durable* is what the disk has, *current* what it will have once all that is queued is written,
*leases* what an ADD chose and has not written yet.  An address is free only when none of the
three has it: so nothing is given away before the disk has let go of it.
"""

from dataclasses import dataclass, field

from ipam.leases import Lease, Record
from net.address import IPAddress


@dataclass(slots=True, eq=False)
class Slot:
    """All about one key; *unsettled* counts its changes that are queued.

    *since_ns* is when *leases* were abandoned; None: an ADD is at work.
    """

    durable: Record | None = None
    current: Record | None = None
    leases: tuple[Lease, ...] = ()
    since_ns: int | None = None
    unsettled: int = 0
    addresses: frozenset[IPAddress] = field(default_factory=frozenset)

    def claims(self) -> frozenset[IPAddress]:
        """Return every address that must not be another's."""
        return self.recorded().union(lease.address.ip for lease in self.leases)

    def recorded(self) -> frozenset[IPAddress]:
        """Return the addresses that are in a record."""
        records = (self.durable, self.current)
        return frozenset(one.ip for each in records if each is not None for one in each.addresses)

    def own(self) -> dict[IPAddress, bool]:
        """Return what the next ADD may take up again, and whether it has been in use."""
        recorded = self.current.addresses if self.current is not None else ()
        chosen = {lease.address.ip: lease.reused for lease in self.leases}
        return {one.ip: True for one in recorded} | chosen
