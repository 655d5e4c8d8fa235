"""Heartbeats as datagrams: sealed with a key that two nodes share, and bound to one direction.

    version ─ session (8 bytes) ─ direction ─ number (8 bytes) ─ JSON ─ HMAC-SHA256 of all before

Two nodes got key and session over TLS with both certificates (agent.sessions).  Whoever has not
the key cannot say anything; what was said once, in whichever direction, is not taken twice.
"""

import hmac
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from announcement.model import Heartbeat, Relayed, State

_HEAD = struct.Struct(">B8sBQ")
_VERSION = 1
_TAG = 32
KEY_BYTES, SESSION_BYTES = 32, 8
MOST_BYTES = 60_000
"""Of one datagram; some 2,000 addresses."""


class Unreadable(Exception):
    """Not a heartbeat, or not of who it says it is."""


@dataclass(slots=True)
class Session:
    """What two nodes share, as one of them has it.

    *began*: we asked for it; numbers in either direction only grow.
    """

    peer: str
    session: bytes
    key: bytes
    began: bool
    made_at: float
    sent: int = 0
    seen: int = 0

    def seal(self, heartbeat: Heartbeat) -> bytes:
        """Raises ValueError where it is too large."""
        self.sent += 1
        head = _HEAD.pack(_VERSION, self.session, self.began, self.sent)
        body = head + json.dumps(_plain(heartbeat), separators=(",", ":")).encode()
        if len(body) > MOST_BYTES:
            raise ValueError(f"a heartbeat of {len(body)} bytes; {MOST_BYTES} at most")
        return body + hmac.digest(self.key, body, sha256)

    def open(self, datagram: bytes) -> Heartbeat:
        """Raises Unreadable."""
        body, tag = datagram[:-_TAG], datagram[-_TAG:]
        if not hmac.compare_digest(hmac.digest(self.key, body, sha256), tag):
            raise Unreadable("sealed with another key")
        _, _, by_beginner, number = _HEAD.unpack_from(body)
        if bool(by_beginner) == self.began:
            raise Unreadable("our own words")
        if number <= self.seen:
            raise Unreadable("said before")
        self.seen = number
        try:
            return _heartbeat(json.loads(body[_HEAD.size :]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise Unreadable(f"no heartbeat: {exc}") from exc


def session_of(datagram: bytes) -> bytes:
    """Return which session a datagram says it is of.  Raises Unreadable."""
    if len(datagram) < _HEAD.size + _TAG or datagram[0] != _VERSION:
        raise Unreadable("no heartbeat")
    return datagram[1 : 1 + SESSION_BYTES]


def _plain(heartbeat: Heartbeat) -> dict[str, Any]:
    return {
        "state": _plain_state(heartbeat.state),
        "hears": sorted(heartbeat.hears),
        "knows": sorted(heartbeat.knows),
        "misses": sorted(heartbeat.misses),
        "settled": heartbeat.is_settled,
        "relayed": [
            {"node": one.node, "age_s": round(one.age_s, 3), "state": _plain_state(one.state)}
            for one in heartbeat.relayed
        ],
    }


def _plain_state(state: State) -> dict[str, Any]:
    return {"bids": sorted(map(str, state.bids)), "macs": sorted(state.macs)}


def _heartbeat(said: Mapping[str, Any]) -> Heartbeat:
    return Heartbeat(
        state=_state(said["state"]),
        hears=frozenset(map(str, said["hears"])),
        knows=frozenset(map(str, said["knows"])),
        misses=frozenset(map(str, said["misses"])),
        relayed=tuple(
            Relayed(str(one["node"]), _seconds(one["age_s"]), _state(one["state"]))
            for one in said["relayed"]
        ),
        is_settled=bool(said.get("settled", True)),  # who does not say so never waited
    )


def _seconds(value: Any) -> float:
    if not math.isfinite(found := float(value)):
        raise ValueError(f"{value} s")
    return found


def _state(said: Mapping[str, Any]) -> State:
    return State(frozenset(map(ip_address, said["bids"])), frozenset(map(str, said["macs"])))
