"""How a benchmark is run and told: a directory for its work, a table, its circumstances."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import hosts
from figures import Table, circumstances

from dataplane.netns import entered, open_path

Measure = Callable[[Table, Path], None]


def report(measure: Measure, directory: Path | None = None, *, comparison: str = "") -> int:
    """Have *measure* fill a table, and print it; what was found is told also if it fails.

    *directory*: where the work is done, without it the first argument, or build/.  Returns the
    exit status.
    """
    # Programs and namespaces are taken away again, however it ends.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    directory = directory or Path(sys.argv[1] if sys.argv[1:] else hosts.ROOT / "build")
    directory.mkdir(exist_ok=True)
    table = Table(comparison=comparison) if comparison else Table()
    trouble = ""
    try:
        with tempfile.TemporaryDirectory(dir=directory) as work:
            measure(table, Path(work))
    except hosts.BenchError as exc:
        trouble = f"bench: {exc}\n"
    print(table.text())
    print(f"\n{circumstances()}")
    sys.stderr.write(trouble)
    return 1 if trouble else 0


def report_on_host(name: str, measure: Measure) -> int:
    """As `report`, all of it in a network namespace of its own."""

    def inside(table: Table, work: Path) -> None:
        with hosts.host(name) as host:
            fd = open_path(f"/run/netns/{host}")
            try:
                with entered(fd):  # and so is whatever is started from here
                    measure(table, work)
            finally:
                os.close(fd)

    return report(inside)
