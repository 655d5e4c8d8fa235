"""Judgements on who else's rules are in the way of Services, where isthmus translates them.

Everything here is a function of its arguments.
"""

from collections.abc import Sequence

from cli.findings import Finding, error, warning
from cni.link_config import HOST_PREFIX
from dataplane.firewall import Firewall, ForwardChain

_OUR_TABLES = "isthmus"
_PODS = f"{HOST_PREFIX}+"
_REMEDIES = {
    "Docker": "open_firewall of [services] in agent.toml, or"
    f" iptables -I DOCKER-USER -i {_PODS} -j ACCEPT, and -o {_PODS}; ip6tables likewise",
    "ufw": "open_firewall of [services] in agent.toml, or ufw default allow routed",
    "firewalld": "firewall-cmd --permanent --zone=trusted --add-source=RANGE for each range of"
    " pods, and firewall-cmd --reload",
    "Calico": "take Calico off this node if it is its network no more",
}

_KUBE_PROXY_REMEDIES = {
    "iptables-legacy": "isthmus remove-kube-proxy, where iptables-legacy is installed; else"
    " kube-proxy --cleanup",
    "ipvs": "isthmus remove-kube-proxy, then ipvsadm --clear if nobody else uses IPVS here",
}


def judge_services(firewall: Firewall, kube_proxies: Sequence[str]) -> list[Finding]:
    """*kube_proxies*: in which modes a kube-proxy has rules here."""
    shut = [
        each
        for each in firewall.chains
        if each.is_shut_for(HOST_PREFIX) and not each.table.startswith(_OUR_TABLES)
    ]
    return [_drop(each) for each in shut] + [
        warning(
            f"a kube-proxy has rules here, of mode {mode}",
            "both translate Services: whoever is asked first decides, and it may be outdated",
            _KUBE_PROXY_REMEDIES.get(
                mode, "isthmus remove-kube-proxy, once no kube-proxy runs here"
            ),
        )
        for mode in kube_proxies
    ]


def _drop(chain: ForwardChain) -> Finding:
    owners = chain.owners or ("somebody",)
    remedies = [_REMEDIES[each] for each in owners if each in _REMEDIES]
    return error(
        f"{' and '.join(owners)} drops forwarded packets, by the chain {chain}",
        "packets to pods pass it, translated by Services or not: what any table drops is dropped",
        "; ".join(remedies) or f"open_firewall of [services], or accept {HOST_PREFIX}* in it",
    )
