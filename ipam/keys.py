"""Where each record of cluster IPAM stands in the store, and how it is written.  Pure.

Below /isthmus/v1/<cluster>/: state/ is what every replica follows (meta, frozen, counter,
config, audit, node/, block/, alive/, address/, service/), mirror/ and lease/ are written behind
and read on demand, answer/ is what nodes say while an audit goes on.
Whatever cannot be read back is Foreign: reported, and left alone.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from urllib.parse import quote

from ipam.calls import MirroredLease
from ipam.cluster import (
    SCHEMA,
    AddressRecord,
    Block,
    BlockState,
    Config,
    Holder,
    Meta,
    Node,
    NodeState,
    Pool,
    PoolState,
    Purpose,
    ServiceRecord,
    Settings,
)
from ipam.kv import Entry
from ipam.texts import fault_of, legible
from net.address import IPAddress, IPNetwork

HEX_DIGITS = 32
_MOST = (1 << 63) - 1  # in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A node as some replica hears it; its key is on that replica's etcd lease."""

    instance: str
    boot_id: str
    uid: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """Claims wait, everywhere, until an operator has spoken."""

    why: str


@dataclass(frozen=True, slots=True)
class MirrorHead:
    """How far the mirror of one node's leases is; sequences are of one *uid*.

    *leases*: there are so many at most.
    """

    uid: str
    epoch: int
    sequence: int
    leases: int = 0


@dataclass(frozen=True, slots=True)
class AuditCall:
    """Every node is asked what it holds; the answers go with *lease*."""

    call: str
    lease: int


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts claims by the version of its key."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A key that is not ours, or a value that we cannot read, and why."""

    key: str
    why: str
    cidr: IPNetwork | None = None


Record = (
    Alive
    | AuditCall
    | Freeze
    | MirrorHead
    | Counter
    | Meta
    | Config
    | Node
    | Block
    | AddressRecord
    | ServiceRecord
    | MirroredLease
)
Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster; *cluster* has no slash."""

    cluster: str

    @property
    def root(self) -> str:
        return f"/isthmus/v1/{self.cluster}/"

    @property
    def state(self) -> str:
        return f"{self.root}state/"

    @property
    def meta(self) -> str:
        return f"{self.state}meta"

    @property
    def frozen(self) -> str:
        return f"{self.state}frozen"

    @property
    def counter(self) -> str:
        return f"{self.state}counter"

    @property
    def config(self) -> str:
        return f"{self.state}config"

    @property
    def audit(self) -> str:
        return f"{self.state}audit"

    def answers(self, call: str = "") -> str:
        """Return the prefix of what nodes answer to *call*, or to any."""
        return f"{self.root}answer/{call}/" if call else f"{self.root}answer/"

    def node(self, name: str) -> str:
        return f"{self.state}node/{name}"

    def alive(self, name: str) -> str:
        return f"{self.state}alive/{name}"

    def block(self, cidr: IPNetwork) -> str:
        """Sort by address: 32 hex digits, then the length."""
        return f"{self.state}block/{_digits(cidr)}"

    def address(self, address: IPAddress) -> str:
        """Of one address for load balancers; as a block's that has no other."""
        return f"{self.state}address/{_digits(alone(address))}"

    def service(self, service: str) -> str:
        return f"{self.state}service/{service}"

    def mirror(self, node: str) -> str:
        return f"{self.root}mirror/{node}"

    def leases(self, node: str = "") -> str:
        """Return the prefix of one node's leases, or of all."""
        return f"{self.root}lease/{node}/" if node else f"{self.root}lease/"

    def lease(self, node: str, lease: MirroredLease) -> str:
        parts = (lease.network, lease.container_id, lease.ifname)
        return self.leases(node) + "/".join(quote(part, safe="") for part in parts)

    def read(self, entry: Entry) -> Record | Foreign:
        """Return what *entry* says; its key and its value must agree."""
        kind, _, rest = entry.key.removeprefix(self.root).removeprefix("state/").partition("/")
        cidr = _cidr_of(rest) if kind in ("block", "address") else None
        if (reader := _READERS.get(kind)) is None:
            return Foreign(entry.key, "no such kind of key")
        try:
            fields = json.loads(entry.value) if kind != "counter" else {}
            if not isinstance(fields, dict):
                return Foreign(entry.key, "not a JSON object", cidr)
            if (schema := fields.get("schema", SCHEMA)) != SCHEMA:
                return Foreign(entry.key, legible(f"schema {schema}, not {SCHEMA}"), cidr)
            record = reader(fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            why = legible(f"unreadable: {type(exc).__name__}: {exc}")
            return Foreign(entry.key, why, cidr)
        if not self._fits(entry.key, record):
            return Foreign(entry.key, "the value is of another key", cidr)
        if isinstance(record, Alive) and not entry.lease:
            return Foreign(entry.key, "it goes with no lease, so would never end")
        return record

    def _fits(self, key: str, record: Record) -> bool:
        alone = {
            Meta: self.meta,
            Config: self.config,
            Counter: self.counter,
            Freeze: self.frozen,
            AuditCall: self.audit,
        }
        match record:
            case Node():
                return key == self.node(record.name)
            case Block():
                return key == self.block(record.cidr)
            case AddressRecord():
                return key == self.address(record.address)
            case ServiceRecord():
                return key == self.service(record.service)
            case MirroredLease():
                return key == self.lease(self.node_of_lease(key), record)
            case _:
                return key == alone.get(type(record), key)

    def node_of_lease(self, key: str) -> str:
        return key.removeprefix(self.leases()).partition("/")[0]


def alone(address: IPAddress) -> IPNetwork:
    """Return the network of this address and no other."""
    whole = (int(address), address.max_prefixlen)
    return IPv4Network(whole) if address.version == 4 else IPv6Network(whole)


def _digits(cidr: IPNetwork) -> str:
    return f"{cidr.version}/{int(cidr.network_address):0{HEX_DIGITS}x}-{cidr.prefixlen}"


def _cidr_of(rest: str) -> IPNetwork | None:
    family, _, name = rest.partition("/")
    digits, _, length = name.partition("-")
    if len(digits) != HEX_DIGITS or family not in {"4", "6"}:
        return None
    try:
        address = (int(digits, 16), int(length))
        return IPv4Network(address) if family == "4" else IPv6Network(address)
    except ValueError:
        return None


def write(record: Record) -> bytes:
    """Return the value of *record*'s key."""
    fields: dict[str, object]
    match record:
        case Counter():
            return b""
        case Config():
            pools = [_plain(pool) for pool in record.pools]
            fields = {"pools": pools, "settings": _plain(record.settings)}
        case _:
            fields = _plain(record)
    return json.dumps(fields | {"schema": SCHEMA}, separators=(",", ":")).encode()


def _plain(value: object) -> dict[str, object]:
    """Turn a dataclass into what json writes."""
    names = type(value).__slots__  # type: ignore[attr-defined]
    return {name: _json(getattr(value, name)) for name in names}


def _json(value: object) -> object:
    match value:
        case bool() | int() | float() | str():
            return value
        case tuple():
            return [_json(one) for one in value]
        case Mapping():
            return dict(value)
        case _ if is_dataclass(value):
            return _plain(value)
        case _:
            return str(value)


def _text(fields: Fields, name: str, *, usual: str | None = None) -> str:
    return _said(fields[name] if usual is None else fields.get(name, usual), name)


def _said(value: object, name: str) -> str:
    """Return *value*, a text that agents can be told: one that is not would end their stream."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    if fault := fault_of(value):
        raise ValueError(f"{name}: {fault}")
    return value


def _number(fields: Fields, name: str, *, usual: int | None = None) -> int:
    value = fields[name] if usual is None else fields.get(name, usual)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is not a whole number")
    if abs(value) > _MOST:
        raise ValueError(f"{name} is out of range")
    return value


def _flag(fields: Fields, name: str, *, usual: bool = False) -> bool:
    value = fields.get(name, usual)
    if not isinstance(value, bool):
        raise TypeError(f"{name} is neither true nor false")
    return value


def _seconds(fields: Fields, name: str) -> float:
    value = fields[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is not a number")
    if abs(value) > _MOST:
        raise ValueError(f"{name} is out of range")
    return float(value)


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    value = fields.get(name, [])
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list of texts")
    return tuple(_said(one, name) for one in value)


def _addresses(fields: Fields, name: str) -> tuple[IPAddress, ...]:
    texts = _texts(fields, name)
    if any("%" in text for text in texts):
        raise ValueError(f"{name} have a zone")
    return tuple(map(ip_address, texts))


def _labels(fields: Fields, name: str) -> Mapping[str, str]:
    value = fields.get(name, {})
    if not isinstance(value, dict):
        raise TypeError(f"{name} does not give texts names")
    return MappingProxyType({_said(k, name): _said(one, name) for k, one in value.items()})


def _read_meta(fields: Fields) -> Meta:
    return Meta(generation=_text(fields, "generation"), previous=_texts(fields, "previous"))


def _read_config(fields: Fields) -> Config:
    pools, settings = fields["pools"], fields["settings"]
    if not isinstance(pools, list) or not isinstance(settings, dict):
        raise TypeError("pools are a list, settings an object")
    return Config(
        pools=tuple(_read_pool(pool) for pool in pools),
        settings=Settings(
            blocks_per_node=_number(settings, "blocks_per_node"),
            node_deletion_fences=_flag(settings, "node_deletion_fences"),
            unconfirmed_boots=_flag(settings, "unconfirmed_boots"),
            silence_s=_seconds(settings, "silence_s"),
            quarantine_s=_seconds(settings, "quarantine_s"),
            cloud_controller=_flag(settings, "cloud_controller"),
        ),
    )


def _read_pool(fields: Fields) -> Pool:
    return Pool(
        name=_text(fields, "name"),
        cidr=ip_network(_text(fields, "cidr")),
        block_length=_number(fields, "block_length"),
        selector=_labels(fields, "selector"),
        reservations=tuple(map(ip_network, _texts(fields, "reservations"))),
        state=PoolState(_text(fields, "state")),
        order=_number(fields, "order"),
        masquerade=_flag(fields, "masquerade", usual=True),
        purpose=Purpose(_text(fields, "purpose", usual=Purpose.PODS)),
    )


def _read_node(fields: Fields) -> Node:
    return Node(
        name=_text(fields, "name"),
        uid=_text(fields, "uid"),
        epoch=_number(fields, "epoch"),
        boot_id=_text(fields, "boot_id"),
        addresses=_addresses(fields, "addresses"),
        labels=_labels(fields, "labels"),
        state=NodeState(_text(fields, "state")),
        fenced_by=_text(fields, "fenced_by"),
        drained_by=_text(fields, "drained_by", usual=""),
        wiped=_flag(fields, "wiped"),
        unconfirmed=_flag(fields, "unconfirmed"),
    )


def _read_block(fields: Fields) -> Block:
    return Block(
        cidr=ip_network(_text(fields, "cidr")),
        pool=_text(fields, "pool"),
        node=_text(fields, "node"),
        uid=_text(fields, "uid"),
        epoch=_number(fields, "epoch"),
        nonce=_text(fields, "nonce"),
        state=BlockState(_text(fields, "state")),
    )


def _read_address(fields: Fields) -> AddressRecord:
    holders = fields["holders"]
    if not isinstance(holders, list):
        raise TypeError("holders are a list")
    (address,) = _addresses({"address": [fields["address"]]}, "address")
    return AddressRecord(
        address=address,
        pool=_text(fields, "pool"),
        sharing=_text(fields, "sharing"),
        holders=tuple(Holder(_text(one, "service"), _texts(one, "ports")) for one in holders),
    )


def _read_service(fields: Fields) -> ServiceRecord:
    return ServiceRecord(_text(fields, "service"), _addresses(fields, "addresses"))


def _read_alive(fields: Fields) -> Alive:
    return Alive(
        instance=_text(fields, "instance"),
        boot_id=_text(fields, "boot_id"),
        uid=_text(fields, "uid"),
    )


def _read_head(fields: Fields) -> MirrorHead:
    return MirrorHead(
        _text(fields, "uid"),
        _number(fields, "epoch"),
        _number(fields, "sequence"),
        _number(fields, "leases", usual=0),
    )


def _read_lease(fields: Fields) -> MirroredLease:
    return MirroredLease(
        network=_text(fields, "network"),
        container_id=_text(fields, "container_id"),
        ifname=_text(fields, "ifname"),
        addresses=_addresses(fields, "addresses"),
        pod=_text(fields, "pod"),
    )


_READERS: Mapping[str, Callable[[Fields], Record]] = {
    "meta": _read_meta,
    "frozen": lambda fields: Freeze(_text(fields, "why")),
    "counter": lambda fields: Counter(),
    "config": _read_config,
    "audit": lambda fields: AuditCall(_text(fields, "call"), _number(fields, "lease")),
    "node": _read_node,
    "block": _read_block,
    "address": _read_address,
    "service": _read_service,
    "alive": _read_alive,
    "mirror": _read_head,
    "lease": _read_lease,
}
