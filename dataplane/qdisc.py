"""The traffic control messages of `dataplane.tc`, as bytes out and values in.

Pure: nothing here opens a socket.  Numbers are those of linux/rtnetlink.h and linux/pkt_*.h.
"""

import struct
from dataclasses import dataclass

from dataplane.netlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    attribute,
    attributes,
    message,
    nested,
    text,
    u32,
)

ROOT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
ROOT_HANDLE, INGRESS_HANDLE = 0x10000, 0xFFFF0000
_NEW_QDISC, _DELETE_QDISC, _GET_QDISC, _NEW_FILTER = 36, 37, 38, 44
_KIND, _OPTIONS = 1, 2
_TBF_PARMS, _TBF_RATE64 = 1, 4
_TCMSG = struct.Struct("=BxHiIII")  # family, interface, handle, parent, info
_RATE = struct.Struct("=BBHhHI")  # struct tc_ratespec
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET: the kernel computes, and wants no table of rates
_MAX_U32 = 0xFFFFFFFF
_TICKS_PER_US = 15.625  # of 64 ns (PSCHED_SHIFT 6, since Linux 2.6.31)
_LATENCY = 0.025  # seconds


@dataclass(frozen=True, slots=True)
class Bucket:
    """A tbf as the kernel has it.

    *rate* in bytes per second, *buffer* the time in ticks that a full bucket lasts at that
    rate, *limit* the bytes that may wait.
    """

    rate: int
    buffer: int
    limit: int


def bucket(rate: int, burst: int) -> Bucket:
    """The tbf for *rate* bit/s and *burst* bits, with a queue of burst and 25 ms of rate.

    Microseconds and ticks are cut as the reference plugin cuts them, so that both show the same
    in `tc qdisc`.  Raises ValueError for what no tbf can do.
    """
    per_second, size = rate // 8, burst // 8
    if per_second < 1 or not 1 <= size <= _MAX_U32:
        raise ValueError(
            f"cannot limit to {rate} bit/s with bursts of {burst} bits: the rate has to be at"
            f" least 8 and the burst 8 to {_MAX_U32 * 8}"
        )
    ticks = int(size * 1_000_000 // per_second * _TICKS_PER_US)
    limit = int(per_second * _LATENCY) + size
    return Bucket(per_second, min(ticks, _MAX_U32), min(limit, _MAX_U32))


def replace_tbf(index: int, limit: Bucket) -> bytes:
    """Make or change the root qdisc of an interface."""
    rate = _RATE.pack(0, _ETHERNET, 0, 0, 0, min(limit.rate, _MAX_U32))
    parms = rate + bytes(_RATE.size) + struct.pack("=III", limit.limit, limit.buffer, 0)
    options = attribute(_TBF_PARMS, parms)
    if limit.rate > _MAX_U32:
        options += attribute(_TBF_RATE64, limit.rate.to_bytes(8, "little"))
    body = _TCMSG.pack(0, 0, index, ROOT_HANDLE, ROOT, 0) + text(_KIND, "tbf")
    return message(_NEW_QDISC, CREATE | REPLACE, body + nested(_OPTIONS, options))


def new_ingress(index: int) -> bytes:
    body = _TCMSG.pack(0, 0, index, INGRESS_HANDLE, INGRESS, 0)
    return message(_NEW_QDISC, CREATE | EXCLUSIVE, body + text(_KIND, "ingress"))


def redirect(index: int, to: int) -> bytes:
    """Send every packet that interface *index* receives out of interface *to*.

    u32 with one key of mask 0 matches all; the classifier made for that, matchall, is missing
    in more kernels.
    """
    terminal, one_key, stolen, egress_redirect = 1, 1, 4, 1
    selector = struct.pack("=BBBxHHhHI", terminal, 0, one_key, 0, 0, 0, 0, 0) + bytes(16)
    mirred = struct.pack("=IIiiiiI", 0, 0, stolen, 0, 0, egress_redirect, to)
    action = nested(1, text(1, "mirred"), nested(2, attribute(2, mirred)))
    all_protocols = 0x0300  # ETH_P_ALL in network order; the first priority above it
    body = _TCMSG.pack(0, 0, index, 0, INGRESS_HANDLE, 1 << 16 | all_protocols)
    options = nested(_OPTIONS, attribute(5, selector), nested(7, action))
    return message(_NEW_FILTER, CREATE | EXCLUSIVE, body + text(_KIND, "u32") + options)


def delete_qdisc(index: int, parent: int, handle: int) -> bytes:
    return message(_DELETE_QDISC, 0, _TCMSG.pack(0, 0, index, handle, parent, 0))


def list_qdiscs() -> bytes:
    return message(_GET_QDISC, 0, _TCMSG.pack(0, 0, 0, 0, 0, 0))


def parse_qdisc(payload: bytes | memoryview) -> tuple[int, int, Bucket | None]:
    """Interface and parent of a qdisc, and its bucket if it is a tbf."""
    _, _, index, _, parent, _ = _TCMSG.unpack_from(payload)
    found = attributes(payload, _TCMSG.size)
    options = attributes(found.get(_OPTIONS, b""))
    parms = options.get(_TBF_PARMS, b"")
    if found.get(_KIND) != b"tbf\0" or len(parms) < 2 * _RATE.size + 12:
        return index, parent, None
    rate = _RATE.unpack_from(parms)[-1]
    if _TBF_RATE64 in options:
        rate = int.from_bytes(options[_TBF_RATE64], "little")
    limit, buffer, _ = struct.unpack_from("=III", parms, 2 * _RATE.size)
    return index, parent, Bucket(rate, buffer, limit)


def new_ifb(name: str, mtu: int, group: int) -> bytes:
    """An ifb, up; the group marks it as ours from its first moment."""
    up = struct.pack("=BxHiII", 0, 0, 0, 1, 1)
    body = up + text(3, name) + u32(4, mtu) + u32(27, group) + nested(18, text(1, "ifb"))
    return message(16, CREATE | EXCLUSIVE, body)
