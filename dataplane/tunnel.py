"""VXLAN links, where their frames go, and who has which address behind them: as messages.

Pure, as `dataplane.rtnl` is.  Numbers are those of linux/if_link.h and linux/neighbour.h.
"""

import socket
import struct
from ipaddress import ip_address

from dataplane import rtnl
from dataplane.fabric_model import Forward, Neighbour, Tunnel, TunnelLink
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

# Marks our VXLAN links from their first moment (docs/ownership.md).
TUNNEL_GROUP = 0x69737678
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_AF_BRIDGE = 7
_LINK = struct.Struct("=BxHiII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_GROUP = 1, 3, 4, 18, 27
_INFO_KIND, _INFO_DATA = 1, 2
_VNI, _LEARNING, _PORT = 1, 7, 15
_LOCAL = {4: 4, 6: 17}
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8
_PERMANENT, _NO_ARP = 0x80, 0x40
_SELF = 0x02


def new_tunnel(tunnel: Tunnel) -> bytes:
    """Made, but down: as it comes up the kernel gives it a link-local address, unless told."""
    data = nested(
        _INFO_DATA,
        u32(_VNI, tunnel.vni),
        attribute(_LOCAL[tunnel.local.version], tunnel.local.packed),
        attribute(_LEARNING, b"\0"),
        attribute(_PORT, tunnel.port.to_bytes(2, "big")),
    )
    body = _LINK.pack(0, 0, 0, 0, 0)
    body += text(_IFLA_IFNAME, tunnel.name) + attribute(_IFLA_ADDRESS, _mac(tunnel.mac))
    body += u32(_IFLA_MTU, tunnel.mtu) + u32(_IFLA_GROUP, TUNNEL_GROUP)
    body += nested(_IFLA_LINKINFO, text(_INFO_KIND, "vxlan"), data)
    return message(rtnl.NEWLINK, CREATE | EXCLUSIVE, body)


def list_tunnels() -> bytes:
    """Every VXLAN link, and no other."""
    kind = nested(_IFLA_LINKINFO, text(_INFO_KIND, "vxlan"))
    return message(rtnl.GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + kind)


def parse_tunnel(payload: bytes | memoryview) -> TunnelLink:
    """What it is; *tunnel* None: made in a way that none of ours is."""
    link = rtnl.parse_link(payload)
    info = attributes(attributes(payload, 16).get(_IFLA_LINKINFO, b""))
    data = attributes(info.get(_INFO_DATA, b""))
    local = data.get(_LOCAL[4]) or data.get(_LOCAL[6])
    tunnel = None
    if local and not any(data.get(_LEARNING, b"\1")):
        tunnel = Tunnel(
            name=link.name,
            mac=link.mac,
            vni=int.from_bytes(data.get(_VNI, b""), "little"),
            port=int.from_bytes(data.get(_PORT, b""), "big"),
            local=ip_address(local),
            mtu=link.mtu,
        )
    return TunnelLink(
        index=link.index,
        tunnel=tunnel,
        name=link.name,
        up=link.up,
        ours=link.group == TUNNEL_GROUP,
    )


def put_forward(forward: Forward) -> bytes:
    """In place of one for the same MAC, in one step."""
    return message(_NEWNEIGH, CREATE | REPLACE, _forward(forward))


def delete_forward(forward: Forward) -> bytes:
    return message(_DELNEIGH, 0, _forward(forward))


def list_forwards(link: int) -> bytes:
    return message(_GETNEIGH, 0, _NEIGHBOUR.pack(_AF_BRIDGE, link, 0, 0, 0))


def parse_forward(payload: bytes | memoryview) -> Forward | None:
    """None for an entry without a remote host."""
    _, link, _, _, _ = _NEIGHBOUR.unpack_from(payload)
    found = attributes(payload, 12)
    if _NDA_DST not in found or _NDA_LLADDR not in found:
        return None
    return Forward(link, found[_NDA_LLADDR].hex(":"), ip_address(found[_NDA_DST]))


def put_neighbour(neighbour: Neighbour) -> bytes:
    """In place of one for the same address, in one step."""
    return message(_NEWNEIGH, CREATE | REPLACE, _neighbour(neighbour))


def delete_neighbour(neighbour: Neighbour) -> bytes:
    return message(_DELNEIGH, 0, _neighbour(neighbour))


def list_neighbours(family: int, link: int) -> bytes:
    return message(_GETNEIGH, 0, _NEIGHBOUR.pack(family, 0, 0, 0, 0) + u32(_NDA_IFINDEX, link))


def parse_neighbour(payload: bytes | memoryview) -> Neighbour | None:
    """None for one that was not set, but learnt or looked for."""
    family, link, state, _, _ = _NEIGHBOUR.unpack_from(payload)
    found = attributes(payload, 12)
    if not state & _PERMANENT or family == _AF_BRIDGE or _NDA_LLADDR not in found:
        return None
    return Neighbour(link, ip_address(found[_NDA_DST]), found[_NDA_LLADDR].hex(":"))


def _forward(forward: Forward) -> bytes:
    header = _NEIGHBOUR.pack(_AF_BRIDGE, forward.link, _PERMANENT | _NO_ARP, _SELF, 0)
    return (
        header
        + attribute(_NDA_DST, forward.remote.packed)
        + attribute(_NDA_LLADDR, _mac(forward.mac))
    )


def _neighbour(neighbour: Neighbour) -> bytes:
    family = socket.AF_INET if neighbour.address.version == 4 else socket.AF_INET6
    header = _NEIGHBOUR.pack(family, neighbour.link, _PERMANENT, 0, 0)
    return (
        header
        + attribute(_NDA_DST, neighbour.address.packed)
        + attribute(_NDA_LLADDR, _mac(neighbour.mac))
    )


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))
