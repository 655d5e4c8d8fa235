"""Judgements on who answers on the local network for addresses of Services.

Everything here is a function of its arguments.
"""

from collections.abc import Mapping
from typing import Any

from cli.findings import Finding, error, info, warning

_FORGED = ("sealed with another key", "said before", "our own words", "of no node that we know")
"""Of what is refused: what no node of ours sends, late or after a restart."""


def judge_announcing(announcing: Mapping[str, Any] | None) -> list[Finding]:
    """*announcing* is of the agent's status, None: it announces nothing, or is away."""
    if not announcing:
        return []
    findings = [_problem(each, announcing) for each in announcing["problems"]]
    if announcing["unfit"]:
        findings.append(
            info(
                f"this node answers for no address of Services: {announcing['unfit']}",
                "other nodes do",
                "nothing, if that is meant",
            )
        )
    refused = {why: number for why, number in announcing["refused"].items() if why in _FORGED}
    for why, number in sorted(refused.items()):
        findings.append(
            warning(
                f"{number} heartbeats were refused: {why}",
                "somebody sends to the port what no node has said, or a former node still runs",
                "see by whom: tcpdump udp port 9479; and let nobody but nodes reach the port",
            )
        )
    return findings


def _problem(line: str, announcing: Mapping[str, Any]) -> Finding:
    if not announcing["is_many"]:
        return error(
            line,
            "this node answers for no address of Services, and perhaps nobody does",
            "open port 9479 (TCP, UDP) between nodes; isthmus ipam drain what will not come back",
        )
    return warning(
        line,
        "who answers for an address of Services may be wrong, or late to change",
        "open port 9479 (TCP, UDP) between nodes; see docs/services.md, LoadBalancer",
    )
