"""Judgements on the agent: does it serve, and does anything wait for it?

Everything here is a function of its arguments.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cli.findings import Finding, error, info, warning
from cli.judge_files import Network


def judge_agent(
    status: Mapping[str, Any] | None, away: str, networks: Sequence[Network]
) -> list[Finding]:
    """*status* is None where the agent is away; *away* then says why."""
    if status is None:
        if networks and all(network.standalone for network in networks):
            return [info(away, "the networks here are standalone and work without", "nothing")]
        return [
            error(
                away,
                "containers cannot be attached; deletions are kept until it runs",
                "systemctl start isthmus-agent, and look at journalctl -u isthmus-agent",
            )
        ]
    if status["serving"]:
        return []
    return [
        error(f"the agent does not serve: {reason}", "every ADD fails", "see the agent's log")
        for reason in status["reasons"] or ["it gives no reason"]
    ]


def judge_spool(entries: int, *, agent_runs: bool) -> list[Finding]:
    """Deletions that nobody has carried out yet."""
    if not entries:
        return []
    what = f"{entries} deletions wait in the spool"
    if agent_runs:
        return [
            warning(
                what,
                "an agent that runs takes them at once: these it cannot carry out",
                "look for `spool` in the agent's log",
            )
        ]
    return [info(what, "their addresses are held until then", "start the agent")]


def judge_boot(
    records: Iterable[Mapping[str, Any]], boot_id: str, *, store_age_s: float | None
) -> list[Finding]:
    """Leases of an earlier boot, and a clock that went back.

    *store_age_s* is the clock's now minus the store's last change, in seconds.
    """
    findings = []
    if old := [row for row in records if row["boot_id"] != boot_id]:
        findings.append(
            info(
                f"{len(old)} leases are of an earlier boot",
                "their containers ended with it",
                "nothing: the agent frees them after its grace period",
            )
        )
    if store_age_s is not None and store_age_s < -60:
        findings.append(
            warning(
                f"the clock is {-store_age_s:.0f} s behind the last change of the store",
                "certificates and logs suffer; isthmus itself counts by the time since boot",
                "synchronize the clock (timedatectl set-ntp true)",
            )
        )
    return findings
