"""What a round of the reconciler looks at, and what it did."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cni import attachment
from dataplane import rtnl
from dataplane.survey import Surveyed
from net.address import IPAddress


@dataclass(frozen=True, slots=True)
class View:
    """The host's links by name, and which of them are attachments' host sides.

    *surveyed* looks into all other namespaces, once; *reserved* are the addresses that others
    gave, or the host itself has.
    """

    links: dict[str, rtnl.Link]
    surveyed: Callable[[], list[Surveyed]]
    reserved: Callable[[], frozenset[IPAddress]] = frozenset

    def complete(self, name: str) -> bool:
        """A pair whose ADD ended and whose DEL has not begun."""
        link = self.links.get(name)
        return link is not None and bool(link.alias) and link.group != rtnl.DELETE_GROUP

    def ours(self) -> Iterable[rtnl.Link]:
        return (
            link
            for name, link in self.links.items()
            if attachment.is_host_name(name) and link.kind == "veth"
        )


@dataclass(slots=True)
class Report:
    """What one round did; for the log and the metrics."""

    adopted: int = 0
    ended: int = 0
    removed: int = 0
    repaired: int = 0
    failed: int = 0

    def __bool__(self) -> bool:
        return bool(self.adopted or self.ended or self.removed or self.repaired or self.failed)
