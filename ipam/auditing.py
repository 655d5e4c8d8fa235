"""Asking all agents what is in their own stores, whichever replica each of them talks to.

    the replica that checks         any replica                        an agent
    puts state/audit  ────────────► sees it in its view, streams it ─► answers by Audit
    watches answer/ID/ ◄─────────── puts answer/ID/NODE ◄───────────── (of bounded size)

All of it is on one etcd lease, which ends it: revoked when the time is over, or by itself.
"""

import asyncio
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import aclosing, suppress
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

from ipam.calls import Audit, Held, MirroredLease
from ipam.cluster import BlockState
from ipam.keys import AuditCall, write
from ipam.kv import Ambiguous, KVError, LeaseGone, Put, Unchanged
from ipam.refusals import Contended, Invalid, Stale
from ipam.replica import Change, Replica
from ipam.reports import Answers

WITHIN_S = 8.0
# Longer than that, so that what is left of an audit goes by itself.
LEASE_S = 60
# etcd takes 1.5 MiB in one request.
LARGEST = 1 << 20
LARGEST_READ = 32 << 20
# Of all answers together; who comes after it is silent.
MOST = 64 << 20


class Auditing:
    """One replica's part in it, whoever asks."""

    def __init__(self, replica: Replica, random: Random) -> None:
        self._replica = replica
        self._random = random

    async def ask(self) -> Answers:
        """Ask every node that is alive.  Raises Contended while another audit goes on."""
        kv, keys, view = self._replica.kv, self._replica.keys, self._replica.view
        alive = frozenset(name for name in view.nodes if view.alive(name) is not None)
        if not alive:
            return Answers()
        call = f"{self._random.getrandbits(64):016x}"
        try:
            lease = await kv.grant(LEASE_S)
        except KVError as exc:
            return Answers(silent=alive, trouble=str(exc))
        try:
            put = Put(keys.audit, write(AuditCall(call, lease)), lease)
            outcome = await self._replica.commit(Change([Unchanged(keys.audit, 0)], [put]))
            if not outcome.done:
                raise Contended("another check is asking the nodes: try again in a moment")
            said = await self._answers(call, alive, outcome.revision)
        except KVError as exc:
            return Answers(silent=alive, trouble=str(exc))
        finally:
            with suppress(KVError):
                await kv.revoke(lease)
        return Answers(Unpacked(said), alive - said.keys())

    async def _answers(self, call: str, alive: frozenset[str], after: int) -> dict[str, bytes]:
        said: dict[str, bytes] = {}
        room = MOST
        prefix = self._replica.keys.answers(call)
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                async with aclosing(self._replica.kv.watch(prefix, after=after)) as batches:
                    async for batch in batches:
                        for event in batch.events:
                            if event.entry is None or room < len(event.entry.value):
                                continue
                            room -= len(event.entry.value)
                            said[event.key.removeprefix(prefix)] = event.entry.value
                        if said.keys() >= alive:
                            break
        return said

    async def answer(self, asked: Audit) -> None:
        """Hand on what a node says.  Raises Stale where nobody waits for it, Invalid, KVError."""
        replica, keys = self._replica, self._replica.keys
        node, call = replica.view.nodes.get(asked.node), replica.view.audit
        if node is None or (node.uid, node.epoch) != (asked.uid, asked.epoch):
            raise Stale(f"node {asked.node} is not registered with this store and epoch")
        if call is None or call.call != asked.audit:
            raise Stale(f"audit {asked.audit!r} is over")
        value = pack(asked)
        if len(value) > LARGEST:
            raise Invalid(f"{len(asked.leases)} leases are too many for one answer")
        put = Put(keys.answers(call.call) + asked.node, value, call.lease)
        # Ambiguous: it is there, or whoever asked says that this node is silent.
        with suppress(Ambiguous, LeaseGone):
            await replica.kv.commit([replica.view.unchanged(keys.audit)], [put])


class Unpacked(Mapping[str, Audit]):
    """Answers, each read when it is looked at: all at once they would be many times as large."""

    def __init__(self, packed: Mapping[str, bytes]) -> None:
        self._packed = packed

    def __getitem__(self, node: str) -> Audit:
        return unpack(node, self._packed[node])

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def pack(asked: Audit) -> bytes:
    """Write what `unpack` reads."""
    document = {
        "uid": asked.uid,
        "epoch": asked.epoch,
        "blocks": [[str(b.cidr), b.pool, b.epoch, b.revision, b.state] for b in asked.blocks],
        "leases": [
            [x.network, x.container_id, x.ifname, x.pod, *map(str, x.addresses)]
            for x in asked.leases
        ],
        "problems": asked.problems,
    }
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 1)


def unpack(node: str, value: bytes) -> Audit:
    """Read what `pack` wrote; what cannot be read is an answer with that as its problem."""
    try:
        found = zlib.decompressobj().decompress(value, LARGEST_READ)
        document: dict[str, Any] = json.loads(found)
        return Audit(
            node=node,
            uid=document["uid"],
            epoch=document["epoch"],
            audit="",
            blocks=tuple(_held(*row) for row in document["blocks"]),
            leases=tuple(_lease(*row) for row in document["leases"]),
            problems=tuple(document["problems"]),
        )
    except (zlib.error, ValueError, KeyError, TypeError) as exc:
        return Audit(node=node, uid="", epoch=0, audit="", problems=(f"answer unreadable: {exc}",))


def _held(cidr: str, pool: str, epoch: int, revision: int, state: str) -> Held:
    return Held(
        cidr=ip_network(cidr),
        pool=pool,
        epoch=epoch,
        revision=revision,
        state=BlockState(state),
    )


def _lease(network: str, container_id: str, ifname: str, pod: str, *held: str) -> MirroredLease:
    return MirroredLease(
        network=network,
        container_id=container_id,
        ifname=ifname,
        pod=pod,
        addresses=tuple(map(ip_address, held)),
    )
