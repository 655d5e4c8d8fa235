"""Every step by which a node changes something, or asks, counted; one of them can be made to fail.

A step is a call of one of the CHOKES, known by its label and its number among those of its label
since counting began: that is the same in every run, though the disk works beside the kernel.
A fault strikes before its step takes effect or after it did.
"""

import errno
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cni.spool import Spool
from dataplane.announce import AnnouncementFailed
from dataplane.conntrack import Conntrack
from dataplane.errors import NetlinkError, NftError
from dataplane.links import Links
from dataplane.netlink import Netlink
from dataplane.nft.elements import Elements
from dataplane.nft.runner import NftRunner
from dataplane.sysctl import FileLedger, SysctlRefused, Sysctls
from ipam.errors import StoreUnavailable
from ipam.sqlite import SQLiteStore


class When(StrEnum):
    """On which side of its step a fault strikes."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """The *number*th call, from one, of the choke point *label*."""

    label: str
    number: int

    def __str__(self) -> str:
        return f"{self.label} {self.number}"

    @property
    def sides(self) -> tuple[When, ...]:
        """Asking has no effect, so it makes no difference on which side it fails."""
        return (When.BEFORE,) if self.label in ("Netlink.get", "Netlink.dump") else tuple(When)


def _netlink_failure() -> Exception:
    return NetlinkError(errno.EIO, "test fault")


CHOKES: tuple[tuple[type, str, Callable[[], Exception]], ...] = (
    (Netlink, "transact", _netlink_failure),
    (Netlink, "get", _netlink_failure),
    (Netlink, "dump", _netlink_failure),
    (Elements, "apply", _netlink_failure),
    (NftRunner, "load", lambda: NftError("test fault")),
    (SQLiteStore, "commit", lambda: StoreUnavailable("test fault")),
    (Sysctls, "_write", lambda: SysctlRefused("test fault")),
    (FileLedger, "record", lambda: SysctlRefused("test fault")),
    (Conntrack, "flush_address", _netlink_failure),
    (Conntrack, "flush_port", _netlink_failure),
    (Links, "announce", lambda: AnnouncementFailed("test fault")),
    (Spool, "remove", lambda: OSError(errno.EIO, "test fault")),
)


@dataclass
class Faults:
    """What happened since `count`, and the one fault to come, if any: an error, or SIGKILL."""

    steps: list[Step] = field(default_factory=list)
    at: tuple[Step, When] | None = None
    deadly: bool = False
    counting: bool = False
    struck: bool = False
    _numbers: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def count(self) -> Iterator[None]:
        self.counting = True
        try:
            yield
        finally:
            self.counting = False

    def pass_through(
        self, label: str, failure: Callable[[], Exception], work: Callable[[], Any]
    ) -> Any:
        """Do *work*, which is the next step of *label*, and what has to happen around it."""
        with self._lock:
            if not self.counting:
                step = None
            else:
                self._numbers[label] += 1
                step = Step(label, self._numbers[label])
                self.steps.append(step)
        if step and self.at == (step, When.BEFORE):
            self._strike(failure)
        try:
            result = work()
        except Exception:
            # It failed by itself, as asking for what is absent does.
            self.struck |= step is not None and self.at == (step, When.AFTER)
            raise
        if step and self.at == (step, When.AFTER):
            self._strike(failure)
        return result

    def _strike(self, failure: Callable[[], Exception]) -> None:
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        self.struck = True
        raise failure()


@contextmanager
def choked(faults: Faults) -> Iterator[Faults]:
    """Lead every choke point of this process through *faults* during the block."""
    former = [(owner, name, getattr(owner, name)) for owner, name, _ in CHOKES]
    for owner, name, failure in CHOKES:
        setattr(owner, name, _through(faults, owner, name, failure))
    try:
        yield faults
    finally:
        for owner, name, method in former:
            setattr(owner, name, method)


def _through(
    faults: Faults, owner: type, name: str, failure: Callable[[], Exception]
) -> Callable[..., Any]:
    method = getattr(owner, name)
    label = f"{owner.__name__}.{name.lstrip('_')}"

    def passed(*arguments: Any, **named: Any) -> Any:
        return faults.pass_through(label, failure, lambda: method(*arguments, **named))

    return passed
