"""Who has which addresses on this machine, in all network namespaces that can be reached."""

from contextlib import suppress
from dataclasses import dataclass

from dataplane import netns, rtnl
from dataplane.errors import InvalidNamespace
from dataplane.netlink import Netlink
from net.address import IPInterface

_LOOPBACK = 1  # LOOPBACK_IFINDEX, in every namespace
_GLOBAL = 0  # RT_SCOPE_UNIVERSE


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A namespace, with the global unicast addresses of each interface but loopback."""

    path: str
    cookie: int
    interfaces: dict[str, tuple[IPInterface, ...]]


def survey() -> list[Surveyed]:
    """Look into every namespace that `netns.reachable` names; one that goes meanwhile is left out.

    Raises NetlinkError, DumpInterrupted.
    """
    found = []
    for path in netns.reachable():
        with suppress(InvalidNamespace, OSError), netns.open_sandbox(path) as there:
            found.append(Surveyed(path, there.cookie, _addresses(there.netlink)))
    return found


def interfaces() -> dict[str, tuple[IPInterface, ...]]:
    """The same of our own namespace alone.  Raises NetlinkError, DumpInterrupted."""
    with Netlink() as netlink:
        return _addresses(netlink)


def _addresses(netlink: Netlink) -> dict[str, tuple[IPInterface, ...]]:
    links = [rtnl.parse_link(payload) for _, payload in netlink.dump(rtnl.get_link())]
    names = {link.index: link.name for link in links if link.index != _LOOPBACK}
    found: dict[str, tuple[IPInterface, ...]] = {}
    for each in rtnl.parse_addresses(netlink.dump(rtnl.list_addresses())):
        name = names.get(each.index)
        if name and each.scope == _GLOBAL and not each.address.ip.is_multicast:
            found[name] = (*found.get(name, ()), each.address)
    return found
