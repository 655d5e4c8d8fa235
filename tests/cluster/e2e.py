"""Kubernetes' own end-to-end tests of the network, on the cluster that is up.

    python -m tests.cluster.e2e [--network isthmus|reference|present] [--specs NAME]

Kube-proxy serves the Services.  The default is conformance on isthmus.
"""

import os
import subprocess
import sys
from pathlib import Path

import click

from tests.cluster import isthmus, reference
from tests.cluster.cluster import Cluster
from tools.kind import lock, way
from tools.kind.places import BUILD, KUBECONFIG, PROGRAMS

# Which specs, by name: they match the first expression and not the second.
# The internet, clouds, SCTP in the kernel and features off by default are not here; what is
# disruptive or serial changes nodes.
ABSENT = (
    r"\[Serial\]|\[Disruptive\]|SCTP|sctp|Internet connection|OffByDefault|NetworkPolicy"
    r"|LoadBalancer|Provider:GCE|KubeProxyNFAcct"
)
SPECS = {
    "conformance": (r"\[sig-network\].*\[Conformance\]", r"\[Slow\]|\[Serial\]|\[Disruptive\]"),
    "dual-stack": (r"\[sig-network\].*(IPv6DualStack|dual.?stack)", ABSENT),
    "granular": (r"\[sig-network\].*(Granular Checks|HostPort|NoSNAT|hairpin)", f"{ABSENT}|Dual"),
}
REPORTS = BUILD / "e2e"


def command(focus: str, skip: str, processes: int, nodes: int) -> list[str | Path]:
    """Return the command that runs the specs; *nodes* are those that pods can be on.

    The tests count nodes in the first of their processes alone: others would skip what needs two.
    """
    return [
        *(PROGRAMS / "ginkgo", f"--procs={processes}", f"--focus={focus}", f"--skip={skip}"),
        *("--no-color", f"--output-dir={REPORTS}", "--junit-report=junit.xml"),
        *(PROGRAMS / "e2e.test", "--"),
        *("--provider=skeleton", f"--kubeconfig={KUBECONFIG}", f"--report-dir={REPORTS}"),
        f"--num-nodes={nodes}",
    ]


@click.command()
@click.option(
    "--network",
    type=click.Choice(["isthmus", "reference", "present"]),
    default="isthmus",
    show_default=True,
    help="Installed before, with kube-proxy; or what the cluster has, as it is.",
)
@click.option("--specs", type=click.Choice(list(SPECS)), default="conformance", show_default=True)
@click.option("--focus", help="Which specs instead, as an expression.")
@click.option("--skip", help="Which of these not.")
@click.option("--procs", default=4, show_default=True, help="How many at once.")
def main(network: str, specs: str, focus: str | None, skip: str | None, procs: int) -> None:
    """Run Kubernetes' end-to-end tests of the network on the cluster that is up."""
    of_specs = SPECS[specs]
    with lock.held():
        engine = way.current()
        cluster = Cluster(engine)
        _prepare(cluster, network)
        workers = len(cluster.nodes) - 1
        specs_command = command(focus or of_specs[0], skip or of_specs[1], procs, workers)
        REPORTS.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*engine.prefix, *specs_command],
            env={**os.environ, **engine.environment},
            check=False,
        )
    sys.exit(done.returncode)


def _prepare(cluster: Cluster, network: str) -> None:
    match network:
        case "isthmus":
            cluster.load(isthmus.IMAGE)
            isthmus.Network(cluster).install()
        case "reference":
            reference.install(cluster)
        case _:
            return
    reference.install_kube_proxy(cluster)


if __name__ == "__main__":
    main()
