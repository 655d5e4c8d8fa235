"""What a node knows of itself and its blocks, kept in its own store, and how that changes.  Pure.

    claimed ─► ACTIVE ◄──► DRAINING ──► RETURNING ──► (given back)
                  │            │
                  └────► LOST ◄┘ ──► (gone, once no attachment has an address in it)

ADD takes addresses from ACTIVE blocks alone.  RETURNING has no way back: a copy of the call that
gives the block back may be under way, and may be carried out late.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from ipam.calls import Claimed, Held, Registered
from ipam.cluster import BlockState
from net.address import IPAddress, IPNetwork


class OwnState(StrEnum):
    """DRAINING: ipamd wants it back once it is empty.  LOST: another node may have it."""

    ACTIVE = "active"
    DRAINING = "draining"
    RETURNING = "returning"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBlock:
    """One grant of a block; *revision* tells it from every other grant of the same addresses.

    No address in *reserved* is for pods.  *default*: for networks that name no pool.
    """

    cidr: IPNetwork
    pool: str
    epoch: int
    revision: int
    state: OwnState = OwnState.ACTIVE
    reserved: tuple[IPNetwork, ...] = ()
    default: bool = True

    def held(self) -> Held:
        """Return it as it is told to ipamd."""
        going = self.state is OwnState.RETURNING
        return Held(
            cidr=self.cidr,
            pool=self.pool,
            epoch=self.epoch,
            revision=self.revision,
            state=BlockState.DRAINING if going else BlockState.ACTIVE,
            reserved=self.reserved,
        )

    def serves(self, pool: str) -> bool:
        """Tell whether it is for networks that name *pool*, or none where it is ""."""
        return self.pool == pool if pool else self.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """*uid* is made once with the store.  *counter* is the highest count of claims seen.

    *confirmed_boot* is the boot in which ipamd last confirmed *epoch*; *unconfirmed_boots* is
    the cluster's setting, as last heard.
    """

    uid: str
    epoch: int = 0
    generation: str = ""
    counter: int = 0
    confirmed_boot: str = ""
    unconfirmed_boots: bool = False
    blocks: tuple[OwnBlock, ...] = ()

    def find(self, cidr: IPNetwork) -> OwnBlock | None:
        return next((block for block in self.blocks if block.cidr == cidr), None)

    def of_state(self, *states: OwnState) -> tuple[OwnBlock, ...]:
        return tuple(block for block in self.blocks if block.state in states)

    def told(self) -> tuple[Held, ...]:
        """Return what ipamd is told when this node registers."""
        return tuple(block.held() for block in self.blocks if block.state is not OwnState.LOST)


@dataclass(frozen=True, slots=True)
class Former:
    """The addresses that *pod* had last; *used* orders these, the last used has the highest."""

    pod: str
    addresses: tuple[IPAddress, ...]
    used: int


def registered(own: Holdings, reply: Registered, boot_id: str) -> Holdings:
    """What *own* becomes by ipamd's answer.

    A frozen answer confirms nothing and gives nothing, since the store may have gone back.  What
    it calls lost is lost even so: once claims are thawed, whoever the store names may use it.
    An epoch above ours is a fence that the store has not forgotten.
    """
    if reply.frozen:
        lost = set(reply.lost)
        if reply.epoch > own.epoch > 0 and reply.generation == own.generation:
            listed = {held.cidr for held in reply.blocks if held.epoch == reply.epoch}
            lost |= {block.cidr for block in own.blocks} - listed
            own = replace(own, epoch=reply.epoch, confirmed_boot="")
        return _losing(own, lost)
    renewed = own.generation not in ("", reply.generation)
    return replace(
        own,
        epoch=reply.epoch,
        generation=reply.generation,
        counter=reply.counter if renewed else max(own.counter, reply.counter),
        confirmed_boot=boot_id,
        unconfirmed_boots=reply.unconfirmed_boots,
        blocks=_merged(own, reply.blocks),
    )


def claimed(own: Holdings, reply: Claimed, *, default: bool) -> Holdings:
    """Add what a claim got; *default*: for networks that name no pool."""
    going = {(block.cidr, block.revision) for block in own.of_state(OwnState.RETURNING)}
    new = {
        held.cidr: _own(held, default=default)
        for held in reply.blocks
        if held.state is BlockState.ACTIVE
        and held.epoch == own.epoch
        and (held.cidr, held.revision) not in going
    }
    kept = (block for block in own.blocks if block.cidr not in new)
    return replace(own, counter=max(own.counter, reply.counter), blocks=(*kept, *new.values()))


def returning(own: Holdings, cidrs: Collection[IPNetwork]) -> Holdings:
    """Begin to give *cidrs* back: they are empty, and nothing is taken from them any more."""
    return replace(
        own,
        blocks=tuple(
            replace(block, state=OwnState.RETURNING) if block.cidr in cidrs else block
            for block in own.blocks
        ),
    )


def without(own: Holdings, gone: Collection[OwnBlock]) -> Holdings:
    """Forget these grants; another one of the same addresses stays."""
    grants = {(block.cidr, block.revision) for block in gone}
    return replace(own, blocks=tuple(b for b in own.blocks if (b.cidr, b.revision) not in grants))


def _losing(own: Holdings, cidrs: Collection[IPNetwork]) -> Holdings:
    if not any(block.cidr in cidrs for block in own.blocks):
        return own
    kept = (_lost(block) if block.cidr in cidrs else block for block in own.blocks)
    return replace(own, blocks=tuple(block for block in kept if block is not None))


def _merged(own: Holdings, listed: Iterable[Held]) -> tuple[OwnBlock, ...]:
    """The blocks that ipamd lists, and ours that it does not: they are lost."""
    new = {held.cidr: held for held in listed if held.state is not BlockState.QUARANTINED}
    merged: list[OwnBlock] = []
    for block in own.blocks:
        held = new.pop(block.cidr, None)
        if held is None:
            merged += [lost] if (lost := _lost(block)) is not None else []
        elif block.state is OwnState.RETURNING and block.revision == held.revision:
            merged.append(block)
        else:
            merged.append(_own(held, default=block.default))
    # A claim whose answer never came here.
    merged += [_own(held, default=_is_default(own, held)) for held in new.values()]
    return tuple(merged)


def _lost(block: OwnBlock) -> OwnBlock | None:
    """None for a block that was being given back: that has come to its end."""
    if block.state is OwnState.RETURNING:
        return None
    return replace(block, state=OwnState.LOST)


def _is_default(own: Holdings, held: Held) -> bool:
    """As the others of its pool; of a pool not seen before, yes, if no other is of its family."""
    same = [block.default for block in own.blocks if block.pool == held.pool]
    if same:
        return any(same)
    return not any(b.default and b.cidr.version == held.cidr.version for b in own.blocks)


def _own(held: Held, *, default: bool) -> OwnBlock:
    draining = held.state is BlockState.DRAINING
    return OwnBlock(
        cidr=held.cidr,
        pool=held.pool,
        epoch=held.epoch,
        revision=held.revision,
        state=OwnState.DRAINING if draining else OwnState.ACTIVE,
        reserved=held.reserved,
        default=default,
    )
