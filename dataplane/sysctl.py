"""Kernel settings under /proc/sys: read, written only where they differ, and put back.

/proc/sys/net is of a namespace, namely that of the *thread* that opens the file: the kernel
looks at `current->nsproxy` (net_ctl_root), so a thread that entered another namespace reads and
writes that one's settings even under a /proc mounted before.

What was there before our first write is kept in a ledger, so that uninstalling leaves the host
as found.  A name has slashes, `net/ipv4/conf/eth0.5/forwarding`: interface names have dots.
"""

import ctypes
import errno
import json
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from dataplane.errors import DataplaneError

PROC_SYS = Path("/proc/sys")
_MS_REMOUNT, _MS_BIND = 0x20, 0x1000
_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_BY_ADVERTISEMENT = "2"  # accept_ra: even while forwarding (ip-sysctl.rst)


_libc = ctypes.CDLL(None, use_errno=True)


class SysctlRefused(DataplaneError):
    """A setting that has to be changed and cannot be."""


def make_writable(root: Path = PROC_SYS) -> bool:
    """Remount *root* writable, as a container that is not privileged sees it read-only.

    Of this mount namespace alone.  Returns whether it is writable now: CAP_SYS_ADMIN is needed,
    and no profile of AppArmor that denies mounts.
    """
    if os.statvfs(root).f_flag & os.ST_RDONLY == 0:
        return True
    flags = ctypes.c_ulong(_MS_REMOUNT | _MS_BIND)
    return bool(_libc.mount(None, os.fsencode(root), None, flags, None) == 0)


class Ledger(Protocol):
    """Remembers the value each setting had before we first changed it."""

    def record(self, name: str, former: str) -> None: ...


class FileLedger:
    """A ledger in one JSON file, durable before `record` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def record(self, name: str, former: str) -> None:
        """Keep *former* unless a value of *name* is there; raises SysctlRefused when it cannot."""
        with self._lock:
            known = self.recorded()
            if name in known:
                return
            try:
                self._write(known | {name: former})
            except OSError as exc:
                raise SysctlRefused(
                    f"cannot record {name} in {self._path}: {exc.strerror}"
                ) from exc

    def recorded(self) -> dict[str, str]:
        """Every value as it was; an unreadable file counts as empty, since it guards nothing."""
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_text())
            if isinstance(found, dict):
                return {str(name): str(value) for name, value in found.items()}
        return {}

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def _write(self, values: dict[str, str]) -> None:
        draft = self._path.with_name(f".{self._path.name}.new")
        with open(os.open(draft, _DRAFT, 0o600), "w") as file:
            json.dump(values, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Sysctls:
    """The settings of the namespace of whichever thread calls."""

    def __init__(self, ledger: Ledger | None = None, *, root: Path = PROC_SYS) -> None:
        self._ledger = ledger
        self._root = root

    def get(self, name: str) -> str | None:
        """Its value; None where this kernel or interface has no such setting."""
        try:
            return (self._root / name).read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise SysctlRefused(f"cannot read {name}: {exc.strerror}") from exc

    def ensure(self, name: str, value: str, *, lasting: bool = True) -> bool:
        """Make *name* have *value*; returns whether it had another.

        What is not *lasting* goes with an interface of ours and is not recorded.  A read-only
        /proc/sys matters only when something has to change.  Raises SysctlRefused.
        """
        former = self.get(name)
        if former == value:
            return False
        if former is None:
            raise SysctlRefused(f"cannot set {name} to {value}: there is no such setting here")
        if lasting and self._ledger is not None:
            self._ledger.record(name, former)
        self._write(name, value, former)
        return True

    def enable_forwarding(self, *, ipv4: bool, ipv6: bool, uplinks: Iterable[str] = ()) -> None:
        """Let this host forward packets of these families.

        *uplinks* are interfaces whose IPv6 default route came by router advertisement (route
        protocol RTPROT_RA, 9): a forwarding kernel would stop listening to those and lose its
        route, so they are told to go on first.  Raises SysctlRefused.
        """
        if ipv4:
            self.ensure("net/ipv4/ip_forward", "1")
        if ipv6 and self.get("net/ipv6/conf/all/forwarding") not in (None, "1"):
            for uplink in uplinks:
                if self.get(f"net/ipv6/conf/{uplink}/accept_ra") == "1":
                    self.ensure(f"net/ipv6/conf/{uplink}/accept_ra", _BY_ADVERTISEMENT)
            self.ensure("net/ipv6/conf/all/forwarding", "1")

    def allow_localhost_ports(self, interface: str, *, lasting: bool = True) -> None:
        """Let 127.0.0.1:port of this host be answered by a pod behind *interface*.

        The table of port mappings drops what comes in from the wire for 127.0.0.0/8, which this
        would otherwise let through (CVE-2020-8558): it has to be there first.  A pod's own veth
        is not *lasting*.  Raises SysctlRefused.
        """
        self.ensure(f"net/ipv4/conf/{interface}/route_localnet", "1", lasting=lasting)

    def restore(self, former: dict[str, str]) -> list[str]:
        """Put *former* values back; returns a complaint for each that could not be.

        An interface that is gone took its settings with it.
        """
        complaints = []
        for name, value in sorted(former.items()):
            try:
                now = self.get(name)
                if now not in (None, value):
                    self._write(name, value, now or "")
            except SysctlRefused as exc:
                complaints.append(str(exc))
        return complaints

    def _write(self, name: str, value: str, former: str) -> None:
        try:
            fd = self._open(name)
            try:
                os.write(fd, f"{value}\n".encode())
            finally:
                os.close(fd)
        except OSError as exc:
            hint = ""
            if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                # sysctl(8) takes slashes too, and needs them where a name has dots.
                hint = f"; set it on the host: sysctl -w {name}={value}"
            raise SysctlRefused(
                f"cannot set {name} to {value} (it is {former}): {exc.strerror}{hint}"
            ) from exc

    def _open(self, name: str) -> int:
        return os.open(self._root / name, os.O_WRONLY | os.O_CLOEXEC)
