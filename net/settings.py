"""A configuration file (TOML), checked key by key into one frozen value.

Whoever has a file declares a frozen dataclass whose fields have defaults, and a check for each
field: a function that returns the value it was given, converted, or raises ValueError with what
is allowed.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from net.address import IPAddress, IPNetwork

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = TypeVar("Value", bound="DataclassInstance")
Check = Callable[[Any], object]

_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


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


def load(path: Path, parse: Callable[[Mapping[str, Any]], Value]) -> Value:
    """Read *path* and give what it says to *parse*.

    Raises ConfigError, each line of which begins with *path*.
    """
    import tomllib  # 10 ms, which the standalone program saves where there is no file

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


def checked(kind: type[Value], document: Mapping[str, Any], checks: Mapping[str, Check]) -> Value:
    """The *kind* that *document* describes; raises ConfigError with a line for each wrong key."""
    assert {field.name for field in fields(kind)} == set(checks)
    faults: list[str] = []
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in checks:
            faults.append(f"unknown key {key!r}; allowed are {', '.join(sorted(checks))}")
            continue
        try:
            values[key] = checks[key](value)
        except ValueError as exc:
            faults.append(f"{key} = {value!r}: {exc}")
        except ConfigError as exc:
            faults += [f"[{key}] {line}" for line in str(exc).splitlines()]
    faults += [f"{key} is missing" for key in _required(kind) if key not in document]
    if faults:
        raise ConfigError("\n".join(faults))
    return kind(**values)


def table(kind: type[Value], checks: Mapping[str, Check]) -> Check:
    """A table of its own that describes a *kind*."""

    def check(value: object) -> object:
        if type(value) is not dict:
            raise ValueError("must be a table")
        return checked(kind, value, checks)

    return check


def _required(kind: type[Value]) -> list[str]:
    return [
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    ]


def of_type(kind: type, wanted: str) -> Check:
    """Exactly of *kind*: True is no number, and 7 is no text."""

    def check(value: object) -> object:
        if type(value) is not kind:
            raise ValueError(f"must be {wanted}")
        return value

    return check


true_or_false = of_type(bool, "true or false")


def absolute_path(value: object) -> Path:
    if type(value) is not str or not value.startswith("/") or "\0" in value:
        raise ValueError("must be an absolute path")
    return Path(value)


def path_or_nothing(value: object) -> Path | None:
    """An absolute path, or None for "", which is how a file says that there is none."""
    return None if value == "" else absolute_path(value)


def one_of(kind: type[StrEnum]) -> Check:
    def check(value: object) -> StrEnum:
        allowed = [member.value for member in kind]
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return kind(value)

    return check


def number(low: float, high: float) -> Check:
    """A number within these bounds, as a float."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return check


def whole_number(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def metrics_address(value: object) -> str:
    """Where a metrics page is served, or ""."""
    text = str(of_type(str, "host:port or empty")(value))
    if text and not is_host_port(text):
        raise ValueError("must be host:port, as 127.0.0.1:9477, or empty for no metrics page")
    return text


def is_host_port(text: str) -> bool:
    """An IPv6 address is in brackets, as `[::1]:9477`."""
    host, colon, port = text.rpartition(":")
    return bool(colon and host and port.isdecimal() and int(port) < 65536)


def endpoints(value: object) -> tuple[str, ...]:
    """One or more of host:port, none of them twice."""
    wanted = 'must be a list of host:port, as ["10.0.0.1:9476", "[fd00::2]:9476"]'
    if type(value) is not list or not all(type(one) is str for one in value):
        raise ValueError(wanted)
    for one in value:
        if not is_host_port(one) or "/" in one:
            raise ValueError(f"{wanted}; {one!r} is none")
    if len(set(value)) != len(value):
        raise ValueError("must not have one twice")
    return tuple(value)


def word(value: object) -> str:
    """1 to 253 letters, digits, dots, hyphens and underscores: safe in keys and certificates.

    As long as the longest name of a Kubernetes node.
    """
    if type(value) is not str or not 0 < len(value) < 254 or not set(value) <= _WORD:
        raise ValueError("must be 1 to 253 letters, digits, '.', '-' or '_'")
    return value


def addresses(value: object) -> tuple[IPAddress, ...]:
    wanted = 'must be a list of addresses, as ["10.0.0.1", "fd00::1"]'
    if type(value) is not list or not all(type(one) is str for one in value):
        raise ValueError(wanted)
    try:
        return tuple(ip_address(one) for one in value)
    except ValueError as exc:
        raise ValueError(f"{wanted}; {exc}") from exc


def networks(value: object) -> tuple[IPNetwork, ...]:
    wanted = 'must be a list of address ranges, as ["10.0.0.0/8", "fd00::/8"]'
    if type(value) is not list or not all(type(one) is str for one in value):
        raise ValueError(wanted)
    try:
        return tuple(ip_network(one) for one in value)
    except ValueError as exc:
        raise ValueError(f"{wanted}; {exc}") from exc


def labels(value: object) -> Mapping[str, str]:
    """A table of texts."""
    if type(value) is not dict or not all(type(one) is str for one in value.values()):
        raise ValueError('must be a table of texts, as { zone = "a" }')
    return dict(value)
