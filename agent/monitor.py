"""Hear of drift as it happens: addresses and routes that went while nobody asked us.

Only deletions count, and changes of default routes: what our own ADDs bring is new links,
addresses and routes, and is not looked at twice.
"""

import socket
import threading
from collections.abc import Callable

from dataplane import rtnl
from dataplane.errors import NetlinkError
from dataplane.netlink import Netlink

_ADDRESSES4, _ROUTES4, _ADDRESSES6, _ROUTES6 = 0x10, 0x40, 0x100, 0x400


class Monitor(threading.Thread):
    """Calls *changed* from its own thread, for every datagram that tells of a loss."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__(name="monitor", daemon=True)
        self._changed = changed
        self._netlink = Netlink(
            socket.NETLINK_ROUTE, groups=_ADDRESSES4 | _ROUTES4 | _ADDRESSES6 | _ROUTES6
        )

    def run(self) -> None:
        while True:
            try:
                for kind, _, payload in self._netlink.receive():
                    if _matters(kind, payload):
                        self._changed()
            except NetlinkError:
                # Overrun: more happened than the socket holds, so anything may have.
                self._changed()


def _matters(kind: int, payload: memoryview) -> bool:
    if kind in (rtnl.DELADDR, rtnl.DELROUTE):
        return True
    is_default = kind == rtnl.NEWROUTE and payload[1] == 0
    return is_default
