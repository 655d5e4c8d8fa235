"""Which tunnels, routes and entries a node should have.  Everything is a function of its arguments.

    block of a node on our link   block via its address, dev uplink                     (direct)
    block of any other node       block via GATEWAY, dev tunnel, src ours               (VXLAN)
                                  GATEWAY lladdr MAC, dev tunnel                        neighbour
                                  MAC dst its address, dev tunnel                       forwarding
    a node behind a tunnel        in a table of their own, for what our pods send:
                                  its addresses via GATEWAY, dev tunnel
    a block of our own            unreachable: what no pod's own route leads to ends here

What a pod sends to such a node keeps the pod's address, which the network between may know nothing
of, and the node answers through the tunnel: so it has to come through it.  For the same reason the
host's own packets to pods have its address among nodes, if it has one of that IP version.

GATEWAY is a name only, which no packet carries: the lowest IPv4 address of the node's blocks, or
a link-local one made of its MAC.  MAC is made of its name.  So each block costs a route, and each
node two neighbours and one entry, in whatever families its pods and its address are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_network

from dataplane.fabric_model import (
    OVERHEAD,
    BlockRoute,
    Forward,
    Neighbour,
    OnLink,
    Programmed,
    Rule,
    Source,
    Tunnel,
)
from ipam.calls import TableRow
from ipam.cluster import BlockState
from ipam.holdings import OwnBlock, OwnState
from net.address import IPAddress, IPNetwork
from routing.model import Direct, Hop, Local, Peer, Through
from routing.names import (
    NODE_TABLE,
    ROUTE_PRIORITY,
    UNREACHABLE_PRIORITY,
    tunnel_gateway,
    tunnel_mac,
    tunnel_name,
)
from routing.settings import Mode, Settings

Hops = Mapping[tuple[str, int], Hop]
"""How to reach the blocks of a node, by its name and their IP version; none: not at all."""

_SERVED = (BlockState.ACTIVE, BlockState.DRAINING)


def peers(rows: Iterable[TableRow], local: Local) -> tuple[Peer, ...]:
    """The other nodes of the table, but for blocks that are ours; of two addresses the later."""
    blocks: dict[str, list[IPNetwork]] = {}
    latest: dict[str, TableRow] = {}
    for row in rows:
        if row.node == local.name or row.state not in _SERVED or row.cidr in local.blocks:
            continue
        blocks.setdefault(row.node, []).append(row.cidr)
        if row.node not in latest or latest[row.node].epoch <= row.epoch:
            latest[row.node] = row
    return tuple(
        Peer(name=name, addresses=latest[name].addresses, blocks=tuple(blocks[name]))
        for name in sorted(blocks)
    )


def own_blocks(
    name: str, rows: Iterable[TableRow], held: Iterable[OwnBlock]
) -> frozenset[IPNetwork]:
    """What is ours by our own store, or by the table, which may be ahead of it."""
    lost = {block.cidr for block in held if block.state is OwnState.LOST}
    ours = {row.cidr for row in rows if row.node == name and row.state in _SERVED}
    return frozenset({block.cidr for block in held} | ours) - lost


def sources(held: Iterable[OwnBlock]) -> dict[int, IPAddress]:
    """The host's own addresses among the pods': the network address of the oldest block, which
    no pod has."""
    found: dict[int, IPAddress] = {}
    for block in sorted(held, key=lambda block: (block.revision, str(block.cidr))):
        if block.state in (OwnState.ACTIVE, OwnState.DRAINING):
            found.setdefault(block.cidr.version, block.cidr.network_address)
    return found


def hops(local: Local, others: Iterable[Peer], mode: Mode) -> dict[tuple[str, int], Hop]:
    """How each node is reached, where it can be."""
    found: dict[tuple[str, int], Hop] = {}
    for peer in others:
        for version in {block.version for block in peer.blocks}:
            hop = _hop(local, peer, version, mode)
            if hop is not None:
                found[peer.name, version] = hop
    return found


def _hop(local: Local, peer: Peer, version: int, mode: Mode) -> Hop | None:
    # IPv6 packets have no IPv4 next hop, and we name none the other way round.
    if mode is not Mode.VXLAN:
        for address in peer.addresses:
            link = _link_of(address, local.on_link) if address.version == version else 0
            if link and address not in local.addresses.values():
                return Direct(link, address)
    if mode is Mode.DIRECT:
        return None
    for outer in (4, 6):
        for address in peer.addresses:
            ours = local.addresses.get(outer)
            if address.version == outer and ours is not None and address != ours:
                return Through(address)
    return None


def _link_of(address: IPAddress, on_link: Iterable[OnLink]) -> int:
    """The link of the narrowest network that has *address*; 0: none has."""
    found = [one for one in on_link if address in one.network]
    return max(found, key=lambda one: one.network.prefixlen).link if found else 0


def tunnels(local: Local, ways: Hops, settings: Settings) -> tuple[Tunnel, ...]:
    """The VXLAN links that these hops go through, one for each IP version of packets."""
    outer = {way.remote.version for way in ways.values() if isinstance(way, Through)}
    return tuple(
        Tunnel(
            name=tunnel_name(settings.device, version),
            mac=tunnel_mac(local.name),
            vni=settings.vni,
            port=settings.port,
            local=local.addresses[version],
            mtu=settings.mtu or local.mtus.get(version, 1500) - OVERHEAD[version],
        )
        for version in sorted(outer)
    )


def plan(local: Local, others: Iterable[Peer], ways: Hops, links: Mapping[int, int]) -> Programmed:
    """All that should be programmed; *links* are the tunnels' indices by IP version."""
    parts = [_own(local)]
    for peer in others:
        for version in {block.version for block in peer.blocks}:
            blocks = [block for block in peer.blocks if block.version == version]
            way = ways.get((peer.name, version))
            if isinstance(way, Direct):
                routes = (BlockRoute(block, ROUTE_PRIORITY, way.link, way.via) for block in blocks)
                parts.append(Programmed(routes=frozenset(routes)))
            elif way is not None and (link := links.get(way.remote.version)):
                parts.append(_through(local, peer, blocks, link, way.remote))
    whole = _union(parts)
    tabled = [route.dst for route in whole.routes if route.table]
    rules = (
        Rule(block, _around(nodes), NODE_TABLE)
        for block in local.blocks
        if (nodes := [node for node in tabled if node.version == block.version])
    )
    return replace(whole, rules=frozenset(rules))


def _around(networks: list[IPNetwork]) -> IPNetwork:
    """The smallest network that has all of them.

    What is elsewhere, as pods mostly are, need not be looked for in vain by each packet.
    """
    first = min(int(one.network_address) for one in networks)
    last = max(int(one.broadcast_address) for one in networks)
    length = networks[0].max_prefixlen - (first ^ last).bit_length()
    return ip_network((networks[0].network_address, length), strict=False)


def _own(local: Local) -> Programmed:
    routes = (BlockRoute(block, UNREACHABLE_PRIORITY) for block in local.blocks)
    return Programmed(routes=frozenset(routes))


def _through(
    local: Local, peer: Peer, blocks: list[IPNetwork], link: int, remote: IPAddress
) -> Programmed:
    """What leads to *blocks* of *peer*, all of one IP version, and to its addresses of that."""
    version, mac = blocks[0].version, tunnel_mac(peer.name)
    via = min(block.network_address for block in blocks) if version == 4 else tunnel_gateway(mac)
    source, sources = local.sources.get(version), frozenset[Source]()
    if version in local.mtus:
        source = local.addresses[version]
    elif source is not None:
        sources = frozenset({Source(link, source)})
    nodes = (ip_network(one.packed) for one in peer.addresses if one.version == version)
    return Programmed(
        routes=frozenset(
            [BlockRoute(block, ROUTE_PRIORITY, link, via, source) for block in blocks]
            + [BlockRoute(node, ROUTE_PRIORITY, link, via, None, NODE_TABLE) for node in nodes]
        ),
        neighbours=frozenset({Neighbour(link, via, mac)}),
        forwards=frozenset({Forward(link, mac, remote)}),
        sources=sources,
    )


def _union(parts: list[Programmed]) -> Programmed:
    # Of two nodes that say they have one address, the later has it.
    routes = {route.key: route for part in parts for route in part.routes}
    return Programmed(
        routes=frozenset(routes.values()),
        neighbours=frozenset().union(*(part.neighbours for part in parts)),
        forwards=frozenset().union(*(part.forwards for part in parts)),
        sources=frozenset().union(*(part.sources for part in parts)),
    )


def pod_mtu(local: Local, settings: Settings) -> int:
    """What pods may send at once; 0: nothing is known of our link.

    Where a tunnel may come to be used it is left room for, also while none is.
    """
    if settings.mtu:
        return settings.mtu
    mtu = min(local.mtus.values(), default=0)
    if not mtu or settings.mode is Mode.DIRECT:
        return mtu
    return mtu - OVERHEAD[min(local.mtus)]


def problems(local: Local, others: Iterable[Peer], ways: Hops, settings: Settings) -> list[str]:
    """What cannot be, a line each."""
    found = []
    for peer in others:
        found += [
            f"blocks of node {peer.name} are out of reach ({', '.join(map(str, blocks))}): "
            + _reason(local, peer, settings.mode)
            for version in (4, 6)
            if (blocks := [block for block in peer.blocks if block.version == version])
            and (peer.name, version) not in ways
        ]
    mtu = pod_mtu(local, settings)
    six = any(block.version == 6 for block in local.blocks)
    if six and 0 < mtu < 1280:
        found.append(f"pods' MTU is {mtu}, and IPv6 needs 1280: the link's MTU is too small")
    tunnelled = settings.mode is not Mode.DIRECT
    room = min((mtu - tunnelled * OVERHEAD[v] for v, mtu in local.mtus.items()), default=0)
    if 0 < room < settings.mtu:
        why = (
            f"VXLAN leaves {room} bytes of the link's MTU" if tunnelled else f"the link has {room}"
        )
        found.append(f"mtu = {settings.mtu} is too large: {why}")
    return found


def _reason(local: Local, peer: Peer, mode: Mode) -> str:
    if not peer.addresses:
        return "no address of it is known"
    theirs = ", ".join(map(str, peer.addresses))
    if set(peer.addresses) & set(local.addresses.values()):
        return f"it says that it has our address ({theirs})"
    if mode is Mode.DIRECT:
        return f"no address of theirs of that family ({theirs}) is on a link of ours"
    return f"we have no address of a family of its own ({theirs})"
