"""Fuzz what the kernel lists: links, addresses, routes, flows, qdiscs, and elements of nft sets.

    python tests/fuzz/fuzz_netlink.py -max_total_time=20

Names, aliases and comments in there are whatever somebody wrote.  The fixed part of a message is
the kernel's and there; after it an input is attributes of any bytes.  A finding is any exception
but ValueError, by which a parser says that an address is none.
"""

import struct
from contextlib import suppress

from driver import instrumented, run

with instrumented("dataplane", "cni"):
    from cni import attachment, spec
    from cni.tables import NAT
    from dataplane import conntrack, qdisc, rtnl
    from dataplane.netlink import attribute, attributes, nested, text, u32
    from dataplane.nft import elements

HEADERS = (16, 8, 12, 12, 4, 20)
ALIAS = "isthmus/1 bm 7 shop c1 eth0 10.9.0.2/24,fd09::2/64 tcp/80/8080"
SEEDS = [
    b"\0" + bytes(16) + text(3, "eth0") + text(20, ALIAS) + nested(18, text(1, "veth")),
    b"\1" + struct.pack("=BBBBI", 2, 24, 0, 0, 7) + attribute(2, bytes(4)) + u32(8, 128),
    b"\2" + struct.pack("=BBBBBBBBI", 10, 0, 0, 0, 254, 9, 0, 1, 0) + attribute(5, bytes(16)),
    b"\3" + bytes(12) + attribute(9, struct.pack("=HBBi", 16, 0, 0, 3) + attribute(5, bytes(4))),
    b"\4" + bytes(4) + nested(1, nested(1, attribute(1, bytes(4)), attribute(2, bytes(4)))),
    b"\5" + bytes(20) + text(1, "tbf") + nested(2, attribute(1, bytes(36))),
    b"\6" + nested(1, attribute(1, bytes(4))) + attribute(6, b"\0\4abc\0"),
]


def one_input(data: bytes) -> None:
    """Parse *data* as the kind of message that its first byte names."""
    which = data[0] % 7 if data else 6
    payload = data[1:]
    if which < 6:
        payload = payload.ljust(HEADERS[which], b"\0")
    with suppress(ValueError):
        _parse(which, payload)


def _parse(which: int, payload: bytes) -> None:
    match which:
        case 0:
            link = rtnl.parse_link(payload)
            _adopt(link.alias)
        case 1:
            hash(rtnl.parse_address(payload))
        case 2:
            hash(rtnl.parse_route(payload))
        case 3:
            list(rtnl.next_hops(payload))
        case 4:
            conntrack.parse(payload)
        case 5:
            qdisc.parse_qdisc(payload)
        case _:
            for each in NAT.sets:
                hash(elements.decode(each, attributes(payload)))


def _adopt(alias: str) -> None:
    """An alias makes a record whose spec can be read, or none; it never raises."""
    try:
        record = attachment.record_of_alias(alias, boot_id="b")
        if record:
            spec.decode(record.spec)
    except ValueError as exc:
        raise AssertionError(f"alias {alias!r}") from exc


if __name__ == "__main__":
    run(one_input, "netlink", SEEDS)
