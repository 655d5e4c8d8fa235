#!/usr/bin/env python3
"""What ipamd and etcd do for a thousand nodes, and what a node does without them.

    bench/ipamd.py [DIRECTORY]        QUICK=1 for a short run

Everything but the nodes is real: etcd, ipamd, TLS on both sides.  All of it shares this
machine's processors.  The answer is a table, as docs/specification.md has it.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import checking  # noqa: E402
import claims  # noqa: E402
import fanout  # noqa: E402
import hosts  # noqa: E402
import mirroring  # noqa: E402
import outage  # noqa: E402
from figures import Table  # noqa: E402
from report import report  # noqa: E402

QUICK = bool(os.environ.get("QUICK"))


def measure(table: Table, work: Path) -> None:
    hosts.build_driver()
    with hosts.pods():
        for part in (outage, claims, fanout, mirroring, checking):
            part.measure(table, work, quick=QUICK)


if __name__ == "__main__":
    sys.exit(report(measure))
