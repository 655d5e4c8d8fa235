"""The part of the durable store that a node of a cluster has: itself, its blocks, the table.

node         one row: who the node is, and what of ipamd it remembers
block        one row a block; rewritten whole with the node's row
former       which pod had which addresses last
table_row    the cluster's table as it was streamed, to be told again should etcd forget it
pool         the cluster's pools, likewise streamed
"""

import json
import sqlite3
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from ipam.calls import PoolRow, TableRow
from ipam.cluster import BlockState
from ipam.holdings import Former, Holdings, OwnBlock, OwnState
from ipam.store import Own, Stick, Tabulate

TABLES: tuple[str, ...] = (
    """CREATE TABLE node (
        id INTEGER PRIMARY KEY CHECK (id = 1), uid TEXT NOT NULL, epoch INTEGER NOT NULL,
        generation TEXT NOT NULL, counter INTEGER NOT NULL, confirmed_boot TEXT NOT NULL,
        unconfirmed_boots INTEGER NOT NULL
    )""",
    """CREATE TABLE block (
        position INTEGER PRIMARY KEY, cidr TEXT NOT NULL UNIQUE, pool TEXT NOT NULL,
        epoch INTEGER NOT NULL, revision INTEGER NOT NULL, state TEXT NOT NULL,
        reserved TEXT NOT NULL, is_default INTEGER NOT NULL
    )""",
    """CREATE TABLE former (
        pod TEXT PRIMARY KEY, addresses TEXT NOT NULL, used INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE table_row (
        cidr TEXT PRIMARY KEY, node TEXT NOT NULL, epoch INTEGER NOT NULL,
        addresses TEXT NOT NULL, state TEXT NOT NULL
    ) WITHOUT ROWID""",
)

POOLS: tuple[str, ...] = (
    """CREATE TABLE pool (
        name TEXT PRIMARY KEY, cidr TEXT NOT NULL, masquerade INTEGER NOT NULL
    ) WITHOUT ROWID""",
)


def holdings(db: sqlite3.Connection) -> Holdings | None:
    """What is stored of the node, None if nothing ever was."""
    found = db.execute(
        "SELECT uid, epoch, generation, counter, confirmed_boot, unconfirmed_boots FROM node"
    ).fetchone()
    if found is None:
        return None
    uid, epoch, generation, counter, confirmed_boot, unconfirmed_boots = found
    return Holdings(
        uid=uid,
        epoch=epoch,
        generation=generation,
        counter=counter,
        confirmed_boot=confirmed_boot,
        unconfirmed_boots=bool(unconfirmed_boots),
        blocks=tuple(
            OwnBlock(
                cidr=ip_network(cidr),
                pool=pool,
                epoch=of_epoch,
                revision=revision,
                state=OwnState(state),
                reserved=tuple(map(ip_network, json.loads(reserved))),
                default=bool(is_default),
            )
            for cidr, pool, of_epoch, revision, state, reserved, is_default in db.execute(
                "SELECT cidr, pool, epoch, revision, state, reserved, is_default"
                " FROM block ORDER BY position"
            )
        ),
    )


def formers(db: sqlite3.Connection) -> tuple[Former, ...]:
    return tuple(
        Former(pod, tuple(map(ip_address, json.loads(addresses))), used)
        for pod, addresses, used in db.execute("SELECT pod, addresses, used FROM former")
    )


def rows(db: sqlite3.Connection) -> tuple[TableRow, ...]:
    return tuple(
        TableRow(
            cidr=ip_network(cidr),
            node=node,
            epoch=epoch,
            addresses=tuple(map(ip_address, json.loads(addresses))),
            state=BlockState(state),
        )
        for cidr, node, epoch, addresses, state in db.execute(
            "SELECT cidr, node, epoch, addresses, state FROM table_row"
        )
    )


def pools(db: sqlite3.Connection) -> tuple[PoolRow, ...]:
    return tuple(
        PoolRow(name=name, cidr=ip_network(cidr), masquerade=bool(masquerade))
        for name, cidr, masquerade in db.execute("SELECT name, cidr, masquerade FROM pool")
    )


def write(db: sqlite3.Connection, change: Own | Stick | Tabulate) -> None:
    """Carry *change* out, inside the caller's transaction."""
    match change:
        case Own(own):
            _write_holdings(db, own)
        case Stick(kept, forgotten):
            db.executemany(
                "INSERT OR REPLACE INTO former VALUES (?, ?, ?)",
                [(one.pod, _texts(one.addresses), one.used) for one in kept],
            )
            db.executemany("DELETE FROM former WHERE pod = ?", [(pod,) for pod in forgotten])
        case Tabulate(new, gone, pools_now):
            db.executemany("DELETE FROM table_row WHERE cidr = ?", [(str(one),) for one in gone])
            db.executemany(
                "INSERT OR REPLACE INTO table_row VALUES (?, ?, ?, ?, ?)",
                [
                    (str(row.cidr), row.node, row.epoch, _texts(row.addresses), row.state.value)
                    for row in new
                ],
            )
            if pools_now is not None:
                db.execute("DELETE FROM pool")
                db.executemany(
                    "INSERT INTO pool VALUES (?, ?, ?)",
                    [(one.name, str(one.cidr), one.masquerade) for one in pools_now],
                )


def _write_holdings(db: sqlite3.Connection, own: Holdings) -> None:
    db.execute(
        "INSERT OR REPLACE INTO node VALUES (1, ?, ?, ?, ?, ?, ?)",
        (
            own.uid,
            own.epoch,
            own.generation,
            own.counter,
            own.confirmed_boot,
            own.unconfirmed_boots,
        ),
    )
    db.execute("DELETE FROM block")
    db.executemany(
        "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                position,
                str(block.cidr),
                block.pool,
                block.epoch,
                block.revision,
                block.state.value,
                _texts(block.reserved),
                block.default,
            )
            for position, block in enumerate(own.blocks)
        ],
    )


def _texts(values: Iterable[object]) -> str:
    return json.dumps([str(value) for value in values])
