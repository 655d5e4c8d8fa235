"""Limits and timeouts of conntrack that suit a node with Services, as kube-proxy sets them.

A node that forgets a connection breaks it: half-closed ones are kept for an hour, idle ones for
a day, and as many as fit memory rather than a laptop's share.
"""

import logging
import os
from typing import Protocol

from dataplane.sysctl import SysctlRefused

PER_CORE, FEWEST = 32768, 131072
_MAX = "net/netfilter/nf_conntrack_max"
_TIMEOUTS = {
    "net/netfilter/nf_conntrack_tcp_timeout_established": 86400,
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait": 3600,
}

log = logging.getLogger(__name__)


class Sysctls(Protocol):
    """See dataplane.sysctl.Sysctls."""

    def get(self, name: str) -> str | None: ...
    def ensure(self, name: str, value: str) -> bool: ...


def set_conntrack(sysctls: Sysctls, cores: int = os.cpu_count() or 1) -> list[str]:
    """Returns a complaint for each that is refused, as in a network namespace of its own."""
    complaints: list[str] = []
    wanted = dict(_TIMEOUTS)
    try:
        most = max(FEWEST, PER_CORE * cores)
        if int(sysctls.get(_MAX) or 0) < most:  # more than that somebody had a reason for
            wanted[_MAX] = most
    except (SysctlRefused, ValueError) as exc:
        complaints.append(f"{_MAX}: {exc}")
    for name, value in wanted.items():
        try:
            sysctls.ensure(name, str(value))
        except SysctlRefused as exc:
            complaints.append(str(exc))
    for complaint in complaints:
        log.warning("conntrack is not set as Services want it", extra={"error": complaint})
    return complaints
