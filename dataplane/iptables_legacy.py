"""Which chains there are in the tables of iptables-legacy, without its program.

The kernel shows a table as one block of entries (linux/netfilter_ipv4/ip_tables.h); a chain of
somebody's own begins with an entry whose target holds its name.  To ask for a table makes it, so
nothing is asked of one that /proc does not list.
"""

import ctypes
import errno
import socket
import struct
from pathlib import Path

from dataplane.errors import NetlinkError
from dataplane.nft.objects import Family

PROGRAMS = {Family.IP: "iptables-legacy", Family.IP6: "ip6tables-legacy"}
_FAMILIES = {
    Family.IP: (socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names"),
    Family.IP6: (socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names"),
}
_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, of IPv6 the same
_INFO = struct.Struct("=32s48xI")  # struct ipt_getinfo: the name first, the size of entries last
_ENTRIES = struct.Struct("=32sI4x")  # struct ipt_get_entries
_TRIES = 5
_libc = ctypes.CDLL(None, use_errno=True)


def has_chain(family: Family, table: str, chain: str) -> bool:
    """Is there a chain of this name?  Of the calling thread's namespace.  Raises NetlinkError."""
    kind, level, _ = _FAMILIES[family]
    wanted = chain.encode() + b"\0"
    return table in loaded(family) and wanted in _entries(kind, level, table.encode())


def loaded(family: Family) -> list[str]:
    """The tables that are there, in the calling thread's namespace."""
    try:
        return Path("/proc/thread-self/net", _FAMILIES[family][2]).read_text().split()
    except OSError:
        return []  # a kernel without iptables-legacy, or without this family


def _entries(family: int, level: int, table: bytes) -> bytes:
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
        for _ in range(_TRIES):
            info = _get(asking, level, _GET_INFO, _INFO.pack(table, 0), 0)
            _, size = _INFO.unpack(info)
            try:
                return _get(asking, level, _GET_ENTRIES, _ENTRIES.pack(table, size), size)
            except NetlinkError as exc:
                if exc.errno != errno.EAGAIN:  # it changed meanwhile
                    raise
    raise NetlinkError(errno.EAGAIN, "table of iptables-legacy")


def _get(asking: socket.socket, level: int, option: int, asked: bytes, more: int) -> bytes:
    """socket.getsockopt, but for one that reads what is asked from where it writes."""
    place = ctypes.create_string_buffer(asked, len(asked) + more)
    length = ctypes.c_uint(len(place))
    if _libc.getsockopt(asking.fileno(), level, option, place, ctypes.byref(length)):
        raise NetlinkError(ctypes.get_errno(), "table of iptables-legacy")
    return place.raw
