"""The nft table of the translation: its rules, which never change, and its sets.

    pod ─► … forward ─► postrouting: from a pool that is masqueraded, to an address
                        that is kept?  no: masquerade, with a random port  ─► uplink

All of it once a flow: conntrack does the rest.  The table comes after those that translate for a
reason of their own, since the first translation of a flow is the only one.

A key is the address twice: intervals of one field are written to the kernel in another way than
those of several, and this is the way that our elements know.
"""

from dataplane.nft.objects import Chain, Family, Kind, NamedSet, Skeleton

TABLE = "isthmus-masquerade"


def _sets(name: str) -> dict[int, NamedSet]:
    kinds = {4: Kind.ADDRESS4, 6: Kind.ADDRESS6}
    return {
        version: NamedSet(Family.INET, TABLE, f"{name}{version}", (kind,) * 2, interval=True)
        for version, kind in kinds.items()
    }


PODS = _sets("pods")
KEPT = _sets("kept")

SKELETON = Skeleton(
    Family.INET,
    TABLE,
    (*PODS.values(), *KEPT.values()),
    (
        Chain(
            "leaving",
            (
                "ip saddr . ip saddr @pods4 ip daddr != 224.0.0.0/4 "
                "ip daddr . ip daddr != @kept4 masquerade fully-random",
                "ip6 saddr . ip6 saddr @pods6 ip6 daddr != ff00::/8 "
                "ip6 daddr . ip6 daddr != @kept6 masquerade fully-random",
            ),
            "type nat hook postrouting priority srcnat + 10; policy accept;",
        ),
    ),
)
