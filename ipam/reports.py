"""What nodes say they hold, compared with the store and with what the others say.  Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ipam.audit import Lease, Whole, name_of
from ipam.calls import Audit, Finding, FindingKind, Held, MirroredLease
from ipam.cluster import BlockState
from ipam.view import HOLDING, View
from net.address import IPAddress, IPNetwork

MOST = 20
"""Of one kind and subject, so that a mirror that is far behind does not hide the rest."""

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Answers:
    """What nodes said, and of whom nothing was heard; *trouble*: why nobody could be asked."""

    said: Mapping[str, Audit] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    trouble: str = ""


def compare(all_: Whole, answers: Answers) -> tuple[Finding, ...]:
    """Return where they differ; what is on its way while this is asked looks the same."""
    mirrored: dict[str, dict[Key, MirroredLease]] = {}
    for one in all_.leases:
        mirrored.setdefault(one.node, {})[_key(one.lease)] = one.lease
    findings = list(_unheard(all_.view, answers))
    holders: dict[IPAddress, Lease] = {}
    for node in sorted(answers.said):
        said = answers.said[node]
        findings += (
            Finding(kind=FindingKind.TROUBLE, subject=node, text=problem)
            for problem in said.problems
        )
        if said.uid:
            findings += _blocks(all_.view, said)
            findings += _leases(said, mirrored.get(node, {}))
        findings += _twice(said, holders)
    return tuple(findings)


def both(first: Iterable[Finding], second: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return what was found twice, cut to what a person can read."""
    before = set(first)
    kept: dict[tuple[FindingKind, str], list[Finding]] = {}
    for finding in second:
        if finding in before:
            kept.setdefault((finding.kind, finding.subject), []).append(finding)
    return tuple(finding for group in kept.values() for finding in _cut(group))


def _cut(group: list[Finding]) -> list[Finding]:
    if len(group) <= MOST:
        return group
    first = group[0]
    more = Finding(
        kind=first.kind, subject=first.subject, text=f"and {len(group) - MOST} more like these"
    )
    return [*group[:MOST], more]


def _unheard(view: View, answers: Answers) -> Iterator[Finding]:
    if answers.trouble:
        text = f"could not be asked what they hold: {answers.trouble}"
        yield Finding(kind=FindingKind.SILENT, subject="nodes", text=text)
        return
    # Who went away meanwhile is found as one that is not heard of.
    for node in sorted(name for name in answers.silent if view.alive(name)):
        text = "alive, and did not say what it holds: its own store was not looked at"
        yield Finding(kind=FindingKind.SILENT, subject=node, text=text)


def _blocks(view: View, said: Audit) -> Iterator[Finding]:
    told = {held.cidr: held for held in said.blocks}
    for block in view.of_node(said.node):
        mine = (block.uid, block.epoch) == (said.uid, said.epoch) and block.state in HOLDING
        if mine and block.cidr not in told:
            text = f"of {said.node}, which does not know it, and will when it registers"
            yield Finding(kind=FindingKind.LEAK, subject=str(block.cidr), text=text)
    for cidr, held in told.items():
        if held.state is BlockState.ACTIVE and (why := _not_its_own(view, said, cidr, held)):
            kind = FindingKind.ORPHAN if cidr not in view.blocks else FindingKind.DUPLICATE
            yield Finding(kind=kind, subject=str(cidr), text=f"used by {said.node}, {why}")


def _not_its_own(view: View, said: Audit, cidr: IPNetwork, held: Held) -> str:
    block, entry = view.blocks.get(cidr), view.entry(view.keys.block(cidr))
    if block is None or entry is None:
        return "and nobody's"
    if (block.node, block.uid) != (said.node, said.uid):
        return f"and {block.node}'s"
    # One that its node wrote again has no nonce; the node learns of its revision once thawed.
    another = bool(block.nonce) and entry.create_revision != held.revision
    if another or block.state is BlockState.QUARANTINED:
        return f"which gave it back: it is {block.state}, of revision {entry.create_revision}"
    return ""


def _leases(said: Audit, mirrored: Mapping[Key, MirroredLease]) -> Iterator[Finding]:
    told = {_key(lease): lease for lease in said.leases}
    for key in told.keys() | mirrored.keys():
        here, there = told.get(key), mirrored.get(key)
        if here is not None and there is not None and here.addresses == there.addresses:
            continue
        lease = here or there
        assert lease is not None
        name = name_of(Lease(node=said.node, lease=lease))
        if there is None:
            text = f"{name} is not in its mirror"
        elif here is None:
            text = f"{name} is in its mirror, and is no more"
        else:
            text = f"{name} has {_list(here)}, and {_list(there)} in its mirror"
        yield Finding(kind=FindingKind.LAG, subject=said.node, text=text)


def _twice(said: Audit, holders: dict[IPAddress, Lease]) -> Iterator[Finding]:
    """Name who else has an address of *said*; *holders* are those before, and get these."""
    for lease in said.leases:
        one = Lease(node=said.node, lease=lease)
        for address in lease.addresses:
            first = holders.setdefault(address, one)
            if first is not one:
                text = f"held by {name_of(first)} and by {name_of(one)}, as they say themselves"
                yield Finding(kind=FindingKind.DUPLICATE, subject=str(address), text=text)


def _key(lease: MirroredLease) -> Key:
    return lease.network, lease.container_id, lease.ifname


def _list(lease: MirroredLease) -> str:
    return " ".join(map(str, lease.addresses)) or "nothing"
