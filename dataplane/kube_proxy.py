"""kube-proxy's rules, of one that runs or of one that is gone: found, and taken away on request.

In nftables mode it has a table `kube-proxy` in each family; in iptables mode (iptables-nft)
chains KUBE-… in the tables nat, filter and mangle, of which the kubelet has some itself.
iptables-legacy and IPVS are not looked for: `kube-proxy --cleanup` takes them away.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from dataplane.nft.objects import Family
from dataplane.programs import run

FAMILIES = (Family.IP, Family.IP6)
_OWN_TABLE = "kube-proxy"
_SIGNS = {
    "nftables": (_OWN_TABLE, "services"),
    "iptables": ("nat", "KUBE-SERVICES"),
}
_SHARED = ("nat", "filter", "mangle")
_KUBELETS = frozenset(
    {"KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-MARK-DROP"}
)

HasChain = Callable[[Family, str, str], bool]
"""Whether a table of a family has a chain; raises NetlinkError."""


def modes(has_chain: HasChain) -> list[str]:
    """In which modes a kube-proxy translates, or did and left its rules.  Raises NetlinkError."""
    return [
        mode
        for mode, (table, chain) in _SIGNS.items()
        if any(has_chain(family, table, chain) for family in FAMILIES)
    ]


def removal() -> str:
    """The nft script, one transaction, that takes away all of it; "" where nothing is there.

    Raises ProgramMissing.
    """
    lines: list[str] = []
    for family in ("ip", "ip6"):
        if _listed(family, _OWN_TABLE):
            lines.append(f"delete table {family} {_OWN_TABLE}")
        for table in _SHARED:
            if listed := _listed(family, table):
                lines += chains_removal(listed)
    return "".join(f"{line}\n" for line in lines)


def chains_removal(listed: str) -> list[str]:
    """What takes kube-proxy's chains out of a table that nft listed as JSON."""
    found: dict[str, list[dict[str, Any]]] = {"chain": [], "rule": []}
    for entry in json.loads(listed)["nftables"]:
        for kind, members in found.items():
            if kind in entry:
                members.append(entry[kind])
    chains = [each for each in found["chain"] if _is_own(each["name"])]
    leading = [
        each
        for each in found["rule"]
        if not _is_own(each["chain"]) and any(map(_is_own, _targets(each)))
    ]
    # First whatever refers to a chain.
    return [
        *(f"delete rule {_place(each, 'chain')} handle {each['handle']}" for each in leading),
        *(f"flush chain {_place(each, 'name')}" for each in chains),
        *(f"delete chain {_place(each, 'name')}" for each in chains),
    ]


def _listed(family: str, table: str) -> str:
    done = run(["nft", "--json", "list", "table", family, table])
    return "" if done.status else done.stdout


def _is_own(chain: str) -> bool:
    return chain.startswith("KUBE-") and chain not in _KUBELETS


def _targets(rule: dict[str, Any]) -> Iterator[str]:
    for expression in rule["expr"]:
        for verdict in ("jump", "goto"):
            if verdict in expression:
                yield expression[verdict]["target"]


def _place(each: dict[str, Any], chain: str) -> str:
    return f"{each['family']} {each['table']} {each[chain]}"
