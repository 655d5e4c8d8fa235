"""Judgements on the way to other nodes' pods: what has none, and what it cannot carry.

Everything here is a function of its arguments.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from cli.findings import Finding, error, info, warning
from cli.leftovers import is_own_veth
from dataplane.rtnl import Link


def judge_routing(mesh: Mapping[str, Any] | None, links: Iterable[Link]) -> list[Finding]:
    """*mesh* is of the agent's status, None: no ipamd is configured, or the agent is away."""
    if mesh is None:
        return []
    findings = []
    if mesh["trouble"]:
        findings.append(
            error(
                f"routes or masquerade cannot be made: {mesh['trouble']}",
                "what was made before stays, what is new is missing",
                "it is tried again all the time: take away what is in the way",
            )
        )
    routing = mesh["routing"]
    return findings + (_judge_routes(routing, links) if routing else [])


def judge_pools(cluster: Mapping[str, Any] | None, mesh: Mapping[str, Any] | None) -> list[Finding]:
    """*cluster* and *mesh* are of the agent's status: pools that have this node's own address."""
    pools = (cluster or {}).get("pools", {})
    own = ((mesh or {}).get("routing") or {}).get("addresses", ())
    return [
        error(
            f"{address} is this node's address, and of pool {name} ({cidr})",
            "packets to it go to whichever node has that block",
            "drain that pool, and make one of addresses that no node and no Service has",
        )
        for name, cidr in pools.items()
        for address in own
        if ip_address(address) in ip_network(cidr)
    ]


def _judge_routes(routing: Mapping[str, Any], links: Iterable[Link]) -> list[Finding]:
    findings = [
        error(problem, "packets between the pods concerned are lost", "see [routing] of agent.toml")
        for problem in routing["problems"]
        if problem not in routing["refused"]
    ]
    if not routing["in_sync"]:
        findings.append(
            info(
                "routes are as remembered: ipamd has not told of the cluster's blocks yet",
                "nodes that came or moved meanwhile are not reached",
                "see ipamd in isthmus status",
            )
        )
    mtu = routing["mtu"]
    wide = [link.name for link in links if mtu and is_own_veth(link) and link.mtu > mtu]
    if wide:
        findings.append(
            warning(
                f"{len(wide)} containers have an MTU above {mtu}, which is what the way to other "
                f"nodes carries ({', '.join(sorted(wide)[:3])})",
                "their large packets are told to be smaller one by one, or lost where that is "
                "filtered",
                "take `mtu` out of the network configuration, and start these containers anew",
            )
        )
    return findings
