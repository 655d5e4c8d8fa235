"""The nft tables of attachments: their sets, and the rules, which never change.

Packet path:                                        (all of it once a flow: conntrack does the rest)

    wire ─► strangers ─► prerouting ─── routing ── forward ──► postrouting ─► wire
            no 127/8     port of the host? DNAT       │        masquerade what left its network,
    process ───────────► output ─────── routing ──────│──────► what came through a port from next
                         port of the host? DNAT       │        door, and the host's own 127.0.0.1
                                                   loopback ─► process
                                                   no 127/8, each packet

What is in each set: `cni.nat`.  Needs Linux 5.6 and nft 0.9.4, the first with intervals in
concatenations; with macspoofchk also nftables of bridges.
"""

from dataplane.nft.objects import Chain, Family, Kind, NamedSet, Skeleton

TABLE = "isthmus-cni"


def _inet(name: str, key: tuple[Kind, ...], data: tuple[Kind, ...] = ()) -> NamedSet:
    interval = name.startswith(("local", "hairpin"))
    return NamedSet(Family.INET, TABLE, name, key, data, interval)


_PORT = (Kind.PROTOCOL, Kind.PORT)
_A4, _A6 = Kind.ADDRESS4, Kind.ADDRESS6
MASQUERADED = {4: _inet("masq4", (_A4,)), 6: _inet("masq6", (_A6,))}
LOCAL = {4: _inet("local4", (_A4, _A4)), 6: _inet("local6", (_A6, _A6))}
HAIRPIN = {4: _inet("hairpin4", (_A4, _A4)), 6: _inet("hairpin6", (_A6, _A6))}
ANY_HOST_PORT = {
    4: _inet("hostport4_any", _PORT, (_A4, Kind.PORT)),
    6: _inet("hostport6_any", _PORT, (_A6, Kind.PORT)),
}
HOST_PORT = {
    4: _inet("hostport4", (_A4, *_PORT), (_A4, Kind.PORT)),
    6: _inet("hostport6", (_A6, *_PORT), (_A6, Kind.PORT)),
}
GUARDED = NamedSet(Family.BRIDGE, TABLE, "guarded", (Kind.IFNAME,))
PERMITTED = NamedSet(Family.BRIDGE, TABLE, "permitted", (Kind.IFNAME, Kind.MAC))

_TO_HOST = "meta l4proto { tcp, udp, sctp } fib daddr type local"
_MASQUERADE = "masquerade fully-random"
# The address first: a packet that has none of these is done with soonest.
_STRANGE = tuple(f'ip {side} 127.0.0.0/8 iif != "lo" drop' for side in ("daddr", "saddr"))

NAT = Skeleton(
    Family.INET,
    TABLE,
    tuple(
        each[version]
        for version in (4, 6)
        for each in (MASQUERADED, LOCAL, HAIRPIN, ANY_HOST_PORT, HOST_PORT)
    ),
    (
        Chain(
            "hostports",
            (
                "dnat ip to ip daddr . meta l4proto . th dport map @hostport4",
                "dnat ip to meta l4proto . th dport map @hostport4_any",
                "dnat ip6 to ip6 daddr . meta l4proto . th dport map @hostport6",
                "dnat ip6 to meta l4proto . th dport map @hostport6_any",
            ),
        ),
        # Towards pods route_localnet is on, so that 127.0.0.1:port can reach them; nobody on the
        # wire may use that (CVE-2020-8558).  A new flow is dropped before anybody translates it.
        Chain("strangers", _STRANGE, "type nat hook prerouting priority -199; policy accept;"),
        Chain(
            # What no nat chain is given: invalid, untracked, or of a flow on the loopback link.
            # Not in prerouting: a chain there costs each packet between pods two in a hundred of
            # its way.  What was sent to another address and then translated may pass.
            "loopback",
            ("ip daddr 127.0.0.0/8 ct status dnat accept", *_STRANGE),
            "type filter hook input priority filter; policy accept;",
        ),
        Chain(
            "prerouting",
            (f"{_TO_HOST} jump hostports",),
            "type nat hook prerouting priority dstnat; policy accept;",
        ),
        Chain(
            # The name dstnat is refused here.  IPv6 has no route_localnet: ::1 stays the host's.
            "output",
            (
                f"meta nfproto ipv4 {_TO_HOST} jump hostports",
                f"ip6 daddr != ::1 {_TO_HOST} jump hostports",
            ),
            "type nat hook output priority -100; policy accept;",
        ),
        Chain(
            "postrouting",
            (
                "ip saddr @masq4 ip daddr != 224.0.0.0/4 ip saddr . ip daddr != @local4 "
                + _MASQUERADE,
                "ip6 saddr @masq6 ip6 daddr != ff00::/8 ip6 saddr . ip6 daddr != @local6 "
                + _MASQUERADE,
                f"ct status dnat ip saddr . ip daddr @hairpin4 {_MASQUERADE}",
                f"ct status dnat ip6 saddr . ip6 daddr @hairpin6 {_MASQUERADE}",
                f'ct status dnat oifname != "lo" ip saddr 127.0.0.0/8 {_MASQUERADE}',
            ),
            "type nat hook postrouting priority srcnat; policy accept;",
        ),
    ),
)

MAC_GUARD = Skeleton(
    Family.BRIDGE,
    TABLE,
    (GUARDED, PERMITTED),
    (
        Chain(
            "prerouting",
            ("iifname @guarded iifname . ether saddr != @permitted drop",),
            "type filter hook prerouting priority -300; policy accept;",
        ),
    ),
)


def skeleton() -> str:
    """Both tables without elements, as nft text."""
    return NAT.script() + MAC_GUARD.script()
