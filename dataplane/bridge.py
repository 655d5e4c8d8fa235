"""Bridges of the host: made once, looked at again only when something about links changed."""

import errno
import threading

from dataplane import ipv6, rtnl
from dataplane.errors import DataplaneError, NetlinkError
from dataplane.model import Bridge
from dataplane.netlink import Netlink
from net.address import IPInterface

_PROMISCUOUS = 0x100


class Bridges:
    """What is known of bridges; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Bridge, rtnl.Link] = {}

    def forget(self) -> None:
        with self._lock:
            self._known.clear()

    def ensure(self, host: Netlink, wanted: Bridge) -> rtnl.Link:
        """Make or complete the bridge; raises DataplaneError where it contradicts *wanted*."""
        with self._lock:
            found = self._known.get(wanted)
            if found is None:
                found = self._known[wanted] = _ensure(host, wanted)
            return found


def _ensure(host: Netlink, wanted: Bridge) -> rtnl.Link:
    try:
        host.transact(
            [
                rtnl.new_bridge(
                    wanted.name, wanted.mac, wanted.mtu, vlan_filtering=wanted.vlan_filtering
                )
            ]
        )
    except NetlinkError as exc:
        if exc.errno == errno.EOPNOTSUPP and wanted.vlan_filtering:
            raise _no_vlan_filtering(wanted) from exc
        if not exc.exists:
            raise
    link = rtnl.parse_link(host.get(rtnl.get_link(name=wanted.name)))
    if link.kind != "bridge":
        raise DataplaneError(
            f'"{wanted.name}" already exists but is not a bridge (it is a {link.kind or "device"})'
        )
    if wanted.vlan_filtering:
        _filter_vlans(host, link, wanted)
    ipv6.refuse_router_advertisements(wanted.name)
    flags = rtnl.UP | (_PROMISCUOUS if wanted.promiscuous else 0)
    # Set even to what it is: a MAC that was set no longer follows the ports'.
    host.transact([rtnl.set_link(link.index, flags=flags, mac=_stable_mac(link, wanted))])
    for address in wanted.addresses:
        _ensure_address(host, link, address, wanted)
    return rtnl.parse_link(host.get(rtnl.get_link(link.index)))


def _filter_vlans(host: Netlink, link: rtnl.Link, wanted: Bridge) -> None:
    try:
        host.transact([rtnl.set_vlan_filtering(link.index)])
    except NetlinkError as exc:
        if exc.errno == errno.EOPNOTSUPP:
            raise _no_vlan_filtering(wanted) from exc
        raise


def _no_vlan_filtering(wanted: Bridge) -> DataplaneError:
    return DataplaneError(
        f'bridge "{wanted.name}": this kernel has no VLAN filtering on bridges '
        "(CONFIG_BRIDGE_VLAN_FILTERING), so vlan and vlanTrunk cannot be honoured"
    )


def _stable_mac(link: rtnl.Link, wanted: Bridge) -> str:
    """A bridge that somebody else made keeps its MAC unless the kernel reset it to zero."""
    return wanted.mac if link.mac == "00:00:00:00:00:00" else link.mac


def _ensure_address(host: Netlink, link: rtnl.Link, address: IPInterface, wanted: Bridge) -> None:
    for found in rtnl.parse_addresses(host.dump(rtnl.list_addresses())):
        if found.index != link.index or found.address.version != address.version:
            continue
        if found.address == address:
            return
        if found.address in wanted.addresses:
            continue  # of another range of the same network
        beside = wanted.shared or found.address.version == 6
        if beside and not found.address.network.overlaps(address.network):
            continue
        if not wanted.force_address:
            raise DataplaneError(
                f'"{link.name}" already has an IP address different from {address} '
                f"({found.address}); remove it or set forceAddress"
            )
        host.transact([rtnl.delete_address(link.index, found.address)])
    host.transact([rtnl.new_address(link.index, address)])
