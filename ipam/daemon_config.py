"""ipamd's configuration file (TOML), checked key by key into one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipam.tls import TLSFiles
from kube import config as kube_config
from kube.config import ServerConfig
from net import settings
from net.settings import ConfigError, LogFormat, LogLevel

if TYPE_CHECKING:
    from ipam.etcd_config import EtcdConfig

DEFAULT_PATH = Path("/etc/isthmus/ipamd.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """What an operator can set; times are in seconds.

    *cluster*: several clusters may share one etcd; *drain_s*: how long calls in work may take
    after SIGTERM; *max_calls*: calls and streams at once, of all nodes together.

    With *ca_key*, the key of *ca*, ipamd issues its own certificate, for *hosts* too, and
    *certificate* and *key* are not looked at.  *kubernetes* None: Nodes say nothing; with both,
    pods of *enroll_account* (namespace/name) are enrolled at *enroll_listen*, for
    *certificate_days*, by tokens made for *enroll_audience*.
    """

    listen: str = "[::]:9476"
    cluster: str = "default"
    state_dir: Path = Path("/var/lib/isthmus-ipamd")
    certificate: Path = Path("/etc/isthmus/ipamd.pem")
    key: Path = Path("/etc/isthmus/ipamd.key")
    ca: Path = Path("/etc/isthmus/ca.pem")
    etcd_endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    etcd_ca: Path | None = None
    etcd_certificate: Path | None = None
    etcd_key: Path | None = None
    etcd_username: str = ""
    etcd_password_file: Path | None = None
    etcd_timeout_s: float = 3.0
    log_format: LogFormat = LogFormat.AUTO
    log_level: LogLevel = LogLevel.INFO
    metrics_address: str = ""
    drain_s: float = 10.0
    max_calls: int = 8192
    ca_key: Path | None = None
    hosts: tuple[str, ...] = ()
    enroll_listen: str = "[::]:9475"
    enroll_account: str = "isthmus/isthmus-agent"
    enroll_audience: str = "isthmus-ipamd"
    certificate_days: float = 3.0
    kubernetes: ServerConfig | None = None

    @property
    def tls(self) -> TLSFiles:
        return TLSFiles(certificate=self.certificate, key=self.key, ca=self.ca)

    @property
    def memory(self) -> Path:
        return self.state_dir / "memory.json"

    def etcd(self) -> "EtcdConfig":
        """Where etcd is.  Raises ValueError where the keys contradict each other."""
        from ipam.etcd_config import EtcdConfig

        return EtcdConfig(
            endpoints=self.etcd_endpoints,
            ca=self.etcd_ca,
            cert=self.etcd_certificate,
            key=self.etcd_key,
            username=self.etcd_username,
            password_file=self.etcd_password_file,
            timeout_s=self.etcd_timeout_s,
            prefix=f"/isthmus/v1/{self.cluster}/",
        )


def _listen(value: object) -> str:
    wanted = 'must be host:port, as "[::]:9476" or "10.0.0.1:9476"'
    if type(value) is not str or not settings.is_host_port(value):
        raise ValueError(wanted)
    return value


def urls(value: object) -> tuple[str, ...]:
    wanted = 'must be a list of URLs, as ["https://10.0.0.1:2379"] or ["unix:///run/etcd.sock"]'
    if type(value) is not list or not value or not all(type(one) is str for one in value):
        raise ValueError(wanted)
    for one in value:
        scheme, _, rest = one.partition("://")
        if scheme == "unix" and rest.startswith("/"):
            continue
        if scheme not in ("http", "https") or not settings.is_host_port(rest) or "/" in rest:
            raise ValueError(f"{wanted}; {one!r} is none")
    return tuple(value)


def _hosts(value: object) -> tuple[str, ...]:
    if type(value) is not list:
        raise ValueError('must be a list of addresses and names, as ["10.0.0.1", "ipamd.example"]')
    return tuple(_host(one) for one in value)


def _host(value: object) -> str:
    try:
        return str(ip_address(str(value)))
    except ValueError:
        return settings.word(value)


def _account(value: object) -> str:
    namespace, slash, name = str(value).partition("/")
    if type(value) is not str or not slash or "/" in name:
        raise ValueError("must be namespace/name of a service account")
    return f"{settings.word(namespace)}/{settings.word(name)}"


_CHECKS: Mapping[str, settings.Check] = {
    "listen": _listen,
    "cluster": settings.word,
    "state_dir": settings.absolute_path,
    "certificate": settings.absolute_path,
    "key": settings.absolute_path,
    "ca": settings.absolute_path,
    "etcd_endpoints": urls,
    "etcd_ca": settings.path_or_nothing,
    "etcd_certificate": settings.path_or_nothing,
    "etcd_key": settings.path_or_nothing,
    "etcd_username": settings.of_type(str, "a text"),
    "etcd_password_file": settings.path_or_nothing,
    "etcd_timeout_s": settings.number(0.1, 60),
    "log_format": settings.one_of(LogFormat),
    "log_level": settings.one_of(LogLevel),
    "metrics_address": settings.metrics_address,
    "drain_s": settings.number(0, 300),
    "max_calls": settings.whole_number(16, 1 << 20),
    "ca_key": settings.path_or_nothing,
    "hosts": _hosts,
    "enroll_listen": _listen,
    "enroll_account": _account,
    "enroll_audience": settings.word,
    "certificate_days": settings.number(1, 365),
    "kubernetes": settings.table(ServerConfig, kube_config.CHECKS),
}


def load(path: Path | None) -> DaemonConfig:
    """Read *path*, or the default place, where no file means all defaults.

    Raises ConfigError naming every wrong key, its value and what is allowed.
    """
    if path is None and not DEFAULT_PATH.exists():
        return DaemonConfig()
    return settings.load(path or DEFAULT_PATH, parse)


def parse(document: Mapping[str, Any]) -> DaemonConfig:
    """Check *document*; raises ConfigError with a line for each wrong key."""
    config = settings.checked(DaemonConfig, document, _CHECKS)
    try:
        config.etcd()
    except ValueError as exc:
        raise ConfigError(f"etcd_...: {exc}") from exc
    return config
