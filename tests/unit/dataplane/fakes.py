"""A netlink socket to a kernel of values: what it was sent, and what it shows."""

import errno
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Self

from dataplane import rtnl
from dataplane.errors import NetlinkError
from dataplane.netlink import attribute, nested, text, u32
from net.address import IPAddress, IPInterface, IPNetwork

Refusal = Callable[[bytes], int]


def kind_of(message: bytes) -> int:
    return int.from_bytes(message[4:6], "little")


def link_payload(index: int, name: str, **more: Any) -> bytes:
    """RTM_NEWLINK's payload, as the kernel shows a link."""
    flags = (rtnl.UP if more.get("up", True) else 0) | (0x100 if more.get("promiscuous") else 0)
    mac = more.get("mac", "02:00:00:00:00:01")
    port = more.get("port")
    info = [text(1, more["kind"])] if more.get("kind") else []
    info += (
        [nested(5, attribute(4, bytes(port[:1])), attribute(33, bytes(port[1:])))] if port else []
    )
    return b"".join(
        [
            struct.pack("=BxHiII", 0, 1, index, flags, 0),
            text(3, name),
            attribute(1, bytes.fromhex(mac.replace(":", ""))),
            u32(4, more.get("mtu", 1500)),
            u32(10, more["master"]) if "master" in more else b"",
            text(20, more["alias"]) if "alias" in more else b"",
            u32(27, more.get("group", 0)),
            u32(5, more["peer"]) if "peer" in more else b"",
            nested(18, *info) if info else b"",
        ]
    )


def address_payload(index: int, address: IPInterface, flags: int = 0) -> bytes:
    """RTM_NEWADDR's payload."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = struct.pack("=BBBBI", family, address.network.prefixlen, flags & 0xFF, 0, index)
    local = attribute(2, address.ip.packed) if address.version == 4 else b""
    return head + local + attribute(1, address.ip.packed) + u32(8, flags)


def route_payload(
    dst: IPNetwork,
    *hops: tuple[IPAddress | None, int],
    table: int = 254,
    protocol: int = 3,
    kind: int = 1,
) -> bytes:
    """RTM_NEWROUTE's payload; of several *hops* (gateway, link) as one multipath route."""
    family = socket.AF_INET if dst.version == 4 else socket.AF_INET6
    head = struct.pack(
        "=BBBBBBBBI", family, dst.prefixlen, 0, 0, table & 0xFF, protocol, 0, kind, 0
    )
    body = u32(15, table)
    if dst.prefixlen:
        body += attribute(1, dst.network_address.packed)
    if len(hops) == 1:
        via, index = hops[0]
        return head + body + u32(4, index) + (attribute(5, via.packed) if via else b"")
    several = b""
    for via, index in hops:
        inner = attribute(5, via.packed) if via else b""
        several += struct.pack("=HBBi", 8 + len(inner), 0, 0, index) + inner
    return head + body + attribute(9, several)


class FakeNetlink:
    """*links*, *addresses* and *routes* are payloads; *refuse* gives a message's errno or 0."""

    def __init__(self) -> None:
        self.links: list[bytes] = []
        self.addresses: list[bytes] = []
        self.routes: list[bytes] = []
        self.sent: list[bytes] = []
        self.refuse: Refusal = lambda message: 0
        self.asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def transact(
        self,
        messages: Sequence[bytes],
        *,
        tolerate: Callable[[NetlinkError], bool] = lambda _: False,
    ) -> None:
        failure = None
        for index, message in enumerate(messages):
            self.sent.append(message)
            if number := self.refuse(message):
                refused = NetlinkError(number, "netlink message", index=index)
                if not failure and not tolerate(refused):
                    failure = refused
        if failure:
            raise failure

    def get(self, request: bytes) -> memoryview:
        self.asked += 1
        wanted = rtnl.parse_link(request[16:])
        for payload in self.links:
            found = rtnl.parse_link(payload)
            if found.name == wanted.name or (wanted.index and found.index == wanted.index):
                return memoryview(payload)
        raise NetlinkError(errno.ENODEV, "netlink message 18")

    def index_of(self, name: str) -> int:
        return rtnl.parse_link(self.get(rtnl.get_link(name=name))).index

    def dump(self, request: bytes) -> list[tuple[int, memoryview]]:
        family = request[16]
        kind = kind_of(request)
        found = {18: self.links, 22: self.addresses, 26: self.routes}[kind]
        return [
            (kind - 2, memoryview(payload))
            for payload in found
            if kind == 18 or family in (0, payload[0])
        ]

    @property
    def kinds(self) -> list[int]:
        return [kind_of(message) for message in self.sent]
