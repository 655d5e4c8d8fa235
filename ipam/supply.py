"""When a node wants another block, and when it has one too many.  Pure.

Between the two lies much room, so that no block comes and goes with each pod: another is wanted
beyond four fifths in use, and one is given back where half of what is left would do.
"""

from collections.abc import Mapping

from ipam.holdings import OwnBlock
from ipam.source import usable

_FULL = 4 / 5
_ROOMY = 1 / 2


def wants_another(used: Mapping[OwnBlock, int]) -> bool:
    """Tell it of the active blocks of one family and purpose, and the addresses in use of each.

    One that nobody uses is spare enough.
    """
    if not all(used.values()):
        return False
    return sum(used.values()) >= _FULL * sum(map(usable, used))


def superfluous(used: Mapping[OwnBlock, int], *, is_wanted: bool = True) -> OwnBlock | None:
    """Return the one got last of those that nobody uses, if the others are room enough.

    Where no network asks for them any more (not *is_wanted*) the only one is too many, too.
    """
    empty = [block for block, count in used.items() if not count]
    if not empty or (len(used) < 2 and is_wanted):
        return None
    last = empty[-1]
    left = sum(usable(block) for block in used if block is not last)
    return last if sum(used.values()) <= _ROOMY * left else None
