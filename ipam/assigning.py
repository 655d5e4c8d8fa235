"""Addresses given to Services, and taken back: one guarded transaction each."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from random import Random

from ipam import pools
from ipam.cluster import ServiceRecord
from ipam.keys import Counter, alone, write
from ipam.kv import Delete, Put
from ipam.load_balancers import Choice, Demand, choose, is_settled, without
from ipam.replica import Change, Replica
from net.address import IPAddress


class Assigning:
    """Every method raises a Refused or a KVError, nothing else.

    A Service's key is compared, and that of each address that it gets, keeps or leaves: of two
    replicas that give it, or one address to two, the second looks again.
    """

    def __init__(self, replica: Replica, random: Random) -> None:
        self._replica = replica
        self._random = random

    async def assign(self, demand: Demand, kept: Iterable[IPAddress] = ()) -> Choice:
        """Bring the store in line with *demand*; *kept* is what other Services show as theirs.

        Raises Exhausted, Forbidden, Unknown, Invalid: it gets none; Frozen, NotReady, Contended.
        """
        replica, view, keys = self._replica, self._replica.view, self._replica.keys
        made: list[Choice] = []

        def decide(attempt: int) -> Change:
            replica.require_thawed()
            seed = self._random.getrandbits(96) if attempt else pools.start(demand.service, 0)
            made[:] = [choose(demand, view, seed)]
            if is_settled(made[0], demand, view):
                return Change([view.unchanged(keys.service(demand.service))])
            return self._change(demand.service, made[0])

        self._replica.require_thawed()
        with self._kept(kept):
            if is_settled(now := choose(demand, view, 0), demand, view):
                return now
            looked_at = [keys.meta, keys.frozen, keys.config, keys.service(demand.service)]
            await replica.transact(looked_at, decide)
        return made[0]

    async def release(self, service: str) -> None:
        """Take back all that *service* has.  Raises Frozen, NotReady, Contended."""
        replica, keys = self._replica, self._replica.keys

        def decide(attempt: int) -> Change:
            replica.require_thawed()
            if service not in replica.view.services:
                return Change([replica.view.unchanged(keys.service(service))])
            return self._change(service, Choice(()))

        looked_at = [keys.meta, keys.frozen, keys.service(service)]
        await replica.transact(looked_at, decide)

    def _change(self, service: str, choice: Choice) -> Change:
        """Put what *choice* has, and take back what else *service* had."""
        replica, view, keys = self._replica, self._replica.view, self._replica.keys
        known = view.services.get(service)
        left = set(known.addresses if known else ()) - set(choice.addresses)
        changes: list[Put | Delete] = [Put(keys.counter, write(Counter()))]
        changes += [Put(keys.address(one.address), write(one)) for one in choice.records]
        for address in left:
            record = view.addresses.get(address)
            if record is None or all(one.service != service for one in record.holders):
                continue
            rest = without(record, service)
            key = keys.address(address)
            changes.append(Put(key, write(rest)) if rest else Delete(key))
        key = keys.service(service)
        record_of = ServiceRecord(service, choice.addresses)
        changes.append(Put(key, write(record_of)) if choice.records else Delete(key))
        compared = dict.fromkeys([keys.config, key, *map(keys.address, (*choice.addresses, *left))])
        return Change([*replica.thawed(), *map(view.unchanged, compared)], changes)

    @contextmanager
    def _kept(self, kept: Iterable[IPAddress]) -> Iterator[None]:
        cidrs = [alone(address) for address in kept]
        self._replica.view.begin_claim(cidrs)
        try:
            yield
        finally:
            self._replica.view.end_claim(cidrs)
