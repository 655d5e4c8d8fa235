"""Hear of drift as it happens: what went while nobody asked us, and default routes.

What our own ADDs and DELs bring about is not looked at twice: addresses of host sides are of
host or link scope, routes to pods are compared when a round is due, and attachments are elements
of tables, never a table, chain, rule or set.
"""

import logging
import socket
import threading
from collections.abc import Callable, Collection

from cni.tables import TABLE
from dataplane import rtnl
from dataplane.errors import NetlinkError
from dataplane.netlink import Netlink, each_attribute
from dataplane.nft.elements import NETLINK_NETFILTER

log = logging.getLogger(__name__)

_LINKS = 0x1
_ADDRESSES4, _ROUTES4, _ADDRESSES6, _ROUTES6 = 0x10, 0x40, 0x100, 0x400
_NFTABLES = 1 << 6  # NFNLGRP_NFTABLES is group 7
# NFNL_SUBSYS_NFTABLES is 10; NFT_MSG_DELTABLE, DELCHAIN, DELRULE, DELSET.
_LOST_PARTS = frozenset(10 << 8 | number for number in (2, 5, 8, 11))
_ELEMENTS = frozenset(10 << 8 | number for number in (12, 14))  # NFT_MSG_NEWSETELEM, DELSETELEM
_NFGENMSG = 4
_TABLE_NAME = 1  # the first attribute of each of them


def is_loss(kind: int, payload: memoryview) -> bool:
    """An address of global scope that went (ifaddrmsg), a default route (rtmsg) that changed, or
    a part of the table of attachments that was deleted."""
    if kind == rtnl.DELADDR:
        return payload[3] < rtnl.SCOPE_LINK
    if kind in (rtnl.NEWROUTE, rtnl.DELROUTE):
        return payload[1] == 0
    return is_lost_part(kind, payload, TABLE)


def is_lost_part(kind: int, payload: memoryview, table: str) -> bool:
    """A part of *table* that was deleted, or all of it."""
    return kind in _LOST_PARTS and _is_of(payload, table)


def is_touched(kind: int, payload: memoryview, table: str) -> bool:
    """A part that was deleted, or elements that came or went."""
    return (kind in _LOST_PARTS or kind in _ELEMENTS) and _is_of(payload, table)


def _is_of(payload: memoryview, table: str) -> bool:
    return next(each_attribute(payload, _NFGENMSG), None) == (_TABLE_NAME, table.encode() + b"\0")


class Monitor:
    """Calls *changed* from threads of its own, for every message that *matters*.

    Of links only where *with_links*: each attachment makes some.  *ours*: netlink ports of
    ourselves, whose changes are no news.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        matters: Callable[[int, memoryview], bool] = is_loss,
        *,
        with_links: bool = False,
        ours: Collection[int] = (),
    ) -> None:
        self._changed = changed
        self._matters = matters
        self._ours = frozenset(ours)
        groups = _ADDRESSES4 | _ROUTES4 | _ADDRESSES6 | _ROUTES6 | _LINKS * with_links
        self._sockets = [Netlink(socket.NETLINK_ROUTE, groups=groups)]
        try:
            self._sockets.append(Netlink(NETLINK_NETFILTER, groups=_NFTABLES))
        except NetlinkError as exc:
            # Nothing needs nftables until somebody asks for what it does.
            log.info("no news of nftables", extra={"error": str(exc)})

    def start(self) -> None:
        for each in self._sockets:
            threading.Thread(target=self._listen, args=(each,), name="monitor", daemon=True).start()

    def _listen(self, news: Netlink) -> None:
        while True:
            try:
                for kind, port, payload in news.news():
                    if port not in self._ours and self._matters(kind, payload):
                        self._changed()
            except NetlinkError:
                # Overrun: more happened than the socket holds, so anything may have.
                self._changed()
