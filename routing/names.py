"""Names and numbers of what routing makes, the same on every node that knows a node's name."""

import hashlib
from functools import lru_cache
from ipaddress import IPv6Address

# Ours lose against routes that others set to the same destination on purpose; what leads nowhere
# loses against all, a bridge's own subnet first of all.
ROUTE_PRIORITY = 512
UNREACHABLE_PRIORITY = 65535
# Where the addresses of nodes behind tunnels are, for packets of pods alone.
NODE_TABLE = 177
_REMEMBERED = 4096  # asked anew for each node in each round


def tunnel_name(device: str, version: int) -> str:
    """The VXLAN link whose packets travel as IPv4 or IPv6."""
    return f"{device}{version}"


@lru_cache(_REMEMBERED)
def tunnel_mac(node: str) -> str:
    """The MAC of a node's tunnels: 02 and five bytes of a digest.

    Nobody has to be told: others compute it.  Two of a thousand nodes have the same one once in
    two million clusters.
    """
    return "02:" + hashlib.sha256(f"tunnel\0{node}".encode()).digest()[:5].hex(":")


@lru_cache(_REMEMBERED)
def tunnel_gateway(mac: str) -> IPv6Address:
    """The link-local address by which IPv6 routes name a node behind a tunnel.

    As the node would make it of its MAC (RFC 4291, appendix A).  Nobody has it: an entry says
    where it is.
    """
    first, *rest = bytes.fromhex(mac.replace(":", ""))
    host = bytes([first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])
    return IPv6Address(bytes.fromhex("fe80000000000000") + host)
