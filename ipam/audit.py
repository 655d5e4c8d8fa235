"""Cluster IPAM at one revision: what contradicts itself, and what one asks to see.  Pure."""

from collections.abc import Callable, Iterator, Sized
from dataclasses import asdict, dataclass
from ipaddress import ip_address

from ipam import audit_services
from ipam.calls import Finding, FindingKind, MirroredLease
from ipam.cluster import Block, Config, Node, NodeState, Purpose
from ipam.keys import Foreign, Keys, MirrorHead
from ipam.kv import Listing
from ipam.pools import is_block
from ipam.reclaim import is_fenced
from ipam.refusals import Forbidden, Invalid
from ipam.view import HOLDING, View
from net.address import IPAddress

# What is shown of leases; all else is in the state.
OF_LEASES = ("address", "pod")
_OF_CONFIG = ("pools", "settings", "address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease as *node* told it."""

    node: str
    lease: MirroredLease


@dataclass(frozen=True, slots=True)
class Head:
    """How far a mirror is, and the revision at which that was written."""

    head: MirrorHead
    mod_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """State and mirrors, of one revision."""

    view: View
    leases: tuple[Lease, ...]
    heads: dict[str, Head]
    foreign: tuple[Foreign, ...]


def whole(keys: Keys, listing: Listing) -> Whole:
    """Sort what stands below `keys.root`."""
    view = View(keys)
    state = tuple(entry for entry in listing.entries if entry.key.startswith(keys.state))
    view.replace(Listing(state, listing.revision))
    leases, heads, foreign = [], {}, list(view.foreign)
    for entry in listing.entries:
        if entry.key.startswith((keys.state, keys.answers())):
            continue
        match keys.read(entry):
            case MirroredLease() as lease:
                leases.append(Lease(node=keys.node_of_lease(entry.key), lease=lease))
            case MirrorHead() as head:
                heads[entry.key.removeprefix(keys.mirror(""))] = Head(head, entry.mod_revision)
            case Foreign() as other:
                foreign.append(other)
            case _:
                foreign.append(Foreign(entry.key, "not its place"))
    return Whole(view=view, leases=tuple(leases), heads=heads, foreign=tuple(foreign))


def check(all_: Whole, frozen: str, forgetful: str = "") -> tuple[Finding, ...]:
    """Return what is wrong.

    *frozen* says why the replica that asks grants nothing, *forgetful* why it cannot remember.
    """
    findings = [Finding(kind=FindingKind.FROZEN, subject="claims", text=frozen)] if frozen else []
    if forgetful:
        text = f"the one that was asked cannot remember what it did: {forgetful}"
        findings.append(Finding(kind=FindingKind.TROUBLE, subject="ipamd", text=text))
    findings += [
        Finding(kind=FindingKind.FOREIGN, subject=one.key, text=f"left alone: {one.why}")
        for one in all_.foreign
    ]
    view = all_.view
    findings += (*_blocks(view), *_grounds(view), *_overlaps(view))
    findings += (*_leases(all_), *_nodes(all_), *_mirrors(all_))
    findings += audit_services.check(view)
    return tuple(findings)


def _blocks(view: View) -> Iterator[Finding]:
    for block in view.blocks.values():
        subject, node = str(block.cidr), view.nodes.get(block.node)
        revision = view.unchanged(view.keys.block(block.cidr)).mod_revision
        if node is None and not block.is_pinned:
            text = f"held by {block.node}, which has no record; if it is off: isthmus ipam drain"
            yield Finding(
                kind=FindingKind.ORPHAN, subject=subject, text=f"{text} {block.node} --fenced"
            )
        elif node is not None and _is_of_another_store(block, node):
            text = (
                f"of store {block.uid} of {node.name}, which has store {node.uid}: nobody uses it"
            )
            yield Finding(kind=FindingKind.ORPHAN, subject=subject, text=text)
        elif is_fenced(block, node):
            yield Finding(
                kind=FindingKind.LEAK,
                subject=subject,
                text=f"{block.state}, of {block.node}, which is done with it; freed after its rest",
                mend=f"release {block.cidr}",
                mod_revision=revision,
            )


def _is_of_another_store(block: Block, node: Node) -> bool:
    """Tell whether nobody will come for *block*: one store follows another with a higher epoch."""
    return block.uid not in ("", node.uid) and block.epoch >= node.epoch


def _grounds(view: View) -> Iterator[Finding]:
    """Name blocks that no pool can have given, where it is known which pools there are."""
    if view.config is None:
        return
    pools = {pool.name: pool for pool in view.config.pools}
    for block in view.blocks.values():
        pool, subject = pools.get(block.pool), str(block.cidr)
        if pool is None:
            text = f"of pool {block.pool or 'unknown'}, which is not there"
            yield Finding(kind=FindingKind.ORPHAN, subject=subject, text=text)
        elif not is_block(block.cidr, pool):
            text = f"not a block of pool {pool.name} ({pool.cidr}, blocks of /{pool.block_length})"
            yield Finding(kind=FindingKind.OVERLAP, subject=subject, text=text)


def _overlaps(view: View) -> Iterator[Finding]:
    """In order of address two that overlap have one before them that reaches into the second."""
    order = lambda b: (b.cidr.version, int(b.cidr.network_address), b.cidr.prefixlen)  # noqa: E731
    widest: Block | None = None
    for block in sorted(view.blocks.values(), key=order):
        if widest and widest.cidr.overlaps(block.cidr):
            text = f"overlaps {widest.cidr} of {widest.node}; held by {block.node}"
            yield Finding(kind=FindingKind.OVERLAP, subject=str(block.cidr), text=text)
        else:
            widest = block


def _leases(all_: Whole) -> Iterator[Finding]:
    holders: dict[IPAddress, Lease] = {}
    left = {node for node in all_.heads if _is_left_behind(all_, node)}
    for one in all_.leases:
        if one.node in left:
            continue
        for address in one.lease.addresses:
            first = holders.setdefault(address, one)
            if first is not one:
                text = f"held by {name_of(first)} and by {name_of(one)}"
                yield Finding(kind=FindingKind.DUPLICATE, subject=str(address), text=text)
            block = _block_of(all_.view, address)
            if block is not None and block.node != one.node:
                text = f"held by {name_of(one)}, in block {block.cidr} of {block.node}"
                yield Finding(kind=FindingKind.DUPLICATE, subject=str(address), text=text)
            elif block is None and _is_of_a_pool(all_.view, address):
                text = f"held by {name_of(one)}, in no block"
                yield Finding(kind=FindingKind.ORPHAN, subject=str(address), text=text)


def _nodes(all_: Whole) -> Iterator[Finding]:
    view = all_.view
    yield from _shared_addresses(view)
    for node in view.nodes.values():
        blocks = view.of_node(node.name)
        for address in (one for one in node.addresses if _is_of_pods(view, one)):
            text = f"an address of node {node.name}, and of a pool: packets to it go astray"
            yield Finding(kind=FindingKind.OVERLAP, subject=str(address), text=text)
        if node.state is NodeState.FENCED:
            text = (
                f"fenced by {node.fenced_by or 'nobody named'}, {_number(blocks, 'block')} not yet "
                f"freed; if it never comes back: isthmus ipam drain {node.name} --fenced --wiped"
            )
            yield Finding(kind=FindingKind.FORGOTTEN, subject=node.name, text=text)
        elif not view.alive(node.name) and blocks:
            text = (
                f"not heard of, and holds {_number(blocks, 'block')}; if it is off: "
                f"isthmus ipam drain {node.name} --fenced"
            )
            yield Finding(kind=FindingKind.FORGOTTEN, subject=node.name, text=text)
        told = all_.heads.get(node.name)
        if told is None or _is_left_behind(all_, node.name):
            continue
        if blocks and (told.head.uid, told.head.epoch) != (node.uid, node.epoch):
            text = f"its mirror is of epoch {told.head.epoch}, and it is in {node.epoch}"
            yield Finding(kind=FindingKind.LAG, subject=node.name, text=text)


def _shared_addresses(view: View) -> Iterator[Finding]:
    """Of nodes that are seen alive: one that is gone may have a successor with its address."""
    first: dict[IPAddress, str] = {}
    for node in view.nodes.values():
        for address in node.addresses if view.alive(node.name) else ():
            if (other := first.setdefault(address, node.name)) != node.name:
                text = f"an address of nodes {other} and {node.name}: packets to one go astray"
                yield Finding(kind=FindingKind.DUPLICATE, subject=str(address), text=text)


def _mirrors(all_: Whole) -> Iterator[Finding]:
    """What nodes told that are fenced, or forgotten: nothing holds it."""
    for node, head in all_.heads.items():
        if _is_left_behind(all_, node):
            told = [one for one in all_.leases if one.node == node]
            yield Finding(
                kind=FindingKind.LEAK,
                subject=node,
                text=f"{_number(told, 'lease')} that it told before it was fenced",
                mend=f"forget {node}",
                mod_revision=head.mod_revision,
            )


def _number(what: Sized, one: str) -> str:
    return f"1 {one}" if len(what) == 1 else f"{len(what)} {one}s"


def _is_left_behind(all_: Whole, node: str) -> bool:
    """Tell whether the mirror is of an epoch that is over, and nobody is there to renew it."""
    record, head = all_.view.nodes.get(node), all_.heads.get(node)
    if head is None:
        return False
    over = record is None or record.epoch > head.head.epoch
    return over and all_.view.alive(node) is None


def _block_of(view: View, address: IPAddress) -> Block | None:
    for pool in (view.config or Config()).pools:
        if address in pool.cidr:
            mask = -1 << (pool.cidr.max_prefixlen - pool.block_length)
            kind = type(pool.cidr)
            return view.blocks.get(kind((int(address) & mask, pool.block_length)))
    return None


def _is_of_pods(view: View, address: IPAddress) -> bool:
    pools = (view.config or Config()).pools_for(Purpose.PODS)
    return any(address in pool.cidr for pool in pools)


def _is_of_a_pool(view: View, address: IPAddress) -> bool:
    return any(address in pool.cidr for pool in (view.config or Config()).pools)


def name_of(one: Lease) -> str:
    """Say whose lease it is, as people know it."""
    lease = one.lease
    who = lease.pod or f"{lease.network}/{lease.container_id}/{lease.ifname}"
    return f"{who} on {one.node}"


def show(all_: Whole, what: str, argument: str) -> object:
    """Return rows that json can write.  Raises Invalid, Forbidden where pools are not known."""
    view, config = all_.view, all_.view.config or Config()
    if view.config is None and what in _OF_CONFIG:
        raise Forbidden(f"{view.keys.config} cannot be read: isthmus ipam check says why")
    shown: dict[str, Callable[[], object]] = {
        "pools": lambda: [_pool_row(view, pool.name) for pool in config.pools],
        "blocks": lambda: [_block_row(view, block) for block in view.blocks.values()],
        "nodes": lambda: [_node_row(view, node) for node in view.nodes.values()],
        "services": lambda: audit_services.rows(view),
        "generation": lambda: view.meta.generation if view.meta else "",
        "settings": lambda: asdict(config.settings),
        "address": lambda: _address(all_, argument),
        "pod": lambda: [_lease_row(one) for one in all_.leases if one.lease.pod == argument],
    }
    if what not in shown:
        raise Invalid(f"show {what!r}: {', '.join(shown)} can be shown")
    return shown[what]()


def _address(all_: Whole, text: str) -> object:
    try:
        address = ip_address(text)
    except ValueError as exc:
        raise Invalid(f"{text!r} is not an address") from exc
    block = _block_of(all_.view, address)
    given = all_.view.addresses.get(address)
    return {
        "address": str(address),
        "given": audit_services.row(given) if given else None,
        "block": _block_row(all_.view, block) if block else None,
        "leases": [_lease_row(one) for one in all_.leases if address in one.lease.addresses],
    }


def _pool_row(view: View, name: str) -> dict[str, object]:
    pool = next(one for one in (view.config or Config()).pools if one.name == name)
    space = view.space(name)
    return {
        "name": name,
        "cidr": str(pool.cidr),
        "block_length": pool.block_length,
        "state": pool.state.value,
        "order": pool.order,
        "masquerade": pool.masquerade,
        "purpose": pool.purpose.value,
        "selector": dict(pool.selector),
        "reservations": [str(one) for one in pool.reservations],
        "blocks": space.size,
        "free": space.free,
    }


def _block_row(view: View, block: Block) -> dict[str, object]:
    return {
        "cidr": str(block.cidr),
        "pool": block.pool,
        "node": block.node,
        "epoch": block.epoch,
        "state": "pinned" if block.is_pinned else block.state.value,
        "mod_revision": view.unchanged(view.keys.block(block.cidr)).mod_revision,
    }


def _node_row(view: View, node: Node) -> dict[str, object]:
    blocks = [b for b in view.of_node(node.name) if b.state in HOLDING]
    return {
        "name": node.name,
        "uid": node.uid,
        "epoch": node.epoch,
        "state": node.state.value,
        "alive": view.alive(node.name) is not None,
        "boot_id": node.boot_id,
        "addresses": [str(one) for one in node.addresses],
        "labels": dict(node.labels),
        "fenced_by": node.fenced_by,
        "drained_by": node.drained_by,
        "blocks": [str(block.cidr) for block in blocks],
    }


def _lease_row(one: Lease) -> dict[str, object]:
    lease = one.lease
    return {
        "node": one.node,
        "network": lease.network,
        "container_id": lease.container_id,
        "ifname": lease.ifname,
        "addresses": [str(address) for address in lease.addresses],
        "pod": lease.pod,
    }
