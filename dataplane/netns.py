"""Network namespaces: opening them safely, entering them, telling them apart.

setns(2) moves one thread.  A socket stays in the namespace it was opened in, so a thread
enters only to open one, and everything after goes over that socket from outside.
"""

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from glob import glob
from typing import Self

from dataplane.errors import InvalidNamespace
from dataplane.netlink import Netlink

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
# statfs(2): a namespace file is on nsfs; before Linux 3.19 it was on procfs.
_NSFS_MAGIC = 0x6E736673

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one namespace from another while it lives (namespaces(7))."""

    device: int
    inode: int

    @classmethod
    def of_descriptor(cls, fd: int) -> Self:
        found = os.fstat(fd)
        return cls(found.st_dev, found.st_ino)

    @classmethod
    def of_path(cls, path: str) -> Self:
        found = os.stat(path)
        return cls(found.st_dev, found.st_ino)


def open_path(path: str) -> int:
    """A usable descriptor of the namespace at *path*; the caller closes it.

    Opened by O_PATH first, so that a FIFO or a device in its place is never really opened.
    Raises InvalidNamespace, which says what is there instead.
    """
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as exc:
        raise InvalidNamespace(f'failed to open netns "{path}": {exc.strerror}') from exc
    try:
        return open_descriptor(handle, path)
    finally:
        os.close(handle)


def open_descriptor(handle: int, path: str) -> int:
    """Reopen *handle* (it may be O_PATH, which setns refuses) if it is a network namespace."""
    magic = _filesystem_magic(handle)
    if magic != _NSFS_MAGIC:
        raise InvalidNamespace(f'unknown FS magic on "{path}": {magic:x}')
    try:
        fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise InvalidNamespace(f'failed to open netns "{path}": {exc.strerror}') from exc
    if fcntl.ioctl(fd, _NS_GET_NSTYPE) != _CLONE_NEWNET:
        os.close(fd)
        raise InvalidNamespace(f'"{path}" is a namespace, but not a network namespace')
    return fd


def _filesystem_magic(fd: int) -> int:
    # os.fstatvfs does not give f_type, the first word of struct statfs.
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer):
        raise InvalidNamespace(f"fstatfs: {os.strerror(ctypes.get_errno())}")
    return int(struct.unpack_from("=q", buffer)[0]) & 0xFFFFFFFF


@contextmanager
def entered(fd: int) -> Iterator[None]:
    """Run the block with this thread inside the namespace *fd*.

    A thread that cannot come back would do the next pod's work in this pod, so the process
    ends instead: everything it promised is on disk.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.setns(fd, _CLONE_NEWNET):
        os.close(home)
        raise InvalidNamespace(f"setns: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        if _libc.setns(home, _CLONE_NEWNET):
            os.abort()
        os.close(home)


@dataclass(slots=True)
class Sandbox:
    """An open sandbox: its descriptor, a netlink socket inside it, and its cookie."""

    path: str
    fd: int
    netlink: Netlink
    cookie: int = field(default=0)

    def close(self) -> None:
        self.netlink.close()
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_sandbox(path: str, handle: int | None = None) -> Sandbox:
    """Open the sandbox at *path*, by *handle* where the launcher sent one.

    With the handle it does not matter in which mount namespace the path is valid.
    Raises InvalidNamespace.
    """
    fd = open_path(path) if handle is None else open_descriptor(handle, path)
    try:
        with entered(fd):
            netlink = Netlink()
    except BaseException:
        os.close(fd)
        raise
    return Sandbox(path, fd, netlink, netlink.cookie())


def reachable() -> list[str]:
    """One path to each network namespace that has a name or a process, but the host's own.

    The host's are this thread's and that of process 1.  A namespace that is only mounted
    elsewhere, or only open in a process, is not seen.
    """
    homes, found = {own_identity()}, dict[Identity, str]()
    with suppress(OSError):
        homes.add(Identity.of_path("/proc/1/ns/net"))
    for path in sorted(glob("/run/netns/*")) + glob("/proc/[0-9]*/ns/net"):
        with suppress(OSError):  # it has gone meanwhile
            identity = Identity.of_path(path)
            if identity not in homes:
                found.setdefault(identity, path)
    return list(found.values())


def own_identity() -> Identity:
    """The namespace this thread is in."""
    return Identity.of_path("/proc/thread-self/ns/net")
