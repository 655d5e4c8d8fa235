"""Why ipamd says no; a subclass is what a caller does differently about it."""

from ipam.errors import IPAMError


class Refused(IPAMError):
    """Root of these errors; the message names what was wrong, and what would be allowed."""


class Invalid(Refused):
    """The request could never be right: change it."""


class Unknown(Refused):
    """No such node, pool or block."""


class AlreadyThere(Refused):
    """It was to be made, and it exists."""


class Stale(Refused):
    """The caller's view is older than the store: register, or look, and ask again."""


class Forbidden(Refused):
    """An invariant or a limit is in the way, until somebody changes what is."""


class SecondBoot(Refused):
    """Another boot, or another store, of this node is alive: a cloned disk, or a name twice."""


class Exhausted(Refused):
    """No pool for this node has a free block, or the node has as many as it may."""


class Contended(Refused):
    """Others were quicker each time: try again a little later."""


class Frozen(Refused):
    """The store is not the one that was: claims wait for `isthmus ipam init --recover`."""


class NotReady(Refused):
    """This replica has not seen the store yet, or lost it: try another, or later."""


class NotAllowed(Refused):
    """The caller's certificate does not permit it."""


class Unidentified(NotAllowed):
    """The caller's certificate names nobody we know how to serve."""
