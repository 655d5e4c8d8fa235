#!/usr/bin/env python3
"""What isthmus takes on a real cluster of three nodes, beside what others take on the same one.

    bench/kubernetes.py [--rounds N] [PART...]      burst, residence, paths, readiness; or all

The cluster is up and has no network, or isthmus (`make kind`).  What is compared takes turns.  The
answer is a table, as docs/specification.md has it.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import burst  # noqa: E402
import click  # noqa: E402
import paths  # noqa: E402
import readiness  # noqa: E402
import residence  # noqa: E402
from figures import Table, circumstances  # noqa: E402

from tests.cluster import isthmus  # noqa: E402
from tests.cluster.cluster import Cluster  # noqa: E402
from tools.kind import lock, way  # noqa: E402

PARTS = {
    "burst": burst.measure,
    "residence": residence.measure,
    "paths": paths.measure,
    "readiness": readiness.measure,
}


@click.command()
@click.option("--rounds", default=10, show_default=True, help="Of each part.")
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
def main(rounds: int, parts: tuple[str, ...]) -> None:
    """Measure, and print the table."""
    table = Table(comparison="Ratio, above 1 is better")
    with lock.held():
        cluster = Cluster(way.current())
        cluster.load(isthmus.IMAGE)
        isthmus.Network(cluster).install()
        try:
            for name in parts or PARTS:
                PARTS[name](table, cluster, rounds)
        finally:
            print(table.text())
            print(f"\n{circumstances()}")


if __name__ == "__main__":
    main()
