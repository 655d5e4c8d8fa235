"""The values of ipam.calls and ipam.cluster as messages of ipamd.proto, and back.

Fields have the same names on both sides, so the types say how: addresses and networks are text,
an enum its value, and what is empty in a message is the field's default.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ipam import kv, refusals
from ipam.errors import IPAMError
from ipam.refusals import Invalid
from ipam.texts import fault_of
from net.address import IPAddress, IPNetwork

Value = TypeVar("Value")
Message = TypeVar("Message")

MAX_REQUEST = 4 << 20
MAX_REPLY = 64 << 20

# When claims freeze every node tells the same table: most of it was read before.
KEPT = 1 << 13

# A refusal travels under its own name beside gRPC's status, in this key of the trailing metadata.
REFUSAL_KEY = "isthmus-refusal"


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    optional: bool
    convert: Callable[[Any], Any]


def parse(kind: type[Value], message: Any) -> Value:
    """The *kind* that *message* says.  Raises Invalid with the field that is wrong."""
    return kind(
        **{
            field.name: _converted(field, message)
            for field in _fields(kind)
            if not field.optional or _is_given(message, field.name, getattr(message, field.name))
        }
    )


def parse_some(kind: type[Any], message: Any, names: Iterable[str]) -> dict[str, Any]:
    """The fields *names* of a *kind*, as *message* says them.  Raises Invalid."""
    known = {field.name: field for field in _fields(kind)}
    if unknown := sorted(set(names) - known.keys()):
        raise Invalid(f"no field {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: _converted(known[name], message) for name in names}


def given_in(message: Any) -> list[str]:
    """The names of the optional fields that *message* says."""
    return [field.name for field, _ in message.ListFields()]


def render(kind: type[Message], value: Any) -> Message:
    """The message of *kind* that says *value*."""
    message = kind()
    fill(message, value)
    return message


def fill(message: Any, value: Any) -> None:
    """Write *value* into an empty *message*."""
    for field in _fields(type(value)):
        given = getattr(value, field.name)
        if isinstance(given, Mapping):
            getattr(message, field.name).update(given)
        elif isinstance(given, tuple):
            _extend(getattr(message, field.name), given)
        elif given is not None:
            setattr(message, field.name, _plain(given))


def parse_network(name: str, given: str) -> IPNetwork:
    """The network that field *name* says.  Raises Invalid."""
    try:
        return _network(given)
    except ValueError as exc:
        raise Invalid(f"{name}: {exc}") from exc


def refusal(name: str, text: str) -> IPAMError | None:
    """The error that was sent under *name*; None if there is no such one."""
    kind = _REFUSALS.get(name)
    return None if kind is None else kind(text)


def _refusals() -> dict[str, type[IPAMError]]:
    kinds = [kind for module in (refusals, kv) for kind in vars(module).values()]
    return {
        kind.__name__: kind
        for kind in kinds
        if isinstance(kind, type)
        and issubclass(kind, refusals.Refused | kv.KVError)
        and kind is not kv.Compacted  # of the store's own protocol; nobody is sent it
    }


_REFUSALS = _refusals()


def _converted(field: _Field, message: Any) -> Any:
    try:
        return field.convert(getattr(message, field.name))
    except ValueError as exc:
        raise Invalid(f"{field.name}: {exc}") from exc


def _extend(target: Any, values: tuple[Any, ...]) -> None:
    for value in values:
        if is_dataclass(value):
            fill(target.add(), value)
        else:
            target.append(_plain(value))


def _is_given(message: Any, name: str, given: Any) -> bool:
    """Fields marked optional in the protocol tell 0 from nothing."""
    if message.DESCRIPTOR.fields_by_name[name].has_presence:
        return bool(message.HasField(name))
    return bool(given)


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    return value if isinstance(value, bool | int | float | str) else str(value)


def _fields(kind: Any) -> tuple[_Field, ...]:
    if (known := _KNOWN.get(kind)) is not None:
        return known
    hints = get_type_hints(kind)
    _KNOWN[kind] = tuple(
        _Field(
            field.name,
            field.default is not MISSING or field.default_factory is not MISSING,
            _converter(hints[field.name]),
        )
        for field in fields(kind)
    )
    return _KNOWN[kind]


def _converter(hint: Any) -> Callable[[Any], Any]:
    if get_origin(hint) is tuple:
        each = _converter(get_args(hint)[0])
        return lambda given: tuple(each(one) for one in given)
    if get_origin(hint) is not None and issubclass(get_origin(hint), Mapping):
        return lambda given: MappingProxyType(
            {_text(key): _text(value) for key, value in given.items()}
        )
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda given: parse(hint, given)
    return _CONVERTERS.get(hint) or _enum(hint)


def _enum(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    allowed = ", ".join(kind)

    def convert(given: str) -> StrEnum:
        try:
            return kind(given)
        except ValueError:
            raise ValueError(f"{given!r} is none of {allowed}") from None

    return convert


def _text(given: str) -> str:
    if fault := fault_of(given):
        raise ValueError(fault)
    return given


@lru_cache(KEPT)
def _address(given: str) -> IPAddress:
    if "%" in given:
        raise ValueError(f"{given!r} has a zone: give the address alone")
    return ip_address(given)


@lru_cache(KEPT)
def _network(given: str) -> IPNetwork:
    if "/" not in given or "%" in given:
        raise ValueError(f"{given!r} is no network: give ADDRESS/LENGTH, as 10.0.0.0/26")
    network = ip_network(given, strict=False)
    if str(network.network_address) != str(ip_address(given.partition("/")[0])):
        raise ValueError(f"{given} has host bits set; its network is {network}")
    return network


_KNOWN: dict[Any, tuple[_Field, ...]] = {}
_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    IPAddress: _address,
    IPNetwork: _network,
    str: _text,
    int: int,
    bool: bool,
    float: float,
}
