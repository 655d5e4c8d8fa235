"""Which addresses a Service of type LoadBalancer shall have.  Pure.

What it has it keeps while that is still what it asks for.  Else the first of: what its status
shows (a store that was lost knew it), an address that its sharing key has, a free one of the
first pool that suits.  Nobody gets what the status of another shows.

    isthmus.dev/pool          of these pools alone: "blue", or one of each family "blue,blue6"
    isthmus.dev/address       this address, or one of each family; else spec.loadBalancerIP
    isthmus.dev/sharing-key   Services of one namespace with one key share addresses, where their
                              ports do not clash; of external policy Local, if their pods are one
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import MappingProxyType

from ipam import pools
from ipam.cluster import AddressRecord, Config, Holder, Pool, Purpose, ServiceRecord
from ipam.keys import alone
from ipam.refusals import Exhausted, Forbidden, Invalid, Refused, Unknown
from ipam.view import View
from kube.objects import LOAD_BALANCER, Service
from net.address import IPAddress

CLASS = "isthmus.dev/lb"
POOL, ADDRESS = "isthmus.dev/pool", "isthmus.dev/address"
SHARING = "isthmus.dev/sharing-key"
NAMESPACE = "kubernetes.io/metadata.name"
"""The label of a namespace that is its name: pools select by it, too."""

_FAMILIES = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a Service (namespace/name) asks for.

    *needs_all*: of every family, or nothing.  *pools*, *addresses*: none, whichever there are.
    *shown*: what its status has.
    """

    service: str
    families: tuple[int, ...]
    ports: tuple[str, ...]
    needs_all: bool = False
    pools: tuple[str, ...] = ()
    addresses: tuple[IPAddress, ...] = ()
    sharing: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shown: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One record for each family that has an address, in the Service's order of families.

    *lacks*: why there is none of another.
    """

    records: tuple[AddressRecord, ...]
    lacks: str = ""

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(record.address for record in self.records)


def is_ours(service: Service, config: Config) -> bool:
    """Tell whether we are to give it addresses.

    One without a class is another's where a cloud controller is, and nobody's while there is no
    pool for Services at all.
    """
    if service.spec.type != LOAD_BALANCER:
        return False
    if service.spec.load_balancer_class is not None:
        return service.spec.load_balancer_class == CLASS
    has_pools = bool(config.pools_for(Purpose.LOAD_BALANCERS))
    return has_pools and not config.settings.cloud_controller


def demand_of(service: Service) -> Demand:
    """Raises Invalid with the annotation or field that is wrong."""
    meta, spec = service.metadata, service.spec
    said = meta.annotations or {}
    families = tuple(_FAMILIES[one] for one in spec.ip_families or () if one in _FAMILIES) or (4,)
    text, where = said.get(ADDRESS, ""), ADDRESS
    if not text:
        text, where = spec.load_balancer_ip, "spec.loadBalancerIP"
    addresses = tuple(_address(each, where) for each in _listed(text))
    for address in addresses:
        if address.version not in families:
            raise Invalid(f"{where}: {address} is of none of the Service's ipFamilies")
    if len({address.version for address in addresses}) < len(addresses):
        raise Invalid(f"{where}: one address of each family at most")
    return Demand(
        service=f"{meta.namespace}/{meta.name}",
        families=families,
        ports=tuple(sorted({f"{one.protocol}/{one.port}" for one in spec.ports or ()})),
        needs_all=spec.ip_family_policy == "RequireDualStack",
        pools=tuple(_listed(said.get(POOL, ""))),
        addresses=addresses,
        sharing=_sharing(service, said.get(SHARING, "")),
        labels=MappingProxyType({**(meta.labels or {}), NAMESPACE: meta.namespace}),
        shown=tuple(shown(service)),
    )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _address(text: str, where: str) -> IPAddress:
    try:
        address = ip_address(text)
    except ValueError:
        raise Invalid(f"{where}: {text!r} is no address") from None
    if "%" in text:
        raise Invalid(f"{where}: {text!r} has a zone: give the address alone")
    return address


def _sharing(service: Service, key: str) -> str:
    """Of policy Local, who shares must have the same pods: one node answers for all of them."""
    if not key:
        return ""
    parts: list[object] = [service.metadata.namespace, key]
    if service.spec.external_policy == "Local":
        parts.append(sorted((service.spec.selector or {}).items()))
    return json.dumps(parts)


def shown(service: Service) -> Iterator[IPAddress]:
    """Yield the addresses in its status."""
    for text in service.shown:
        try:
            yield ip_address(text)
        except ValueError:
            continue


def choose(demand: Demand, view: View, seed: int) -> Choice:
    """Say which addresses *demand* gets; a store that is as *view* says can be made so.

    Raises Exhausted, Forbidden, Unknown, Invalid: why it gets none.
    """
    config = view.config
    if config is None:
        raise Forbidden("the configuration in the store cannot be read; see isthmus ipam check")
    if not config.pools_for(Purpose.LOAD_BALANCERS):
        raise Exhausted("no pool for Services: isthmus ipam pools create … --for load-balancers")
    if demand.service not in view.services and view.entry(view.keys.service(demand.service)):
        raise Forbidden("its record in the store cannot be read; see isthmus ipam check")
    known = {pool.name for pool in config.pools_for(Purpose.LOAD_BALANCERS)}
    if missing := [name for name in demand.pools if name not in known]:
        raise Unknown(f"no pool {missing[0]} for Services; there are: {', '.join(sorted(known))}")
    records: list[AddressRecord] = []
    refusals: list[Refused] = []
    for family in demand.families:
        try:
            address, pool = _of_family(demand, family, view, config, seed)
            records.append(_with(view.addresses.get(address), address, pool, demand))
        except Refused as exc:
            refusals.append(exc)
    if refusals and (demand.needs_all or not records):
        raise refusals[0]
    return Choice(tuple(records), "; ".join(map(str, refusals)))


def _of_family(
    demand: Demand, family: int, view: View, config: Config, seed: int
) -> tuple[IPAddress, str]:
    requested = [one for one in demand.addresses if one.version == family]
    for address in _had(demand, family, view):
        if requested and address not in requested:
            continue
        if (pool := _may_have(demand, address, view, config)) is not None:
            return address, pool.name
    if requested:
        return requested[0], _requested(demand, requested[0], view, config).name
    return _new(demand, family, view, config, seed)


def _new(
    demand: Demand, family: int, view: View, config: Config, seed: int
) -> tuple[IPAddress, str]:
    """Raises Exhausted."""
    suitable = _suitable(demand, family, config)
    for address in _shared(demand, family, view):
        for pool in suitable:
            if address in pool.cidr:
                return address, pool.name
    for pool in suitable:
        if (cidr := view.space(pool.name).pick(seed)) is not None:
            return cidr.network_address, pool.name
    if suitable:
        names = ", ".join(f"{pool.name} ({pool.cidr})" for pool in suitable)
        raise Exhausted(f"no free address of IPv{family} in {names}")
    asked = f" of {', '.join(demand.pools)}" if demand.pools else ""
    raise Exhausted(f"no pool{asked} for Services has IPv{family}, is active, and selects it")


def _had(demand: Demand, family: int, view: View) -> Iterator[IPAddress]:
    """What it has, then what its status says that it had, and is nobody's."""
    record = view.services.get(demand.service)
    held = record.addresses if record else ()
    yield from (one for one in held if one.version == family)
    for one in demand.shown:
        if one.version == family and one not in held and one not in view.addresses:
            yield one


def _may_have(demand: Demand, address: IPAddress, view: View, config: Config) -> Pool | None:
    """Return the pool of *address* if it suits; also one that gives nothing new."""
    unread = any(one.cidr == alone(address) for one in view.foreign)
    if unread or _in_the_way(demand, view.addresses.get(address)):
        return None
    for pool in config.pools_for(Purpose.LOAD_BALANCERS):
        named = not demand.pools or pool.name in demand.pools
        if address in pool.cidr and named and pools.selects(pool, demand.labels):
            return pool
    return None


def _requested(demand: Demand, address: IPAddress, view: View, config: Config) -> Pool:
    """Raises Invalid where no pool may give it, Forbidden where it is not free."""
    for pool in _suitable(demand, address.version, config):
        if address in pool.cidr:
            break
    else:
        raise Invalid(f"{address} is in no pool for Services that suits")
    if any(address in reserved for reserved in pool.reservations):
        raise Invalid(f"{address} is reserved in pool {pool.name}")
    if why := _in_the_way(demand, view.addresses.get(address)):
        raise Forbidden(f"{address} {why}")
    if address not in view.addresses and not view.space(pool.name).is_free(alone(address)):
        raise Forbidden(f"{address} is shown by another Service, or its record cannot be read")
    return pool


def _suitable(demand: Demand, family: int, config: Config) -> list[Pool]:
    found = pools.suitable(config, family, demand.labels, purpose=Purpose.LOAD_BALANCERS)
    return [pool for pool in found if not demand.pools or pool.name in demand.pools]


def _shared(demand: Demand, family: int, view: View) -> list[IPAddress]:
    """What has its key and no port of its."""
    if not demand.sharing:
        return []
    return sorted(
        record.address
        for record in view.addresses.values()
        if record.address.version == family
        and record.sharing == demand.sharing
        and not _in_the_way(demand, record)
    )


def _in_the_way(demand: Demand, record: AddressRecord | None) -> str:
    """Say why *demand* cannot be among those of *record*, or ""."""
    others = [one for one in record.holders if one.service != demand.service] if record else []
    if record is None or not others:
        return ""
    if not demand.sharing or record.sharing != demand.sharing:
        return f"is {others[0].service}'s, which does not share it so"
    for other in others:
        if clash := sorted(set(other.ports) & set(demand.ports)):
            return f"is shared with {other.service}, which has {clash[0]} too"
    return ""


def _with(
    record: AddressRecord | None, address: IPAddress, pool: str, demand: Demand
) -> AddressRecord:
    others = [one for one in record.holders if one.service != demand.service] if record else []
    holders = sorted([*others, Holder(demand.service, demand.ports)], key=lambda one: one.service)
    return AddressRecord(address=address, pool=pool, sharing=demand.sharing, holders=tuple(holders))


def without(record: AddressRecord, service: str) -> AddressRecord | None:
    """Return *record* when *service* has left it; None: nobody is left."""
    others = tuple(one for one in record.holders if one.service != service)
    return replace(record, holders=others) if others else None


def is_settled(choice: Choice, demand: Demand, view: View) -> bool:
    """Tell whether the store says so already."""
    known = view.services.get(demand.service)
    return known == ServiceRecord(demand.service, choice.addresses) and all(
        view.addresses.get(record.address) == record for record in choice.records
    )
