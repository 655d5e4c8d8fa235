#!/usr/bin/env python3
"""What ipamd and etcd do for a thousand nodes, and what a node does without them.

    bench/ipamd.py [DIRECTORY]        QUICK=1 for a short run

Everything but the nodes is real: etcd, ipamd, TLS on both sides.  All of it shares this
machine's processors.  The answer is a table, as docs/specification.md has it.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import checking  # noqa: E402
import claims  # noqa: E402
import fanout  # noqa: E402
import hosts  # noqa: E402
import mirroring  # noqa: E402
import outage  # noqa: E402
from figures import Table, circumstances  # noqa: E402

QUICK = bool(os.environ.get("QUICK"))


def main() -> int:
    # Programs and namespaces are taken away again, however it ends.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    directory = Path(sys.argv[1] if sys.argv[1:] else ROOT / "build")
    directory.mkdir(exist_ok=True)
    hosts.build_driver()
    table = Table()
    trouble = ""
    try:
        with tempfile.TemporaryDirectory(dir=directory) as work, hosts.pods():
            for part in (outage, claims, fanout, mirroring, checking):
                part.measure(table, Path(work), quick=QUICK)
    except hosts.BenchError as exc:
        trouble = f"bench: {exc}\n"
    print(table.text())
    print(f"\n{circumstances()}")
    sys.stderr.write(trouble)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
