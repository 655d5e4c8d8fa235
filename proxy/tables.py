"""The nft tables of Services: rules that never change, over maps whose elements do.

A *frontend* is an address, protocol and port (of a NodePort: protocol and port alone).  Its
endpoints have dense slots 0 … N-1 in one map for all frontends, and its verdict names the chain
of the smallest *class* C ≥ N.  That chain draws a slot below C; a miss ends the rule, not the
chain, so the next rule draws again.  What six draws miss is spread over the slots of the class
before, which are all filled.  A packet that read the verdict before a commit and the slot after
it is caught the same way.  So one endpoint more or less is an element or two, whatever else
there is, and no rule.

    prerouting, output ─► services ─┬─► pick-C                       a cluster IP
                                    ├─► external ─► pick-C           policy Cluster: masqueraded
                                    ├─► external-local ─► local-C    policy Local: as it came
                                    └─► refuse, discard               nobody there
    postrouting: what is marked so, and a pod that reaches itself, is masqueraded

Maps say the number of a chain, and only the small maps `ways` and `picks` have chains: each time
an element with a chain is added, the kernel walks all such maps of the table to look for loops
(1 ms for each 8,000 elements).  The number travels in the packet's priority, for these few rules
of a connection's first packet: unlike a mark it decides no route.

No packet mark is used: what is to be masqueraded, and what is to be remembered for session
affinity, has a bit of the connection's label.  Needs Linux 5.9 (reject in prerouting).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dataplane.nft.objects import Chain, Family, Kind, NamedSet, Skeleton

TABLE = "isthmus-services"

CLASSES: tuple[int, ...] = (
    *range(1, 9),
    *(size for power in range(3, 14) for size in (3 << (power - 1), 2 << power)),
)
"""1 to 8, then 12, 16, 24, 32 … 12288, 16384: at most a third of the draws miss."""

LOCAL_SLOT = 1 << 20
"""Where the slots of a frontend's second list begin: the endpoints on this node."""

DRAWS = 6
MASQUERADE_BIT, AFFINITY_BIT = 120, 121
MOST_REMEMBERED = 131072
_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class Maps:
    """The sets and maps of one family, in the order in which they are declared."""

    ways: NamedSet
    picks: NamedSet
    services: NamedSet
    cluster: NamedSet
    local: NamedSet
    endpoints: NamedSet
    nodeports: NamedSet
    nodeport_cluster: NamedSet
    nodeport_local: NamedSet
    nodeport_endpoints: NamedSet
    affinity_of: NamedSet
    affinity_valid: NamedSet
    nodeport_affinity_of: NamedSet
    nodeport_affinity_valid: NamedSet
    cluster_ips: NamedSet
    service_cidrs: NamedSet
    source_ranges: NamedSet
    node_addresses: NamedSet
    pods: NamedSet
    hairpin: NamedSet

    @property
    def all(self) -> tuple[NamedSet, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)


def maps(version: int) -> Maps:
    """The sets and maps for IP *version* 4 or 6."""
    family, address = _FAMILIES[version], _ADDRESSES[version]
    port = (Kind.PROTOCOL, Kind.PORT)
    frontend, endpoint = (address, *port), (address, Kind.PORT)
    number, verdict = (Kind.CLASS,), (Kind.VERDICT,)

    def of(name: str, key: Sequence[Kind], data: Sequence[Kind] = (), *, interval: bool = False
           ) -> NamedSet:  # fmt: skip
        return NamedSet(family, TABLE, name, tuple(key), tuple(data), interval)

    return Maps(
        ways=of("ways", number, verdict),
        picks=of("picks", number, verdict),
        services=of("services", frontend, number),
        cluster=of("cluster", frontend, number),
        local=of("local", frontend, number),
        endpoints=of("endpoints", (*frontend, Kind.SLOT), endpoint),
        nodeports=of("nodeports", port, number),
        nodeport_cluster=of("nodeport-cluster", port, number),
        nodeport_local=of("nodeport-local", port, number),
        nodeport_endpoints=of("nodeport-endpoints", (*port, Kind.SLOT), endpoint),
        affinity_of=of("affinity-of", frontend, verdict),
        affinity_valid=of("affinity-valid", (*frontend, *endpoint)),
        nodeport_affinity_of=of("nodeport-affinity-of", port, verdict),
        nodeport_affinity_valid=of("nodeport-affinity-valid", (*port, *endpoint)),
        cluster_ips=of("cluster-ips", (address,)),
        service_cidrs=of("service-cidrs", (address,), interval=True),
        source_ranges=of("source-ranges", (*frontend, address), interval=True),
        node_addresses=of("node-addresses", (address,), interval=True),
        pods=of("pods", (address,), interval=True),
        hairpin=of("hairpin", (address, address)),
    )


_FAMILIES = {4: Family.IP, 6: Family.IP6}
_ADDRESSES = {4: Kind.ADDRESS4, 6: Kind.ADDRESS6}
MAPS = {version: maps(version) for version in (4, 6)}


def affinity_map(version: int) -> NamedSet:
    """Which client was given which endpoint by which frontend; written by packets."""
    address = _ADDRESSES[version]
    options = f"flags dynamic,timeout; timeout 3h; size {MOST_REMEMBERED};"
    key = (address, address, Kind.PROTOCOL, Kind.PORT)
    return NamedSet(
        _FAMILIES[version], TABLE, "affinity", key, (address, Kind.PORT), options=options
    )


def class_of(count: int) -> int:
    """The smallest class that holds *count* endpoints.  Raises ValueError above the largest."""
    for size in CLASSES:
        if count <= size:
            return size
    raise ValueError(f"{count} endpoints: a frontend has at most {CLASSES[-1]}")


def timeout_chain(seconds: int, *, is_nodeport: bool) -> str:
    """The chain that remembers a client for *seconds*; made when it is needed first."""
    return f"{'nodeport-' if is_nodeport else ''}timeout-{seconds}"


def skeleton(version: int) -> Skeleton:
    """The table for IP *version* 4 or 6, without the chains of affinity timeouts."""
    ip = _WORDS[version]
    return Skeleton(
        _FAMILIES[version],
        TABLE,
        (*MAPS[version].all, affinity_map(version)),
        (
            Chain("refuse", ("meta l4proto tcp reject with tcp reset", "reject")),
            Chain("discard", ("drop",)),
            *_picks(ip, f"{ip} daddr . meta l4proto . th dport", "", "endpoints"),
            *_picks(ip, "meta l4proto . th dport", "nodeport-", "nodeport-endpoints"),
            *_ways_in(ip, f"{ip} daddr . meta l4proto . th dport", "", ""),
            *_ways_in(ip, "meta l4proto . th dport", "nodeport-", "nodeport-"),
            *_firewalls(ip),
            _services(ip),
            *_hooks(ip),
        ),
    )


_WORDS = {4: "ip", 6: "ip6"}


_FORGET_NUMBER = "meta priority set none"


def _goto(key: str, name: str) -> str:
    """Go to the chain whose number map *name* has for *key*; go on where it has none."""
    return f"meta priority set {key} map @{name} meta priority vmap @ways"


def _pick(key: str, name: str) -> str:
    """The same, from a chain that was gone to so: apart, or the kernel would see a loop."""
    return f"meta priority set {key} map @{name} meta priority vmap @picks"


def _picks(ip: str, key: str, prefix: str, endpoints: str) -> Iterable[Chain]:
    """For each class, of all endpoints and of those on this node: without memory, and with."""
    for local, offset in (("pick", ""), ("local", f" offset {LOCAL_SLOT}")):
        for before, size in zip((0, *CLASSES), CLASSES, strict=False):

            def draw(below: int, offset: str = offset) -> str:
                number = f"numgen random mod {below}{offset}"
                return f"dnat {ip} to {key} . {number} map @{endpoints}"

            name = f"{prefix}{local}-{size}"
            draws = (*[draw(size)] * DRAWS, draw(before + 1), draw(1))
            yield Chain(name, (_FORGET_NUMBER, *draws, "drop"))
            yield Chain(
                f"{prefix}sticky-{local}-{size}",
                (
                    _FORGET_NUMBER,
                    f"ct label set {AFFINITY_BIT}",
                    f"dnat {ip} to {ip} saddr . {ip} daddr . meta l4proto . th dport map @affinity",
                    f"goto {name}",
                ),
            )


def _ways_in(ip: str, key: str, prefix: str, maps: str) -> Iterable[Chain]:
    """From outside: a source on this node may go anywhere, and so may pods."""
    mark = f"ct label set {MASQUERADE_BIT}"
    yield Chain(f"{prefix}external", (mark, _pick(key, maps + "cluster"), "goto refuse"))
    yield Chain(
        f"{prefix}external-local",
        (
            f"{ip} saddr @pods {_pick(key, maps + 'cluster')}",
            f"fib saddr type local {mark}",
            f"fib saddr type local {_pick(key, maps + 'cluster')}",
            _pick(key, maps + "local"),
            "drop",
        ),
    )


def _firewalls(ip: str) -> Iterable[Chain]:
    source = f"{ip} daddr . meta l4proto . th dport . {ip} saddr @source-ranges"
    for way in ("external", "external-local", "refuse"):
        yield Chain(f"firewalled-{way}", (f"{source} goto {way}", "drop"))


def _services(ip: str) -> Chain:
    loopback = {"ip": "127.0.0.0/8", "ip6": "::1"}[ip]
    return Chain(
        "services",
        (
            # Answers to others than pods and ourselves would not come back by this node.
            f"{ip} daddr @cluster-ips {ip} saddr != @pods fib saddr type != local "
            f"ct label set {MASQUERADE_BIT}",
            _goto(f"{ip} daddr . meta l4proto . th dport", "services"),
            f"{ip} daddr @cluster-ips goto refuse",
            f"{ip} daddr @service-cidrs drop",
            f"{ip} daddr != {loopback} {ip} daddr @node-addresses fib daddr type local "
            + _goto("meta l4proto . th dport", "nodeports"),
        ),
    )


def _hooks(ip: str) -> Iterable[Chain]:
    yield Chain(
        # Conntrack gives to no nat chain what it calls invalid: it would go on untranslated.
        # Of all hooks this is the one that fewest other packets pass.
        "invalid",
        (f"ct state invalid {ip} daddr @cluster-ips drop",),
        "type filter hook forward priority 0; policy accept;",
    )
    yield Chain(
        "prerouting",
        ("goto services",),
        "type nat hook prerouting priority -100; policy accept;",
    )
    yield Chain("output", ("goto services",), "type nat hook output priority -100; policy accept;")
    # After translation.  Filter chains could do it too, but would cost every packet of all flows.
    for hook in ("input", "postrouting"):
        yield Chain(
            f"remember-{hook}",
            (f"ct label {AFFINITY_BIT} goto remember",),
            f"type nat hook {hook} priority 90; policy accept;",
        )
    yield Chain("remember", tuple(_remember(ip)))
    yield Chain(
        "postrouting",
        (
            f"ct label {MASQUERADE_BIT} masquerade fully-random",
            f"ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random",
        ),
        "type nat hook postrouting priority 100; policy accept;",
    )


def _remember(ip: str) -> Iterable[str]:
    # A port of the original direction has a type only once the rule knows the protocol.
    for protocol in _PROTOCOLS:
        port = "meta l4proto . ct original proto-dst"
        yield f"meta l4proto {protocol} ct original {ip} daddr . {port} vmap @affinity-of"
        yield f"meta l4proto {protocol} {port} vmap @nodeport-affinity-of"


# Here, since they are made of the chains.
_CHAINS = tuple(chain.name for chain in skeleton(4).chains)
PICKS = tuple(
    name
    for name in _CHAINS
    if name.removeprefix("nodeport-").startswith(("pick-", "local-", "sticky-"))
)
WAYS = tuple(name for name in _CHAINS if "external" in name or name.endswith(("refuse", "discard")))
NUMBERS = {name: number for number, name in enumerate((*PICKS, *WAYS), 1)}
"""By which maps name chains; the same in both families."""
