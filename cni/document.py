"""A JSON document somebody else wrote, read key by key so that every fault names its key.

Keys are matched as Go matches them, since every other plugin and runtime is written in it:
exactly, or else without regard to case (containerd sends `HostPort` for `hostPort`), and null
is the same as absent.
"""

import json
from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any, NoReturn

from cni.errors import CNIError, ErrorCode
from net.address import IPAddress, IPInterface, IPNetwork

MAX_BYTES = 1 << 20
_SHOWN = 80  # characters of a refused value that a message repeats


def decode(
    text: bytes, what: str = "network configuration", code: int = ErrorCode.INVALID_CONFIG
) -> "Section":
    """Read one JSON object; anything else is CNIError 6, what is wrong in it *code*.

    Refused beside bad syntax: more than a mebibyte, bytes that are not UTF-8, a byte order
    mark, NaN and Infinity, numbers of thousands of digits, lone surrogates (no store can
    hold one), and nesting deeper than the interpreter's stack.  Of equal keys the last counts.
    """
    if len(text) > MAX_BYTES:
        raise _undecodable(what, f"it has {len(text)} bytes, at most {MAX_BYTES} are read")
    try:
        characters = text.decode()
        value = _DECODER.decode(characters)
        if "\\u" in characters:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise _undecodable(what, "it is nested too deeply") from None
    except ValueError as exc:
        raise _undecodable(what, str(exc)) from None
    if not isinstance(value, dict):
        raise _undecodable(what, f"a JSON object is expected, not {_show(value)}")
    return Section(value, code=code)


class Section:
    """One object of a document; *path* is how messages name it, *code* that of its faults."""

    __slots__ = ("_code", "_folded", "_path", "_values")

    def __init__(
        self, values: dict[str, Any], path: str = "", code: int = ErrorCode.INVALID_CONFIG
    ) -> None:
        self._values = values
        self._folded: dict[str, Any] | None = None
        self._path = path
        self._code = code

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def raw(self, key: str) -> Any:
        """The value as JSON gave it; None if absent."""
        value = self._values.get(key)
        if value is not None:
            return value
        if self._folded is None:
            self._folded = {name.lower(): value for name, value in self._values.items()}
        return self._folded.get(key.lower())

    def refuse(self, key: str, allowed: str) -> NoReturn:
        """Raise this section's error: *key* and its value, and what is *allowed*."""
        self._refuse(self.name(key), self.raw(key), allowed)

    def name(self, key: str) -> str:
        """*key* with the path of what it is in."""
        return f"{self._path}.{key}" if self._path else key

    def text(self, key: str, default: str = "") -> str:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.refuse(key, "a string")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def number(self, key: str, low: int, high: int, default: int = 0) -> int:
        value = self.raw(key)
        if value is None:
            return default
        if type(value) is not int or not low <= value <= high:
            self.refuse(key, f"an integer from {low} to {high}")
        return value

    def giving(self, code: int) -> "Section":
        """The same object, whose faults are of *code*."""
        return Section(self._values, self._path, code)

    def section(self, key: str) -> "Section":
        """The object under *key*; an empty one if absent."""
        value = self.raw(key)
        return self._child({} if value is None else value, self.name(key))

    def sections(self, key: str) -> tuple["Section", ...]:
        """The objects of the list under *key*; none if absent."""
        return self._children(self.items(key), self.name(key))

    def nested(self, key: str) -> tuple[tuple["Section", ...], ...]:
        """The objects of a list of lists."""
        return tuple(
            self._children(inner, f"{self.name(key)}[{index}]")
            for index, inner in enumerate(self.items(key))
        )

    def items(self, key: str) -> list[Any]:
        """The list under *key*; an empty one if absent."""
        value = self.raw(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(key, "a list")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            self.refuse(key, "a list of strings")
        return tuple(values)

    def address(self, key: str) -> IPAddress | None:
        """An address without prefix; None if absent or empty."""
        value = self.text(key)
        if not value:
            return None
        return parse_address(value) or self.refuse(key, "an IPv4 or IPv6 address")

    def interface(self, key: str) -> IPInterface:
        """An address with its prefix, required."""
        return parse_interface(self.text(key)) or self.refuse(key, "an address with its prefix")

    def network(self, key: str, *, strict: bool = False) -> IPNetwork | None:
        """A network; None if absent or empty.  With *strict*, without host bits."""
        value = self.text(key)
        if not value:
            return None
        found = parse_interface(value)
        if found is None:
            self.refuse(key, "a network such as 10.1.0.0/16 or fd00:1::/64")
        if strict and found.ip != found.network.network_address:
            self.refuse(key, f"a network without host bits (meant: {found.network}?)")
        return found.network

    def _children(self, values: Any, path: str) -> tuple["Section", ...]:
        if not isinstance(values, list):
            self._refuse(path, values, "a list of objects")
        return tuple(self._child(value, f"{path}[{index}]") for index, value in enumerate(values))

    def _child(self, value: Any, path: str) -> "Section":
        if not isinstance(value, dict):
            self._refuse(path, value, "an object")
        return Section(value, path, self._code)

    def _refuse(self, name: str, value: Any, allowed: str) -> NoReturn:
        raise CNIError(self._code, f"invalid {name}: {_show(value)} is not {allowed}")


def parse_address(text: str) -> IPAddress | None:
    """An address as Go's net.ParseIP takes it, or None: no zone, and a mapped one is IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return None if address.scope_id else address.ipv4_mapped or address


# A node's configuration names the same few networks at every call.
@lru_cache(maxsize=256)
def parse_interface(text: str) -> IPInterface | None:
    """An address with a prefix length, as Go's net.ParseCIDR takes it, or None."""
    address, _, prefix = text.partition("/")
    if "%" in address or not (prefix.isascii() and prefix.isdigit()):
        return None
    try:
        return ip_interface(text)
    except ValueError:
        return None


def parse_block(text: str) -> IPNetwork | None:
    """An address alone or a network, as a network, or None."""
    try:
        return None if "%" in text else ip_network(text)
    except ValueError:
        return None


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def _show(value: object) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:  # the encoder's stack is a little shorter than the decoder's
        return "…"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _undecodable(what: str, why: str) -> CNIError:
    return CNIError(ErrorCode.DECODING_FAILURE, f"cannot decode the {what}", why)
