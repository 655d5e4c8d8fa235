#!/usr/bin/env python3
"""How soon a node has its routes to another that joins, and what a large table costs it.

    bench/routes.py [DIRECTORY]        QUICK=1 for a short run

etcd, ipamd and the agent that is measured are real, in a network namespace of their own; the
other nodes speak ipamd's protocol (nodes.py).  A join is a node's registering and first claim.
"""

import os
import socket
import struct
import sys
import time
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import hosts  # noqa: E402
from agent_needs import processor, resident  # noqa: E402
from claims import make_pools  # noqa: E402
from cluster import ISTHMUS, Cluster, Program, cluster  # noqa: E402
from crowd import Crowd, crowd  # noqa: E402
from figures import Figure, Table, quantile  # noqa: E402
from report import report_on_host  # noqa: E402

from dataplane import rtnl  # noqa: E402
from dataplane.block_routes import parse_route  # noqa: E402
from dataplane.fabric import Fabric  # noqa: E402
from dataplane.netlink import Netlink  # noqa: E402
from routing.reconciler import clear  # noqa: E402

QUICK = bool(os.environ.get("QUICK"))
NODES = 200
_ROUTES = 0x40 | 0x400
_SO_RCVBUFFORCE = 33
_WITHIN_S = 30.0
_SETTLED_S = 3


def measure(table: Table, work: Path, *, quick: bool, nodes: int) -> None:
    """Fill *table* with *nodes* others, all of whose streams are open."""
    who = f"{nodes:,} nodes"
    names = [f"node-{number}" for number in range(nodes)]
    with cluster(work / f"routes-{nodes}") as made:
        make_pools(made)
        agent = _agent(made)
        agent.start()
        try:
            with crowd(made, names) as others, _news() as news:
                began = time.monotonic()
                others.ask("begin", watching=True)
                _until(news, agent, 2 * nodes)
                whole = time.monotonic() - began
                found = [
                    _join(made, news, agent, others, number)
                    for number in range(10 if quick else 100)
                ]
            time.sleep(_SETTLED_S)  # nothing happens, and that is measured
            idle = processor(agent.pid)
            time.sleep(10)
            idle = (processor(agent.pid) - idle) * 10
            memory = resident(agent.pid)
        finally:
            agent.kill()
            with closing(Fabric()) as fabric:
                clear(fabric)  # what the next finds would be no news
    joins, own = zip(*found, strict=True)
    for part in (0.5, 0.99):
        figure = Figure((quantile(joins, part) * 1000,))
        promise = "500 ms" if part == 0.99 and nodes == NODES else ""
        table.add(f"join to routes, p{part * 100:g}", who, figure, promise=promise)
        figure = Figure((quantile(own, part) * 1000,))
        table.add(f"of it after others were told, p{part * 100:g}", who, figure)
    table.add("all join at once, to the last route", who, Figure((whole,), "s"))
    table.add("agent resident then", who, Figure((memory,), "MB"))
    table.add("agent's processor at rest", who, Figure((idle,), "%"))


def _join(
    made: Cluster, news: Netlink, agent: Program, others: Crowd, number: int
) -> tuple[float, float]:
    """Seconds to both routes to a new node in the kernel: from its first word, and from when half
    of the others had been told of it."""
    with crowd(made, [f"new-{number}"]) as new:
        new.ask("connect")
        answer = new.ask("begin", watching=False)[0]
    blocks = answer["blocks"]
    routed = _until(news, agent, 2, {ip_network(cidr) for cidr in blocks})
    told = [one for each in others.ask("told", cidr=blocks[-1]) for one in each["times"]]
    return routed - float(answer["began"]), routed - quantile(told, 0.5)


def _until(news: Netlink, agent: Program, count: int, wanted: set[object] | None = None) -> float:
    """When the last of *count* routes (of *wanted*) was told of by the kernel."""
    found: set[object] = set()
    until = time.monotonic() + _WITHIN_S
    for kind, _, payload in news.receive():
        route = parse_route(payload) if kind == rtnl.NEWROUTE else None
        if route and route.link and not route.table and (wanted is None or route.dst in wanted):
            found.add(route.dst)
        if len(found) >= count:
            break
        if time.monotonic() > until:
            agent.require("the agent")
            raise hosts.BenchError(f"{len(found)} of {count} routes")
    return time.monotonic()


def _news() -> Netlink:
    found = Netlink(socket.NETLINK_ROUTE, groups=_ROUTES)
    with socket.socket(fileno=os.dup(found.fileno())) as waiting:
        waiting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 30, 0))
        waiting.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
    return found


def _agent(made: Cluster) -> Program:
    """The one that is measured; not started."""
    files = made.authority.node("measured")
    state = made.directory / "agent"
    state.mkdir()
    config = made.directory / "agent.toml"
    config.write_text(
        f'socket = "{state}/agent.sock"\nstate_dir = "{state}"\nlog_level = "warning"\n'
        f'[ipamd]\nendpoints = ["{made.endpoints[0]}"]\nnode = "measured"\n'
        f'addresses = ["192.0.2.2"]\nca = "{made.authority.file}"\n'
        f'certificate = "{files.certificate}"\nkey = "{files.key}"\n'
        '[routing]\nmode = "auto"\n[masquerade]\n'
    )
    return Program([*ISTHMUS, "agent", "--config", str(config)], made.directory / "agent.log")


def both(table: Table, work: Path) -> None:
    for nodes in (NODES,) if QUICK else (NODES, 1_000):
        measure(table, work, quick=QUICK, nodes=nodes)


if __name__ == "__main__":
    sys.exit(report_on_host("routes", both))
