"""kube-proxy's rules, of one that runs or of one that is gone: found, and taken away on request.

In nftables mode it has a table `kube-proxy` in each family; in iptables mode chains KUBE-… in the
tables nat, filter and mangle, of iptables-nft or of iptables-legacy, of which the kubelet has some
itself; in IPVS mode some of these, and the link `kube-ipvs0` with every address of a Service.
Virtual servers of IPVS may be somebody else's: of them it is told only how they are taken away.
"""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

from dataplane import iptables_legacy
from dataplane.netlink import Netlink
from dataplane.nft.elements import Elements
from dataplane.nft.objects import Family
from dataplane.nft.runner import NftRunner
from dataplane.programs import ProgramMissing, run
from dataplane.rtnl import delete_link

FAMILIES = (Family.IP, Family.IP6)
_OWN_TABLE = "kube-proxy"
NFTABLES, IPTABLES, LEGACY, IPVS = "nftables", "iptables", "iptables-legacy", "ipvs"
_IPTABLES_SIGN = "nat", "KUBE-SERVICES"
_IPVS_LINK = "kube-ipvs0"
_SHARED = ("nat", "filter", "mangle")
_KUBELETS = frozenset(
    {"KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-MARK-DROP"}
)

HasChain = Callable[[Family, str, str], bool]
"""Whether a table of a family has a chain; raises DataplaneError."""


def look(elements: Elements) -> list[str]:
    """In which modes a kube-proxy translates here, or did and left its rules.

    Raises DataplaneError.
    """
    return modes(elements.has_chain, iptables_legacy.has_chain, _has_link)


def modes(
    has_chain: HasChain, has_legacy_chain: HasChain, has_link: Callable[[str], bool]
) -> list[str]:
    """The same, of what these say is there."""
    found = {
        NFTABLES: any(has_chain(family, _OWN_TABLE, "services") for family in FAMILIES),
        IPTABLES: any(has_chain(family, *_IPTABLES_SIGN) for family in FAMILIES),
        LEGACY: any(has_legacy_chain(family, *_IPTABLES_SIGN) for family in FAMILIES),
        IPVS: has_link(_IPVS_LINK),
    }
    return [mode for mode, is_there in found.items() if is_there]


def remove(elements: Elements) -> list[str]:
    """Take away all of it; returns in which modes it was.  Raises DataplaneError."""
    found = look(elements)
    if LEGACY in found:
        # First: it is the one whose program may be missing.
        for family in FAMILIES:
            if iptables_legacy.has_chain(family, *_IPTABLES_SIGN):
                _remove_legacy(iptables_legacy.PROGRAMS[family])
    if script := removal():
        NftRunner().load(script)
    if IPVS in found:
        with Netlink() as netlink:
            netlink.transact([delete_link(_IPVS_LINK)], tolerate=lambda exc: exc.absent)
    return found


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


def _remove_legacy(program: str) -> None:
    saved = run([f"{program}-save"])
    done = run([f"{program}-restore", "--noflush"], stdin=legacy_removal(saved.stdout))
    if complaint := next((one.complaint for one in (saved, done) if one.status), ""):
        raise ProgramMissing(f"{program}: {complaint}")


def legacy_removal(saved: str) -> str:
    """What takes kube-proxy's chains out of tables that iptables-save wrote, for its restore."""
    lines: list[str] = []
    chains: list[str] = []
    for line in saved.splitlines():
        match line.split():
            case [table] if table.startswith("*"):
                lines.append(table)
            case [chain, *_] if chain.startswith(":") and _is_own(chain[1:]):
                chains.append(chain[1:])
            case ["-A", chain, *rest] if not _is_own(chain) and any(map(_is_own, rest[-1:])):
                lines.append(line.replace("-A", "-D", 1))
            case ["COMMIT"]:
                lines += [f"-F {chain}" for chain in chains]
                lines += [f"-X {chain}" for chain in chains]
                lines.append("COMMIT")
                chains = []
    return "".join(f"{line}\n" for line in lines)


def _has_link(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


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
