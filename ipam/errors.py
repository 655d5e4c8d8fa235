"""What can go wrong with addresses; a subclass is what a caller does differently about."""

from net.address import IPAddress


class IPAMError(Exception):
    """Root of this package's errors."""


class InvalidRange(IPAMError):
    """A range that no address could come from, or that contradicts another."""


class NoFreeAddress(IPAMError):
    """Every address of a range set is held or excluded; the message names the ranges."""


class NotServed(IPAMError):
    """No address can be given for now; the message says what is waited for."""


class PoolOfAnotherLink(IPAMError):
    """A network of another mode or bridge has addresses of the pool on this node."""


class AddressUnavailable(IPAMError):
    """A requested address that cannot be given; the message names range and holder."""

    def __init__(self, address: IPAddress, reason: str) -> None:
        super().__init__(f"requested address {address} {reason}")
        self.address = address


class StoreUnavailable(IPAMError):
    """The durable store cannot be read or written: nothing may be promised."""


class StoreDamaged(StoreUnavailable):
    """The file is there but is not ours or is corrupt."""


class Conflict(StoreUnavailable):
    """The store is well but refuses this one change: the address belongs to another record."""
