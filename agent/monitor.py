"""Hear of drift as it happens: addresses that went while nobody asked us, and default routes.

What our own ADDs and DELs bring about is not looked at twice: addresses of host sides are of
host or link scope, and routes to pods are compared when a round is due.
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
    """An address of global scope that went (ifaddrmsg), or a default route (rtmsg) that changed."""
    if kind == rtnl.DELADDR:
        return payload[3] < rtnl.SCOPE_LINK
    return kind in (rtnl.NEWROUTE, rtnl.DELROUTE) and payload[1] == 0
