"""What Services have, by address and by Service, as far as one view has seen it.  Does no I/O."""

from ipam.cluster import AddressRecord, ServiceRecord
from ipam.keys import alone
from net.address import IPAddress, IPNetwork


class Given:
    """Both ways to look at it are written together, and read apart: see `ipam check`."""

    def __init__(self) -> None:
        self.addresses: dict[IPAddress, AddressRecord] = {}
        self.services: dict[str, ServiceRecord] = {}

    def has(self, cidr: IPNetwork) -> bool:
        """Tell whether *cidr* is one address, and a Service's."""
        is_one = cidr.prefixlen == cidr.max_prefixlen
        return is_one and cidr.network_address in self.addresses

    def learn(self, record: AddressRecord | ServiceRecord) -> tuple[IPNetwork, ...]:
        """Return which address is taken now, if it tells of one."""
        if isinstance(record, AddressRecord):
            self.addresses[record.address] = record
            return (alone(record.address),)
        self.services[record.service] = record
        return ()

    def forget(self, record: AddressRecord | ServiceRecord) -> tuple[IPNetwork, ...]:
        """Return which address is free now."""
        if isinstance(record, AddressRecord):
            del self.addresses[record.address]
            return (alone(record.address),)
        del self.services[record.service]
        return ()
