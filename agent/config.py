"""The agent's configuration file (TOML), checked key by key into one frozen value."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.placement import InstallConfig
from masquerade.settings import Settings as MasqueradeConfig
from net import settings
from net.address import IPAddress
from net.settings import ConfigError, LogFormat, LogLevel
from routing.settings import Mode
from routing.settings import Settings as RoutingConfig

DEFAULT_PATH = Path("/etc/isthmus/agent.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class IpamdConfig:
    """Where this node's blocks come from, and as whom it asks.

    *node* is the name in its certificate; *addresses* are those by which other nodes reach
    this one, none: the one from which it reaches ipamd.
    """

    endpoints: tuple[str, ...]
    ca: Path
    certificate: Path
    key: Path
    node: str = field(default_factory=socket.gethostname)
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    addresses: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What an operator can set; times are in seconds.

    *cooldown_s*: how long a released address rests; *reconcile_interval_s*: how often kernel
    and store are compared; *grace_s*: how long an attachment must have been seen dead before
    it is freed; *max_parallel*, *max_queued*: requests in work, and waiting for a turn;
    *status_counts_addresses*: whether STATUS fails when no address is free (it makes a
    Kubernetes node NotReady); *ipamd* None: addresses are given from ranges in network
    configurations alone; *routing* None: others route between nodes; *masquerade* None: what
    pods send keeps its address, or networks say otherwise; *install* None: plugin and network
    list were put by somebody else.
    """

    socket: Path = Path("/run/isthmus/agent.sock")
    state_dir: Path = Path("/var/lib/isthmus")
    log_format: LogFormat = LogFormat.AUTO
    log_level: LogLevel = LogLevel.INFO
    metrics_address: str = ""
    cooldown_s: float = 30.0
    reconcile_interval_s: float = 60.0
    grace_s: float = 60.0
    max_parallel: int = 32
    max_queued: int = 1024
    status_counts_addresses: bool = False
    ipamd: IpamdConfig | None = None
    routing: RoutingConfig | None = None
    masquerade: MasqueradeConfig | None = None
    install: InstallConfig | None = None

    @property
    def database(self) -> Path:
        return self.state_dir / "isthmus.db"

    @property
    def spool_dir(self) -> Path:
        return self.state_dir / "spool"

    @property
    def lost(self) -> Path:
        """There from a loss of the store until what it told of was looked for."""
        return self.state_dir / "lost"

    @property
    def lock(self) -> Path:
        return self.state_dir / "lock"

    @property
    def sysctl_ledger(self) -> Path:
        return self.state_dir / "sysctl.json"


def _endpoints(value: object) -> tuple[str, ...]:
    if not (found := settings.endpoints(value)):
        raise ValueError('must be a list of host:port, with one at least, as ["10.0.0.1:9476"]')
    return found


_IPAMD_CHECKS: Mapping[str, settings.Check] = {
    "endpoints": _endpoints,
    "ca": settings.absolute_path,
    "certificate": settings.absolute_path,
    "key": settings.absolute_path,
    "node": settings.word,
    "labels": settings.labels,
    "addresses": settings.addresses,
}


def _device(value: object) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,13}", str(value)) or type(value) is not str:
        raise ValueError("must be 1 to 14 letters, digits, '.', '-' or '_', a letter first")
    return value


_ROUTING_CHECKS: Mapping[str, settings.Check] = {
    "mode": settings.one_of(Mode),
    "vni": settings.whole_number(1, 0xFFFFFF),
    "port": settings.whole_number(1, 65535),
    "device": _device,
    "mtu": settings.whole_number(0, 65535),
}

_MASQUERADE_CHECKS: Mapping[str, settings.Check] = {
    "non_masquerade_cidrs": settings.networks,
    "masquerade_link_local": settings.true_or_false,
}

_INSTALL_CHECKS: Mapping[str, settings.Check] = {
    "network_list": settings.absolute_path,
    "launcher": settings.absolute_path,
    "bin_dir": settings.absolute_path,
    "conf_dir": settings.absolute_path,
}

_CHECKS: Mapping[str, settings.Check] = {
    "socket": settings.absolute_path,
    "state_dir": settings.absolute_path,
    "log_format": settings.one_of(LogFormat),
    "log_level": settings.one_of(LogLevel),
    "metrics_address": settings.metrics_address,
    "cooldown_s": settings.number(0, 3600),
    "reconcile_interval_s": settings.number(0.1, 3600),
    "grace_s": settings.number(0, 86400),
    "max_parallel": settings.whole_number(1, 256),
    "max_queued": settings.whole_number(1, 65536),
    "status_counts_addresses": settings.true_or_false,
    "ipamd": settings.table(IpamdConfig, _IPAMD_CHECKS),
    "routing": settings.table(RoutingConfig, _ROUTING_CHECKS),
    "masquerade": settings.table(MasqueradeConfig, _MASQUERADE_CHECKS),
    "install": settings.table(InstallConfig, _INSTALL_CHECKS),
}


def load(path: Path | None) -> AgentConfig:
    """Read *path*, or the default place, where no file means all defaults.

    Raises ConfigError naming every wrong key, its value and what is allowed.
    """
    if path is None and not DEFAULT_PATH.exists():
        return AgentConfig()
    return settings.load(path or DEFAULT_PATH, parse)


def parse(document: Mapping[str, Any]) -> AgentConfig:
    """Check *document*; raises ConfigError with a line for each wrong key."""
    found = settings.checked(AgentConfig, document, _CHECKS)
    idle = [name for name in ("routing", "masquerade") if getattr(found, name)]
    if found.ipamd is None and idle:
        raise ConfigError(
            "\n".join(f"[{name}] needs [ipamd], who says which node has which" for name in idle)
        )
    return found
