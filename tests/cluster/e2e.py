"""Kubernetes' own end-to-end tests of the network, on the cluster that is up.

    python -m tests.cluster.e2e [--reference] [--focus REGEX] [--skip REGEX]

With --reference the reference's network and kube-proxy are installed first; without, the cluster is
tested as it is.  The default is conformance, without what disturbs a cluster or takes long.
"""

import os
import subprocess
import sys
from pathlib import Path

import click

from tests.cluster import reference
from tests.cluster.cluster import Cluster
from tools.kind import lock, way
from tools.kind.places import BUILD, KUBECONFIG, PROGRAMS

CONFORMANCE = r"\[sig-network\].*\[Conformance\]"
# latency measures the machine; the others change nodes or need to be alone.
DISTURBING = r"\[Slow\]|\[Serial\]|\[Disruptive\]|latency"
REPORTS = BUILD / "e2e"


def command(focus: str, skip: str, processes: int) -> list[str | Path]:
    """Return the command that runs the specs."""
    return [
        *(PROGRAMS / "ginkgo", f"--procs={processes}", f"--focus={focus}", f"--skip={skip}"),
        *("--no-color", f"--output-dir={REPORTS}", "--junit-report=junit.xml"),
        *(PROGRAMS / "e2e.test", "--"),
        *("--provider=skeleton", f"--kubeconfig={KUBECONFIG}", f"--report-dir={REPORTS}"),
    ]


@click.command()
@click.option("--focus", default=CONFORMANCE, show_default=True, help="Which specs.")
@click.option("--skip", default=DISTURBING, show_default=True, help="Which of these not.")
@click.option("--procs", default=4, show_default=True, help="How many at once.")
@click.option("--reference", "use_reference", is_flag=True, help="With the reference's network.")
def main(focus: str, skip: str, procs: int, use_reference: bool) -> None:
    """Run Kubernetes' end-to-end tests of the network on the cluster that is up."""
    with lock.held():
        engine = way.current()
        cluster = Cluster(engine)
        if use_reference:
            reference.install(cluster)
            reference.install_kube_proxy(cluster)
        REPORTS.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*engine.prefix, *command(focus, skip, procs)],
            env={**os.environ, **engine.environment},
            check=False,
        )
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
