"""Too many blocks, or too few: what is given back, and what is asked for."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from agent.standing import Standing
from agent.talk import Pause, Talk, done
from ipam.calls import Claim, Release
from ipam.cluster import NodeState
from ipam.errors import StoreUnavailable
from ipam.holdings import OwnBlock, OwnState, claimed, returning, without
from ipam.refusals import Exhausted, Forbidden, Invalid, Stale, Unknown
from ipam.supply import superfluous, wants_another
from net.address import IPNetwork

IDLE_S = 300.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asking:
    """One wish for a block: its *nonce* is kept until ipamd has answered it."""

    pause: Pause
    nonce: str = ""
    not_before: float = 0.0
    refusal: str = ""


class Supplies:
    """Acts on what is held and used; one `provide` after another."""

    def __init__(self, talk: Talk, standing: Standing) -> None:
        self._talk = talk
        self._standing = standing
        self._asking: dict[tuple[str, tuple[int, ...]], _Asking] = {}
        self._idle_since: dict[IPNetwork, float] = {}

    async def provide(self) -> None:
        """Give back what is to be, and ask for what is wanted.  Raises IPAMError."""
        await self._give_back()
        if not self._talk.condition.frozen:
            await self._claim_what_is_wanted()

    def ask_again(self) -> None:
        """Have what was refused asked for at once: there are other pools."""
        for asking in self._asking.values():
            asking.not_before = 0.0

    async def _give_back(self) -> None:
        kept = self._talk.around.kept()
        going = [block for block in self._dispensable() if block.cidr not in kept]
        empty = [block for block in going if self._talk.leases.bar(block.cidr)]
        if empty:
            cidrs = {block.cidr for block in empty}
            try:
                await done(self._talk.blocks.adopt(returning(self._talk.blocks.holdings, cidrs)))
            except StoreUnavailable:
                for cidr in cidrs:
                    self._talk.leases.unbar(cidr)
                raise
        returned = self._talk.blocks.holdings.of_state(OwnState.RETURNING)
        if returned and not self._talk.condition.frozen:
            await self._release(returned)
        await self._drop_unused_lost()

    async def _release(self, going: Collection[OwnBlock]) -> None:
        own = self._talk.blocks.holdings
        gone = await self._talk.ipamd.release(
            Release(
                generation=own.generation,
                blocks=tuple(block.held() for block in going),
                **self._talk.me(),
            )
        )
        returned = [block for block in going if block.cidr in gone]
        await done(self._talk.blocks.adopt(without(own, returned)))
        for block in returned:
            log.info("block given back", extra={"block": str(block.cidr), "pool": block.pool})

    def _dispensable(self) -> list[OwnBlock]:
        """What is to be given back if nobody uses it."""
        own = self._talk.blocks.holdings
        used = self._talk.used(own.of_state(OwnState.ACTIVE, OwnState.DRAINING))
        if self._talk.condition.node_state is not NodeState.ACTIVE:
            return [block for block, count in used.items() if not count]
        found = [b for b, count in used.items() if b.state is OwnState.DRAINING and not count]
        idle: dict[IPNetwork, float] = {}
        demanded = self._talk.blocks.demanded
        for family in (4, 6):
            for pool in ("", *sorted({block.pool for block in own.blocks if not block.default})):
                level = self._level(pool, family)
                is_wanted = not pool or pool in demanded
                if (block := superfluous(level, is_wanted=is_wanted)) is not None:
                    idle[block.cidr] = self._idle_since.get(block.cidr, self._talk.around.clock())
                    if self._talk.around.clock() - idle[block.cidr] >= IDLE_S:
                        found.append(block)
        self._idle_since = idle
        return found

    def _level(self, pool: str, family: int) -> dict[OwnBlock, int]:
        """How much is used of each active block of one purpose and family."""
        active = self._talk.blocks.holdings.of_state(OwnState.ACTIVE)
        return self._talk.used([b for b in active if b.serves(pool) and b.cidr.version == family])

    async def _drop_unused_lost(self) -> None:
        unused = [
            block for block, count in self._talk.used(self._talk.blocks.lost()).items() if not count
        ]
        if unused:
            await done(self._talk.blocks.adopt(without(self._talk.blocks.holdings, unused)))
            await self._standing.enforce()

    async def _claim_what_is_wanted(self) -> None:
        if self._talk.condition.node_state is not NodeState.ACTIVE:
            self._asking.clear()
            self._talk.blocks.explain(
                "", f"ipamd says that this node is {self._talk.condition.node_state}"
            )
            return
        demanded = self._talk.blocks.demanded
        self._forget_all_but(demanded)
        for pool in ("", *sorted(demanded)):
            for families in self._wishes(pool):
                if await self._claim(pool, families):
                    break
            self._explain(pool)

    def _wishes(self, pool: str) -> list[tuple[int, ...]]:
        """Of which families to ask for a block of *pool*: all at once, else one by one.

        A named pool is of one family; which one, ipamd knows.
        """
        known = {b.cidr.version for b in self._talk.blocks.holdings.blocks if b.serves(pool)}
        candidates = sorted(known) if pool and known else [4, 6]
        wanted = [family for family in candidates if wants_another(self._level(pool, family))]
        wishes: list[tuple[int, ...]] = [tuple(wanted)] if wanted else []
        if not pool and len(wanted) > 1:
            wishes += [(family,) for family in wanted]
        return wishes

    async def _claim(self, pool: str, families: tuple[int, ...]) -> bool:
        """Ask for one block of each; whether we got them.  Raises IPAMError."""
        asking = self._asking.setdefault((pool, families), _Asking(self._talk.pause()))
        if self._talk.around.clock() < asking.not_before:
            return False
        asking.nonce = asking.nonce or f"{self._talk.around.random.getrandbits(128):032x}"
        wish = Claim(nonce=asking.nonce, families=families, pool=pool, **self._talk.me())
        try:
            got = await self._talk.ipamd.claim(wish)
        except (Exhausted, Forbidden, Invalid, Unknown) as exc:
            asking.nonce, asking.refusal = "", str(exc)
            asking.not_before = self._talk.around.clock() + asking.pause.longer()
            self._talk.condition.refusals += 1
            return False
        except Stale:
            asking.nonce = ""
            raise
        await done(
            self._talk.blocks.adopt(claimed(self._talk.blocks.holdings, got, default=not pool))
        )
        self._forget_wishes(pool, families)
        self._talk.condition.claims += 1
        for held in got.blocks:
            log.info("block claimed", extra={"block": str(held.cidr), "pool": held.pool})
        return True

    def _forget_wishes(self, pool: str, families: Collection[int]) -> None:
        for wish in [key for key in self._asking if key[0] == pool and {*key[1]} & {*families}]:
            del self._asking[wish]

    def _forget_all_but(self, demanded: Collection[str]) -> None:
        """No network wants a block of another pool any more, as of one mistyped."""
        over = {pool for pool, _ in self._asking} | self._talk.blocks.outlook().keys()
        for pool in over - {"", *demanded}:
            self._forget_wishes(pool, (4, 6))
            self._talk.blocks.explain(pool, "")

    def _explain(self, pool: str) -> None:
        """Say why no block comes, of a family that we have blocks of or while we have none."""
        own = [b.cidr.version for b in self._talk.blocks.holdings.blocks if b.serves(pool)]
        reasons = dict.fromkeys(
            asking.refusal
            for (of, families), asking in self._asking.items()
            if of == pool and asking.refusal and (not own or {*families} & {*own})
        )
        text = "; ".join(reasons)
        self._talk.blocks.explain(pool, f"ipamd refused another block: {text}" if text else "")
