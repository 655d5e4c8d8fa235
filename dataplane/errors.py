"""What the kernel, or a program that talks to it, can refuse."""

import errno
import os


class DataplaneError(Exception):
    """Root of this package's errors."""


class NetlinkError(DataplaneError):
    """The kernel's answer to one netlink message.

    *index* is the position of the refused message in what was sent at once; *text* is the
    kernel's own explanation (NETLINK_EXT_ACK) or empty, *reason* that or the errno's.
    """

    def __init__(self, number: int, what: str, *, index: int = 0, text: str = "") -> None:
        self.reason = text or os.strerror(number)
        super().__init__(f"{what}: {self.reason}")
        self.errno = number
        self.index = index
        self.text = text

    @property
    def absent(self) -> bool:
        """The object named is not there."""
        return self.errno in (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL)

    @property
    def exists(self) -> bool:
        """The object to be made is there already."""
        return self.errno == errno.EEXIST


class DumpInterrupted(DataplaneError):
    """The kernel changed while it was being listed, five times in a row."""


class InvalidNamespace(DataplaneError):
    """A path or descriptor that is no network namespace."""


class NftUnavailable(DataplaneError):
    """The nft program is missing or does not answer."""


class NftError(DataplaneError):
    """nft refused a ruleset: its first line of complaint, and the ruleset."""

    def __init__(self, complaint: str, script: str = "") -> None:
        super().__init__(complaint)
        self.script = script
