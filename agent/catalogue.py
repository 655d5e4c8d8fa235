"""Services and slices as the API has them, and which of them changed since somebody asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from net.address import IPNetwork
from proxy import translate
from proxy.model import ServiceName
from proxy.reconciler import Wanted
from proxy.translate import Slice, Translated


@dataclass(slots=True)
class Changes:
    """*triggered*: when changes of slices began (RFC 3339); *since*: when we first heard."""

    names: set[ServiceName] = field(default_factory=set)
    triggered: list[str] = field(default_factory=list)
    services: int = 0
    slices: int = 0
    since: float | None = None

    def note(self, name: ServiceName, now: float) -> None:
        self.names.add(name)
        if self.since is None:
            self.since = now


class Catalogue:
    """*services* and *slices* are the reflectors' copies, by their keys.

    Told of changes in one thread; `wanted` may be asked from another.
    """

    def __init__(
        self, services: Mapping[str, Translated | None], slices: Mapping[str, Slice | None]
    ) -> None:
        self._services, self._slices = services, slices
        self._slices_of: dict[ServiceName, tuple[str, ...]] = {}
        self._owner: dict[str, ServiceName] = {}
        self._changes = Changes()
        self._troubles: dict[ServiceName, tuple[str, ...]] = {}

    @property
    def since(self) -> float | None:
        """Since when something waits to be taken."""
        return self._changes.since

    def service_changed(self, key: str, now: float) -> None:
        self._changes.services += 1
        self._changes.note(_name(key), now)

    def slice_changed(self, key: str, found: Slice | None, now: float) -> None:
        """One came, changed, went, or went over to another Service."""
        self._changes.slices += 1
        before = self._owner.get(key)
        after = found.service if found is not None else None
        if before != after:
            self._move(key, before, after)
        for name in {before, after} - {None}:
            assert name is not None
            self._changes.note(name, now)
        if found is not None and found.triggered:
            self._changes.triggered.append(found.triggered)

    def _move(self, key: str, before: ServiceName | None, after: ServiceName | None) -> None:
        if before is not None:
            left = tuple(each for each in self._slices_of[before] if each != key)
            del self._owner[key]
            if left:
                self._slices_of[before] = left
            else:
                del self._slices_of[before]
        if after is not None:
            self._owner[key] = after
            self._slices_of[after] = (*self._slices_of.get(after, ()), key)

    def take(self) -> Changes:
        """All changes since it was called last."""
        taken, self._changes = self._changes, Changes()
        return taken

    def names(self) -> list[ServiceName]:
        """Every Service that there is."""
        found = [each.service for each in list(self._services.values()) if each]
        return [service.name for service in found if service]

    def wanted(self, name: ServiceName, service_cidrs: Sequence[IPNetwork]) -> Wanted | None:
        """What is to be of one Service."""
        translated = self._services.get(str(name))
        if translated is None or translated.service is None:
            self._tell(name, translated.troubles if translated else ())
            return None
        endpoints, troubles = translate.gather(self._of(name), translated.service, service_cidrs)
        self._tell(name, translated.troubles + troubles)
        return Wanted(translated.service, endpoints)

    def _tell(self, name: ServiceName, troubles: tuple[str, ...]) -> None:
        if troubles:
            self._troubles[name] = troubles
        else:
            self._troubles.pop(name, None)

    def troubles(self) -> dict[ServiceName, tuple[str, ...]]:
        """What of which Service cannot be used."""
        return dict(self._troubles)

    def _of(self, name: ServiceName) -> list[Slice]:
        found = (self._slices.get(key) for key in self._slices_of.get(name, ()))
        return [each for each in found if each is not None]


def _name(key: str) -> ServiceName:
    namespace, _, name = key.partition("/")
    return ServiceName(namespace, name)
