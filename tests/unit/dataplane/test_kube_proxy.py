"""kube-proxy's rules are told from the kubelet's and everybody else's."""

import json
from typing import Any

from dataplane.kube_proxy import chains_removal, modes
from dataplane.nft.objects import Family


def chain(name: str) -> dict[str, Any]:
    return {"chain": {"family": "ip", "table": "nat", "name": name, "handle": 1}}


def rule(chain: str, handle: int, *expr: dict[str, Any]) -> dict[str, Any]:
    place = {"family": "ip", "table": "nat", "chain": chain}
    return {"rule": {**place, "handle": handle, "expr": list(expr)}}


def jump(target: str) -> dict[str, Any]:
    return {"jump": {"target": target}}


def listed(*entries: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *entries]})


def test_each_mode_is_known_by_a_chain_of_either_family() -> None:
    chains = {
        (Family.IP6, "kube-proxy", "services"): ["nftables"],
        (Family.IP, "nat", "KUBE-SERVICES"): ["iptables"],
        (Family.IP, "nat", "PREROUTING"): [],
    }

    for there, mode in chains.items():
        assert modes(lambda *asked, there=there: asked == there) == mode


def test_whatever_leads_to_its_chains_goes_before_them() -> None:
    found = chains_removal(
        listed(
            chain("PREROUTING"),
            chain("KUBE-SERVICES"),
            chain("KUBE-SVC-X"),
            rule("PREROUTING", 5, {"counter": None}, jump("KUBE-SERVICES")),
            rule("KUBE-SERVICES", 6, {"xt": None}, jump("KUBE-SVC-X")),
        )
    )

    assert found == [
        "delete rule ip nat PREROUTING handle 5",
        "flush chain ip nat KUBE-SERVICES",
        "flush chain ip nat KUBE-SVC-X",
        "delete chain ip nat KUBE-SERVICES",
        "delete chain ip nat KUBE-SVC-X",
    ]


def test_what_the_kubelet_and_others_have_stays() -> None:
    found = chains_removal(
        listed(
            chain("PREROUTING"),
            chain("KUBE-FIREWALL"),
            chain("KUBE-KUBELET-CANARY"),
            chain("DOCKER"),
            rule("PREROUTING", 5, jump("DOCKER")),
            rule("PREROUTING", 6, jump("KUBE-FIREWALL")),
            rule("PREROUTING", 7, {"drop": None}),
        )
    )

    assert found == []
