"""How a block comes back: draining → quarantined → freed, and what each step needs.  Pure.

Silence, and an operator's drain of node or pool, only begin it.  It goes on when the node hands
the block back, or was fenced: then its epoch in the store is above the block's.  Nothing here
looks at a wall clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ipam.cluster import Block, BlockState, Node, NodeState


@dataclass(frozen=True, slots=True)
class Step:
    """Bring *block* to *state*; None: delete it."""

    block: Block
    state: BlockState | None


def is_fenced(block: Block, node: Node | None) -> bool:
    """Tell whether the owner of *block* was fenced since it got it."""
    return node is not None and node.epoch > block.epoch and not block.is_pinned


def step(block: Block, node: Node | None, *, unwanted: bool, rested: bool) -> Step | None:
    """Return the next step of one block, if there is one.

    *unwanted*: its node was not heard of for long, or its pool drains; *rested*: it was seen
    quarantined for long.  A block whose node has no record is nobody's to decide but a person's.
    """
    if node is None:
        return None
    fenced = is_fenced(block, node)
    # What a fenced node has in its new epoch it took up again, and is about to say that it knows.
    leaving = fenced or unwanted or node.state is NodeState.DRAINING
    match block.state:
        case BlockState.ACTIVE:
            return Step(block, BlockState.DRAINING) if leaving else None
        case BlockState.DRAINING if fenced:
            return Step(block, BlockState.QUARANTINED)
        case BlockState.DRAINING:
            return None if leaving else Step(block, BlockState.ACTIVE)
        case BlockState.QUARANTINED:
            return Step(block, None) if rested else None


def is_forgettable(node: Node, blocks: Iterable[Block]) -> bool:
    """Tell whether the record of *node* can go: nobody will come back with its uid and epoch."""
    return node.state is NodeState.FENCED and node.wiped and not any(True for _ in blocks)


class Patience:
    """Since when, by this replica's own monotonic clock, a thing has been as it is.

    A restart forgets, so every wait begins anew: later than needed, never earlier.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def watch(self, things: Iterable[str], now: float) -> Mapping[str, float]:
        """Return for how many seconds each of *things* has been among those named here."""
        self._since = {thing: self._since.get(thing, now) for thing in things}
        return {thing: now - since for thing, since in self._since.items()}
