"""What Services have, at one revision: what contradicts itself, and what one asks to see.  Pure."""

from collections.abc import Iterator

from ipam.calls import Finding, FindingKind
from ipam.cluster import AddressRecord, Config, Purpose
from ipam.view import View


def check(view: View) -> Iterator[Finding]:
    """Yield what is wrong; a record that edits have torn apart is mended when its Service is."""
    for record in view.addresses.values():
        subject = str(record.address)
        if view.config and not _is_of(view.config, record):
            text = f"of pool {record.pool}, which does not have it"
            yield Finding(kind=FindingKind.ORPHAN, subject=subject, text=text)
        for holder in record.holders:
            known = view.services.get(holder.service)
            if known is None or record.address not in known.addresses:
                text = f"held by Service {holder.service}, whose record does not say so"
                yield Finding(kind=FindingKind.ORPHAN, subject=subject, text=text)
        yield from _clashes(record)
    for service in view.services.values():
        for address in service.addresses:
            held = view.addresses.get(address)
            if held is None or all(one.service != service.service for one in held.holders):
                text = f"has {address}, whose record does not say so"
                yield Finding(kind=FindingKind.ORPHAN, subject=service.service, text=text)


def _is_of(config: Config, record: AddressRecord) -> bool:
    pools = config.pools_for(Purpose.LOAD_BALANCERS)
    return any(one.name == record.pool and record.address in one.cidr for one in pools)


def _clashes(record: AddressRecord) -> Iterator[Finding]:
    subject, first = str(record.address), dict[str, str]()
    if len(record.holders) > 1 and not record.sharing:
        text = f"held by {' and '.join(one.service for one in record.holders)}, without a key"
        yield Finding(kind=FindingKind.DUPLICATE, subject=subject, text=text)
    for holder in record.holders:
        for port in holder.ports:
            if (other := first.setdefault(port, holder.service)) != holder.service:
                text = f"{port} is both {other}'s and {holder.service}'s"
                yield Finding(kind=FindingKind.DUPLICATE, subject=subject, text=text)


def rows(view: View) -> list[dict[str, object]]:
    """Return every address that a Service has, sorted, as json can write it."""
    order = sorted(view.addresses, key=lambda one: (one.version, int(one)))
    return [row(view.addresses[address]) for address in order]


def row(record: AddressRecord) -> dict[str, object]:
    return {
        "address": str(record.address),
        "pool": record.pool,
        "sharing": record.sharing,
        "services": {one.service: list(one.ports) for one in record.holders},
    }
