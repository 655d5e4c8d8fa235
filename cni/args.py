"""What one attachment asks for: CNI_ARGS, args.cni and runtimeConfig made into one value.

The later of the three has precedence where it says something, key by key (CONVENTIONS.md).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cni.capabilities import parse_mac
from cni.document import Section, parse_address, parse_interface
from cni.errors import CNIError, ErrorCode
from net.address import IPAddress

_POD = {
    "K8S_POD_NAMESPACE": "namespace",
    "K8S_POD_NAME": "name",
    "K8S_POD_UID": "uid",
    "K8S_POD_INFRA_CONTAINER_ID": "infra_container_id",
}
# GATEWAY is the reference `static` plugin's: it is known, so as not to be refused on its way.
_KNOWN = frozenset({"IgnoreUnknown", "IP", "GATEWAY", "MAC", *_POD})
_BOOLEANS = {"1": True, "true": True, "True": True, "0": False, "false": False, "False": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Who the sandbox is to Kubernetes; empty where the runtime did not say."""

    namespace: str = ""
    name: str = ""
    uid: str = ""
    infra_container_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """*mac* is lower-case with colons, or empty: then we choose."""

    addresses: tuple[IPAddress, ...] = ()
    mac: str = ""
    pod: Pod = Pod()


def parse_args(args: str) -> Mapping[str, str]:
    """Read CNI_ARGS; CNIError 4 for a pair without exactly one `=`, and for unknown keys.

    IgnoreUnknown permits unknown keys wherever it stands.  Messages are the Go library's.
    """
    if not args:
        return {}
    pairs: dict[str, str] = {}
    for pair in args.split(";"):
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise _invalid(f"ARGS: invalid pair {json.dumps(pair, ensure_ascii=False)}")
        pairs[key] = value
    permitted = pairs.get("IgnoreUnknown", "0")
    if permitted not in _BOOLEANS:
        raise _invalid(f"ARGS: IgnoreUnknown is {permitted}, not one of {', '.join(_BOOLEANS)}")
    unknown = [f'"{key}={value}"' for key, value in pairs.items() if key not in _KNOWN]
    if unknown and not _BOOLEANS[permitted]:
        raise _invalid(f"ARGS: unknown args [{' '.join(unknown)}]")
    return pairs


def parse_requested(args: str, document: Section, runtime: Section) -> Requested:
    """Merge *args* (CNI_ARGS), args.cni of *document*, and *runtime*."""
    pairs = parse_args(args)
    convention = document.section("args").section("cni")
    return Requested(
        addresses=(
            _listed_addresses(runtime) or _listed_addresses(convention) or _addresses_of_args(pairs)
        ),
        mac=_mac(runtime) or _mac(convention) or _mac_of_args(pairs),
        pod=Pod(**{field: pairs[key] for key, field in _POD.items() if key in pairs}),
    )


def _listed_addresses(section: Section) -> tuple[IPAddress, ...]:
    addresses = _addresses(section.texts("ips"))
    if addresses is None:
        section.refuse("ips", "a list of addresses, with or without prefix")
    return addresses


def _addresses_of_args(pairs: Mapping[str, str]) -> tuple[IPAddress, ...]:
    texts = pairs.get("IP", "")
    addresses = _addresses(texts.split(",") if texts else ())
    if addresses is None:
        raise _invalid(f"ARGS: IP is {texts}, not an address or several with commas between")
    return addresses


def _addresses(texts: Iterable[str]) -> tuple[IPAddress, ...] | None:
    found: dict[IPAddress, None] = {}
    for text in texts:
        address = parse_address(text)
        if address is None and (interface := parse_interface(text)):
            address = interface.ip
        if address is None:
            return None
        found[address] = None
    return tuple(found)


def _mac(section: Section) -> str:
    text = section.text("mac")
    return (parse_mac(text) or section.refuse("mac", _STATION)) if text else ""


def _mac_of_args(pairs: Mapping[str, str]) -> str:
    text = pairs.get("MAC", "")
    mac = parse_mac(text) if text else ""
    if mac is None:
        raise _invalid(f"ARGS: MAC is {text}, not {_STATION}")
    return mac


_STATION = "the six-byte address of one station, such as 02:00:00:00:00:01"


def _invalid(msg: str) -> CNIError:
    return CNIError(
        ErrorCode.INVALID_ENVIRONMENT, msg, "CNI_ARGS holds KEY=VALUE pairs with ; between them"
    )
