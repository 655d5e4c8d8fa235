"""Addresses that the reference's IPAM plugin, host-local, gives beside us: one follows the other.

    DIRECTORY/NETWORK/ADDRESS     a file for each; in it container id, CR LF, interface

Whoever makes the file has the address: we take part in that for as long as others have files among
our addresses.  So neither gives what the other gave, before and after a runtime changes from one to
the other, in either direction.  host-local overlooks white space at the end of a file: by a line's
end more we tell ours, and it deletes them as its own for a pod that it is told to delete.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from ipam.leases import Attachment
from net.address import IPAddress, IPNetwork

_BREAK = "\r\n"
_LONGEST = 4096  # of a file: what is longer is none of host-local's


@dataclass(frozen=True, slots=True)
class Reservation:
    """Whose *address* is; *is_ours*: one of our own containers'."""

    address: IPAddress
    who: Attachment
    is_ours: bool = False


class HostLocal:
    """*directory* is host-local's dataDir.  Thread-safe; methods raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def others(self) -> list[Reservation]:
        """Return what host-local gave."""
        return [one for folder in self._folders() for one in _in(folder) if not one.is_ours]

    def take(
        self, who: Attachment, address: IPAddress, among: Collection[IPNetwork]
    ) -> Attachment | None:
        """Reserve *address* for *who*, or return who has it.

        That is in the folders which have others' addresses in the networks *among*.
        """
        with self._lock:
            for folder in self._shared(among):
                if holder := _reserve(folder, who, address):
                    return holder
        return None

    def shares(self, among: Collection[IPNetwork]) -> bool:
        """Whether host-local has given an address in one of the networks *among*."""
        return any(True for _ in self._shared(among))

    def release(self, container_id: str, ifname: str) -> None:
        """Delete what host-local gave this interface, as it does itself.

        Files of its earliest versions name no interface.
        """
        for one in self.others():
            if one.who.container_id == container_id and one.who.ifname in (ifname, ""):
                path = self._directory / one.who.network / str(one.address)
                path.unlink(missing_ok=True)

    def keep(
        self,
        own: Mapping[IPAddress, Attachment],
        among: Collection[IPNetwork],
        is_free: Callable[[IPAddress], bool],
    ) -> None:
        """Have our files for *own*, and none of free addresses, nor where no others are left."""
        with self._lock:
            shared = set(self._shared(among))
            for folder in self._folders():
                found = {one.address: one for one in _in(folder)}
                for address in own if folder in shared else ():
                    if address not in found:
                        _reserve(folder, own[address], address)
                for one in found.values():
                    if one.is_ours and (folder not in shared or is_free(one.address)):
                        (folder / str(one.address)).unlink(missing_ok=True)

    def _folders(self) -> Iterator[Path]:
        with suppress(FileNotFoundError), os.scandir(self._directory) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    yield Path(one.path)

    def _shared(self, among: Collection[IPNetwork]) -> Iterator[Path]:
        for folder in self._folders():
            if any(
                not one.is_ours and any(one.address in net for net in among) for one in _in(folder)
            ):
                yield folder


def _in(folder: Path) -> Iterator[Reservation]:
    names: Iterable[str] = ()
    with suppress(FileNotFoundError):
        names = os.listdir(folder)
    for name in names:
        with suppress(ValueError, FileNotFoundError):  # its lock, its last address; gone meanwhile
            yield _read(folder, ip_address(name))


def _read(folder: Path, address: IPAddress) -> Reservation:
    with (folder / str(address)).open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read(_LONGEST)
    container, _, ifname = text.strip().partition(_BREAK)
    return Reservation(address, Attachment(folder.name, container, ifname), text.endswith(_BREAK))


def _reserve(folder: Path, who: Attachment, address: IPAddress) -> Attachment | None:
    """Return whoever else has it.  What is ours already is another container's no more."""
    path, flags = folder / str(address), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        found = _read(folder, address)
        if not found.is_ours:
            return found.who
        descriptor = os.open(path, flags | os.O_TRUNC)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(f"{who.container_id}{_BREAK}{who.ifname}{_BREAK}")
    return None
