"""What a node that registers finds: its epoch, which of its blocks are still its own.  Pure.

A node that misses a record that only its own word or a fence could have ended has found a store
that went back: claims freeze, and it writes again what is its own, where nothing stands.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from ipam.calls import Held, Register
from ipam.cluster import KUBERNETES, NODE_UID, Block, BlockState, Meta, Node, NodeState
from ipam.keys import Alive
from ipam.refusals import Forbidden, SecondBoot
from ipam.texts import legible
from net.address import IPNetwork

# Of what is handed back; one transaction has room for 128 comparisons.
AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the store has about the one that registers; *blocks* are all, by range.

    Of what cannot be read: *edited* says whether the node's own record is that, *unreadable* are
    the blocks.
    """

    meta: Meta
    node: Node | None
    alive: Alive | None
    counter: int
    blocks: Mapping[IPNetwork, Block]
    unconfirmed_boots: bool
    edited: bool = False
    unreadable: Collection[IPNetwork] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """*node* as it shall be, *blocks* to put; *freeze*: why the store cannot be the one it was.

    *keep*: what stands under the node's name is another's, or edited, and is not overwritten.
    """

    node: Node
    keep: bool
    blocks: tuple[Block, ...]
    lost: tuple[IPNetwork, ...]
    freeze: str


def plan(asked: Register, known: Known) -> Plan:
    """Raises SecondBoot, Forbidden."""
    node, reasons = _node(asked, known)
    reasons += _remembered(asked, known)
    unreadable = _unreadable(asked, node, known)
    put: list[Block] = []
    lost: list[IPNetwork] = []
    for held in asked.blocks:
        if held.cidr in unreadable:
            continue
        if (block := known.blocks.get(held.cidr)) is None:
            mine, why = _missing(held, node, known)
        else:
            mine, why = _there(held, block, node)
        if mine is None:
            lost.append(held.cidr)
        elif mine != block:
            put.append(mine)
        reasons += [why] if why else []
    put += islice(_disowned(asked, node, known), AT_ONCE)
    put += islice(_pinned(node, known), AT_ONCE)
    if asked.generation in known.meta.previous:
        reasons = []
    reasons += ["finds its own record edited"] if known.edited else []
    reasons += [f"finds its block {cidr} edited" for cidr in unreadable]
    freeze = f"node {asked.node} {'; '.join(reasons)}" if reasons else ""
    former = known.node
    keep = known.edited or (bool(freeze) and former is not None and former.uid != node.uid)
    return Plan(node=node, keep=keep, blocks=tuple(put), lost=tuple(lost), freeze=legible(freeze))


def _remembered(asked: Register, known: Known) -> list[str]:
    if asked.generation and asked.generation != known.meta.generation:
        found = known.meta.generation or "none"
        return [f"remembers generation {asked.generation}, and the store's is {found}"]
    if asked.counter > known.counter:
        return [f"remembers {asked.counter} claims, and the store {known.counter}"]
    return []


def _unreadable(asked: Register, node: Node, known: Known) -> list[IPNetwork]:
    """Which of its blocks somebody edited: they are neither written again nor lost."""
    held = (one.cidr for one in asked.blocks if one.epoch >= node.epoch)
    return [cidr for cidr in held if any(map(cidr.overlaps, known.unreadable))]


def _node(asked: Register, known: Known) -> tuple[Node, list[str]]:
    fields = Node(
        name=asked.node,
        uid=asked.uid,
        epoch=max(asked.epoch, 1),
        boot_id=asked.boot_id,
        addresses=asked.addresses,
        labels=asked.labels,
        unconfirmed=known.unconfirmed_boots,
    )
    node, alive = known.node, known.alive
    if known.edited:
        if not asked.epoch:
            raise Forbidden(f"the record of node {asked.node} was edited: see isthmus ipam check")
        return fields, []
    if node is None:
        return fields, ["misses its own record"] if asked.epoch else []
    if alive and (alive.uid, alive.boot_id) != (asked.uid, asked.boot_id):
        raise SecondBoot(
            f"node {asked.node} is alive with store {alive.uid} in boot {alive.boot_id}; "
            f"store {asked.uid} in boot {asked.boot_id} is another: a copied disk, a name used "
            "twice, or a node that was started again within the last seconds"
        )
    reasons = []
    if asked.epoch > node.epoch:
        reasons.append(f"has epoch {asked.epoch}, above the store's {node.epoch}")
    if node.uid != asked.uid:
        return _another(fields, node, known), reasons
    state = _state(asked, node)
    new = replace(
        fields,
        epoch=max(node.epoch, asked.epoch),
        state=state,
        drained_by=node.drained_by if state is NodeState.DRAINING else "",
        fenced_by=node.fenced_by if state is NodeState.FENCED else "",
        unconfirmed=node.unconfirmed or known.unconfirmed_boots,
    )
    return new, reasons


def _state(asked: Register, node: Node) -> NodeState:
    """Tell what it is now: a fence is over once the node's own store has the new epoch.

    That it was answered is not enough: it may end before it has written that, and go on in the old.
    """
    if node.state is NodeState.FENCED:
        is_over = asked.epoch >= node.epoch
    else:
        is_over = _is_made_anew(asked, node)
    return NodeState.ACTIVE if is_over else node.state


def _is_made_anew(asked: Register, node: Node) -> bool:
    """Tell whether it drains since its Node of Kubernetes was deleted, and it has another now."""
    has_another = asked.labels.get(NODE_UID, "") not in ("", node.labels.get(NODE_UID, ""))
    return has_another and node.drained_by.startswith(f"{KUBERNETES}:")


def _another(fields: Node, node: Node, known: Known) -> Node:
    """Let another store have the name, if what the former one held is none of its."""
    holding = [b for b in known.blocks.values() if b.node == node.name and b.epoch >= node.epoch]
    if holding:
        raise Forbidden(
            f"node {node.name} is known with another store ({node.uid}), which holds "
            f"{', '.join(sorted(str(block.cidr) for block in holding))}. Where this machine was "
            "installed anew or lost its store: make sure that no container with an address of "
            "these blocks runs any more, here (restart the machine, or end them) or on a machine "
            f"of that name, and then say so: isthmus ipam drain {node.name} --fenced"
        )
    new = replace(fields, epoch=max(node.epoch, fields.epoch) + 1)
    if node.state is NodeState.FENCED:
        return replace(new, state=NodeState.FENCED, fenced_by=node.fenced_by)
    return new


def _disowned(asked: Register, node: Node, known: Known) -> Iterator[Block]:
    """What others remembered as the node's, and by its own word is not: it hands that back.

    A node that remembers nothing cannot tell: its word is none.
    """
    if not asked.epoch or (known.node and known.node.uid != asked.uid):
        return
    mine = {held.cidr for held in asked.blocks if held.state is not BlockState.DRAINING}
    for block in known.blocks.values():
        if block.node != node.name or block.uid or block.is_pinned or block.cidr in mine:
            continue
        if block.state is not BlockState.QUARANTINED:
            state = BlockState.QUARANTINED
            yield replace(block, uid=node.uid, epoch=node.epoch, state=state)


def _pinned(node: Node, known: Known) -> Iterator[Block]:
    """What waits for the node; where it is not to have blocks it goes on to wait."""
    for block in known.blocks.values() if node.state is NodeState.ACTIVE else ():
        if block.is_pinned and block.node == node.name and block.pool:
            yield replace(block, uid=node.uid, epoch=node.epoch)


def _missing(held: Held, node: Node, known: Known) -> tuple[Block | None, str]:
    if held.state is BlockState.DRAINING or held.epoch < node.epoch:
        return None, ""
    why = f"misses its block {held.cidr}"
    if any(held.cidr.overlaps(other) for other in known.blocks):
        return None, why
    mine = Block(
        cidr=held.cidr,
        pool=held.pool,
        node=node.name,
        uid=node.uid,
        epoch=node.epoch,
        nonce="",
    )
    return mine, why


def _there(held: Held, block: Block, node: Node) -> tuple[Block | None, str]:
    if block.node != node.name or block.uid not in (node.uid, ""):
        legitimate = held.epoch < node.epoch or held.state is BlockState.DRAINING
        return None, "" if legitimate else f"finds its block {held.cidr} with {block.node}"
    if block.epoch < node.epoch or not block.uid:
        # Fenced, and back before the block was freed: it never was anybody else's.
        if held.state is BlockState.DRAINING:
            return None, ""
        # One that another node remembered from the table is of no pool yet.
        pool, active = block.pool or held.pool, BlockState.ACTIVE
        return replace(block, pool=pool, uid=node.uid, epoch=node.epoch, state=active), ""
    return (None if block.state is BlockState.QUARANTINED else block), ""
