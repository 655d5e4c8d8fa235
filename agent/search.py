"""After a loss of the store, or before the first: addresses that no link of ours tells of, found
where they are used.

What `isthmus-ipam` gave is on the links of other plugins, which say nothing of whom it belongs
to.  So whatever address a namespace of this machine has is taken not to be free, until that
namespace ends.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cni.result import IPConfig
from cni.spec import Spec, encode
from dataplane.survey import Surveyed, survey
from ipam.errors import StoreUnavailable
from ipam.leases import Attachment, Record
from net.address import IPAddress

NETWORK = "found"
_FIRST = "first\n"
_PROCESS = re.compile(r"/proc/([0-9]+)/ns/net")
_INVALID = re.compile(r"[^A-Za-z0-9_.\-]")


@dataclass(slots=True)
class Search:
    """Owed from when a loss is noted until it was made: over a crash too, so *note* is a file.

    Without a *note* no search is ever owed.
    """

    note: Path | None = None
    survey: Callable[[], list[Surveyed]] = survey

    @property
    def owed(self) -> bool:
        return self.note is not None and self.note.exists()

    def owe(self, *, is_first: bool = False) -> None:
        """Note the loss, before there is a new store; *is_first*: there never was another.

        Raises StoreUnavailable.
        """
        try:
            if self.note is not None:
                self.note.touch(mode=0o600)
                self.note.write_text(_FIRST if is_first else "")
        except OSError as exc:
            raise StoreUnavailable(f"{self.note}: {exc.strerror or exc}") from exc

    def end(self) -> None:
        """All that could be found is durable.  Raises OSError."""
        if self.note is not None:
            self.note.unlink(missing_ok=True)

    def records(self, held: Iterable[IPAddress], *, boot_id: str, now_ns: int) -> list[Record]:
        """A record for each interface that has an address not in *held*.

        Raises DataplaneError where namespaces cannot be looked into.
        """
        former = self.note is not None and self.note.exists() and self.note.read_text() == _FIRST
        known = set(held)
        found = []
        for there in self.survey():
            for ifname, addresses in there.interfaces.items():
                unheld = tuple(one for one in addresses if one.ip not in known)
                known.update(one.ip for one in unheld)
                if unheld:
                    who = Attachment(NETWORK, _container_id(there), ifname)
                    spec = Spec(
                        link=False,
                        former=former,
                        ips=tuple(IPConfig(address=one) for one in unheld),
                    )
                    found.append(_record(who, there, spec, boot_id, now_ns))
        return found


def has_ended(record: Record, surveyed: Iterable[Surveyed]) -> bool:
    """Whether no namespace is that of *record* any more, nor has one of its addresses.

    Two may have had the same address, of which one was recorded.
    """
    own = {address.ip for address in record.addresses}
    return not any(
        there.cookie == record.netns_cookie
        or any(one.ip in own for addresses in there.interfaces.values() for one in addresses)
        for there in surveyed
    )


def _container_id(there: Surveyed) -> str:
    """The namespace's name, made a container id; its cookie tells it from the next so called."""
    process = _PROCESS.fullmatch(there.path)
    name = f"pid-{process[1]}" if process else Path(there.path).name
    return f"{_INVALID.sub('-', name).lstrip('_.-') or 'netns'}-{there.cookie}"


def _record(
    who: Attachment,
    there: Surveyed,
    spec: Spec,
    boot_id: str,
    now_ns: int,
) -> Record:
    return Record(
        who=who,
        boot_id=boot_id,
        started_ns=now_ns,
        sandbox=there.path,
        netns_cookie=there.cookie,
        addresses=tuple(one.address for one in spec.ips),
        spec=encode(spec),
    )
