"""The agent's configuration file (TOML), checked key by key into one frozen value."""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.placement import InstallConfig
from announcement.settings import Settings as AnnounceConfig
from kube import config as kube_config
from kube.config import ServerConfig
from masquerade.settings import Settings as MasqueradeConfig
from net import settings
from net.address import IPAddress, IPNetwork
from net.settings import ConfigError, LogFormat, LogLevel
from proxy.settings import Settings as ServicesConfig
from proxy.view import EVERYWHERE
from routing.settings import Mode
from routing.settings import Settings as RoutingConfig

DEFAULT_PATH = Path("/etc/isthmus/agent.toml")
NODE_VARIABLE = "ISTHMUS_NODE"


def _own_name() -> str:
    """The environment says it where the host's name is not the node's."""
    return os.environ.get(NODE_VARIABLE, "") or socket.gethostname()


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesConfig(ServerConfig):
    """Kubernetes, of which this is *node*; *service* (namespace/name) leads to ipamd, if any."""

    node: str = field(default_factory=_own_name)
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpamdConfig:
    """Where this node's blocks come from, and as whom it asks.

    *node* is the name in its certificate; *addresses* are those by which other nodes reach
    this one, none: those of its Node, or the one from which it reaches ipamd.

    With *token*, a file with a service account's token for ipamd, certificate and key are got
    at *enroll_port* of ipamd, and none are looked for.  *server_name*: in ipamd's certificate,
    "": where it is reached.
    """

    ca: Path
    endpoints: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    token: Path | None = None
    enroll_port: int = 9475
    server_name: str = ""
    node: str = field(default_factory=_own_name)
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
    list were put by somebody else; *kubernetes* None: no API server is asked; *host_local*: where
    that plugin keeps addresses which it gave, or gives, beside us.
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
    host_local: Path | None = None
    ipamd: IpamdConfig | None = None
    routing: RoutingConfig | None = None
    masquerade: MasqueradeConfig | None = None
    install: InstallConfig | None = None
    kubernetes: KubernetesConfig | None = None
    services: ServicesConfig | None = None
    announce: AnnounceConfig | None = None

    @property
    def identity(self) -> Path:
        """The certificate that was got by a token, and its key."""
        return self.state_dir / "node.pem"

    @property
    def kubernetes_said(self) -> Path:
        return self.state_dir / "kubernetes.json"

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
    "token": settings.path_or_nothing,
    "enroll_port": settings.whole_number(1, 65535),
    "server_name": settings.of_type(str, "a text"),
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


def _service(value: object) -> str:
    if value == "":
        return ""
    namespace, slash, name = str(value).partition("/")
    if type(value) is not str or not slash or "/" in name:
        raise ValueError("must be namespace/name of a Service, or empty")
    return f"{settings.word(namespace)}/{settings.word(name)}"


_KUBERNETES_CHECKS: Mapping[str, settings.Check] = {
    **kube_config.CHECKS,
    "node": settings.word,
    "service": _service,
}


def _nodeport_addresses(value: object) -> tuple[IPNetwork, ...]:
    match value:
        case "primary":
            return ()
        case "all":
            return EVERYWHERE
        case [_, *_]:
            return settings.networks(value)
    raise ValueError('must be "primary", "all", or a list of address ranges')


_SERVICES_CHECKS: Mapping[str, settings.Check] = {
    "pod_cidrs": settings.networks,
    "service_cidrs": settings.networks,
    "nodeport_addresses": _nodeport_addresses,
    "healthz_address": settings.metrics_address,
    "metrics_address": settings.metrics_address,
    "set_conntrack": settings.true_or_false,
    "open_firewall": settings.true_or_false,
}


def _interfaces(value: object) -> tuple[str, ...]:
    wanted = 'must be a list of interfaces, as ["eth0"], of 15 letters each at most'
    if type(value) is not list:
        raise ValueError(wanted)
    for one in value:
        if type(one) is not str or not re.fullmatch(r"[^\s/]{1,15}", one) or one in (".", ".."):
            raise ValueError(f"{wanted}; {one!r} is none")
    return tuple(value)


_ANNOUNCE_CHECKS: Mapping[str, settings.Check] = {
    "interfaces": _interfaces,
    "port": settings.whole_number(1, 65535),
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
    "host_local": settings.path_or_nothing,
    "ipamd": settings.table(IpamdConfig, _IPAMD_CHECKS),
    "routing": settings.table(RoutingConfig, _ROUTING_CHECKS),
    "masquerade": settings.table(MasqueradeConfig, _MASQUERADE_CHECKS),
    "install": settings.table(InstallConfig, _INSTALL_CHECKS),
    "kubernetes": settings.table(KubernetesConfig, _KUBERNETES_CHECKS),
    "services": settings.table(ServicesConfig, _SERVICES_CHECKS),
    "announce": settings.table(AnnounceConfig, _ANNOUNCE_CHECKS),
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
    if faults := list(_contradictions(found)):
        raise ConfigError("\n".join(faults))
    return found


def _contradictions(config: AgentConfig) -> Iterator[str]:
    yield from _services_lack(config)
    ipamd = config.ipamd
    if ipamd is None:
        for name in ("routing", "masquerade"):
            if getattr(config, name):
                yield f"[{name}] needs [ipamd], who says which node has which"
        return
    if not ipamd.endpoints and not (config.kubernetes and config.kubernetes.service):
        yield "[ipamd] endpoints is missing; or else [kubernetes] service, which leads to them"
    given = [name for name in ("certificate", "key") if getattr(ipamd, name)]
    if ipamd.token and given:
        yield f"[ipamd] has both token and {' and '.join(given)}: a token is to get them by"
    elif not ipamd.token and len(given) < 2:
        yield "[ipamd] needs certificate and key, or a token to get them by"
    if config.kubernetes and config.kubernetes.node != ipamd.node:
        yield (
            f"[ipamd] node is {ipamd.node}, and [kubernetes] node {config.kubernetes.node}: they "
            "are one"
        )


def _services_lack(config: AgentConfig) -> Iterator[str]:
    if config.announce and not (config.services and config.ipamd):
        yield "[announce] needs [services], and [ipamd], who says which nodes there are"
    if config.services is None:
        return
    if config.kubernetes is None:
        yield "[services] needs [kubernetes], who says which there are"
    if config.ipamd is None and not config.services.pod_cidrs:
        yield "[services] needs pod_cidrs, or [ipamd] with its pools"
