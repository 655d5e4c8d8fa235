"""The agent's configuration file (TOML), checked key by key into one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

DEFAULT_PATH = Path("/etc/isthmus/agent.toml")


class ConfigError(Exception):
    """A configuration file that cannot be used; one line for each thing wrong with it."""


class LogFormat(StrEnum):
    """AUTO is CONSOLE on a terminal, else JSON."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What an operator can set; times are in seconds.

    *cooldown_s*: how long a released address rests; *reconcile_interval_s*: how often kernel
    and store are compared; *grace_s*: how long an attachment must have been seen dead before
    it is freed; *max_parallel*, *max_queued*: requests in work, and waiting for a turn;
    *status_counts_addresses*: whether STATUS fails when no address is free (it makes a
    Kubernetes node NotReady).
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

    @property
    def database(self) -> Path:
        return self.state_dir / "isthmus.db"

    @property
    def spool_dir(self) -> Path:
        return self.state_dir / "spool"

    @property
    def lock(self) -> Path:
        return self.state_dir / "lock"

    @property
    def sysctl_ledger(self) -> Path:
        return self.state_dir / "sysctl.json"


_BOUNDS: Mapping[str, tuple[float, float]] = {
    "cooldown_s": (0, 3600),
    "reconcile_interval_s": (0.1, 3600),
    "grace_s": (0, 86400),
    "max_parallel": (1, 256),
    "max_queued": (1, 65536),
}


def load(path: Path | None) -> AgentConfig:
    """Read *path*, or the default place, where no file means all defaults.

    Raises ConfigError naming every wrong key, its value and what is allowed.
    """
    if path is None and not DEFAULT_PATH.exists():
        return AgentConfig()
    import tomllib  # 10 ms, which the standalone program saves where there is no file

    path = path or DEFAULT_PATH
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: not TOML: {exc}") from exc
    try:
        return parse(document)
    except ConfigError as exc:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(exc).splitlines())) from exc


def parse(document: Mapping[str, Any]) -> AgentConfig:
    """Check *document*; raises ConfigError with a line for each wrong key."""
    known = {field.name: field.type for field in fields(AgentConfig)}
    faults: list[str] = []
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            faults.append(f"unknown key {key!r}; allowed are {', '.join(sorted(known))}")
            continue
        try:
            values[key] = _convert(key, value, known[key])
        except ValueError as exc:
            faults.append(f"{key} = {value!r}: {exc}")
    if faults:
        raise ConfigError("\n".join(faults))
    return AgentConfig(**values)


def _convert(key: str, value: object, kind: Any) -> object:
    if kind is bool:
        return _of_type(value, bool, "true or false")
    if kind is Path:
        return _absolute(_of_type(value, str, "an absolute path"))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        allowed = [member.value for member in kind]
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return kind(value)
    if kind is str:
        return _listen_address(_of_type(value, str, "host:port or empty"))
    return _number(key, value, kind)


def _of_type(value: object, kind: type, wanted: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"must be {wanted}")
    return value


def _absolute(value: str) -> Path:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("must be an absolute path")
    return Path(value)


def _listen_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if value and not (colon and host and port.isdecimal() and int(port) < 65536):
        raise ValueError("must be host:port, as 127.0.0.1:9477, or empty for no metrics page")
    return value


def _number(key: str, value: object, kind: type) -> object:
    low, high = _BOUNDS[key]
    whole = kind is int
    acceptable = type(value) is int or (not whole and type(value) is float)
    if not acceptable or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"must be a {'whole ' if whole else ''}number from {low:g} to {high:g}")
    return kind(value)
