#!/usr/bin/env python3
"""What each packet between pods takes, and which part of it is whose.

    bench/packets.py [--rounds N]

Two nodes and three pods, plain ones, are namespaces of this machine, where nothing else has rules.
On the nodes are, in turns: nothing; what every node of a cluster has (plain.TRACKED); beside that
isthmus's tables, without and with those of Services.  The answer is a table, as
docs/specification.md has it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
import plain  # noqa: E402
from figures import Figure, Table, circumstances, paired  # noqa: E402

from cni.tables import NAT  # noqa: E402
from dataplane.block_routes import RULE_PRIORITY  # noqa: E402
from masquerade.names import SKELETON as MASQUERADE  # noqa: E402
from proxy.tables import skeleton  # noqa: E402
from routing.names import NODE_TABLE  # noqa: E402
from tools.kind.progress import run  # noqa: E402

TRIPS = 5000
BARE, PLAIN = "nothing", "connections tracked"
_OURS = NAT.script() + MASQUERADE.script()
RULES = {
    PLAIN: plain.TRACKED,
    BARE: "",
    "isthmus": plain.TRACKED + _OURS,
    "isthmus, Services too": plain.TRACKED + _OURS + skeleton(4).script() + skeleton(6).script(),
}


def measure(table: Table, rounds: int) -> None:
    """Compare all of RULES on one node, between two by routes, and in VXLAN."""
    plain.build_trip()
    with plain.nodes() as nodes:
        with plain.pods(*nodes, vxlan=False) as names:
            ways = {"same node": names["near"], "direct": names["far"]}
            _compare(table, nodes, ways, rounds)
        with plain.pods(*nodes, vxlan=True) as names:
            _compare(table, nodes, {"VXLAN": names["far"]}, rounds)


def _compare(
    table: Table, nodes: tuple[plain.Node, plain.Node], ways: Mapping[str, str], rounds: int
) -> None:
    found: dict[tuple[str, str], list[float]] = {(way, who): [] for way in ways for who in RULES}
    for number in range(rounds):
        # Each goes first as often.
        for who in RULES if number % 2 else reversed(RULES):
            _prepare(nodes, who, tunnels="VXLAN" in ways)
            for way, client in ways.items():
                found[way, who].append(_trip(client))
    for way in ways:
        base = Figure(tuple(found[way, PLAIN]), "us")
        for who in RULES:
            figure = Figure(tuple(found[way, who]), "us")
            beside = "" if who == PLAIN else paired(base, figure)
            promise = "0.97" if "isthmus" in who else ""
            table.add(f"round trip, {way}", who, figure, beside=beside, promise=promise)


def _prepare(nodes: tuple[plain.Node, plain.Node], who: str, *, tunnels: bool) -> None:
    """Put the rules of *who* in place of what was there; with tunnels we have one of routing."""
    for number, node in enumerate(nodes, 1):
        node.run("nft", "-f", "-", stdin=f"flush ruleset\n{RULES[who]}")
        node.ip("rule flush", "rule add lookup main priority 32766")
        if tunnels and "isthmus" in who:
            from_to = f"from 10.251.{number}.0/24 to 192.0.2.0/24"
            node.ip(
                f"route replace {nodes[2 - number].address} dev lo table {NODE_TABLE}",
                f"rule add {from_to} lookup {NODE_TABLE} priority {RULE_PRIORITY}",
            )


def _trip(client: str) -> float:
    command = ("ip", "netns", "exec", client, plain.TRIP, plain.SERVER, str(TRIPS))
    return int(run(*command)) / 1000


@click.command()
@click.option("--rounds", default=15, show_default=True)
def main(rounds: int) -> None:
    """Measure, and print the table."""
    table = Table(comparison="Ratio, above 1 is better")
    measure(table, rounds)
    print(table.text())
    print(f"\n{circumstances()}")


if __name__ == "__main__":
    main()
