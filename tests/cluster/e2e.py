"""Kubernetes' own end-to-end tests of the network, on the cluster that is up.

    python -m tests.cluster.e2e [--network isthmus|services|reference|present] [--specs NAME]

The default is conformance on isthmus, with kube-proxy for the Services; `--network services` is
isthmus with its own, and no kube-proxy anywhere.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import click

from tests.cluster import isthmus, reference
from tests.cluster.cluster import Cluster
from tools.kind import lock, way
from tools.kind.places import BUILD, KUBECONFIG, PROGRAMS
from tools.kind.progress import say

# The internet, clouds, SCTP in the kernel and features off by default are not here.
LACKING = (
    r"Internet connection|Forward PTR|OffByDefault|Provider:GCE|KubeProxyNFAcct"
    r"|Feature:(NetworkPolicy|LoadBalancer|SCTPConnectivity)"
)
# What is disruptive or serial changes nodes.
ABSENT = rf"\[Serial\]|\[Disruptive\]|{LACKING}"
# They need ssh to nodes, or pods of kube-proxy's own.
OF_OTHERS = "iptables rules if they are deleted|restarting kube-proxy"
# They need three workers, each in a zone of its own; and two in each zone.
ZONED = "Topology Hints|Traffic Distribution|HealthCheckNodePort correctly"
CROWDED = "between pods on multiple nodes|fall back to same zone"


@dataclass(frozen=True, slots=True)
class Specs:
    """Those whose text matches *focus* and not *skip*."""

    focus: str
    skip: str


SPECS = {
    "conformance": Specs(
        r"\[sig-network\].*\[Conformance\]", r"\[Slow\]|\[Serial\]|\[Disruptive\]"
    ),
    "dual-stack": Specs(r"\[sig-network\].*(IPv6DualStack|dual.?stack)", ABSENT),
    "granular": Specs(
        r"\[sig-network\].*(Granular Checks|HostPort|NoSNAT|hairpin)", f"{ABSENT}|Dual"
    ),
    "others": Specs(
        r"\[sig-network\]",
        rf"\[Conformance\]|IPv6DualStack|{OF_OTHERS}|{ZONED}|{LACKING}",
    ),
    "zones": Specs(rf"\[sig-network\].*({ZONED})", f"{CROWDED}|{LACKING}"),
}
REPORTS = BUILD / "e2e"
REPORT = REPORTS / "junit.xml"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many specs ran, and those that were chosen and did not, each with its reason."""

    ran: int
    declined: Mapping[str, str]

    def lacking(self, chosen: int) -> str:
        """Say how many of *chosen* specs ran; nothing where all did, and there were some."""
        if chosen and self.ran == chosen and not self.declined:
            return ""
        reasons = (f"\n  {name}: {reason}" for name, reason in self.declined.items())
        return f"{self.ran} of {chosen} specs ran{''.join(reasons)}"


def outcome(report: str) -> Outcome:
    """Return what ginkgo's JUnit report says.

    A spec that was not chosen is "skipped", one that was and does not want to "skipped - REASON".
    """
    ran, declined = 0, {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        kind, _, name = case.attrib["name"].partition(" ")
        skipped = case.find("skipped")
        if kind != "[It]":
            continue
        if skipped is None:
            ran += 1
        elif reason := skipped.attrib["message"].partition(" - ")[2]:
            declined[name] = reason
    return Outcome(ran, declined)


def command(specs: Specs, nodes: int, *options: str) -> list[str | Path]:
    """Return the command that runs the specs, with *options* of ginkgo; pods can be on *nodes*.

    The tests count nodes in the first of their processes alone: others would skip what needs two.
    """
    return [
        *(PROGRAMS / "ginkgo", f"--focus={specs.focus}", f"--skip={specs.skip}", *options),
        *("--no-color", f"--output-dir={REPORTS}", f"--junit-report={REPORT.name}"),
        *(PROGRAMS / "e2e.test", "--"),
        *("--provider=skeleton", f"--kubeconfig={KUBECONFIG}", f"--report-dir={REPORTS}"),
        f"--num-nodes={nodes}",
    ]


@click.command()
@click.option(
    "--network",
    type=click.Choice(["isthmus", "services", "reference", "present"]),
    default="isthmus",
    show_default=True,
    help="Installed before, with kube-proxy but for services; or what the cluster has, as it is.",
)
@click.option("--specs", type=click.Choice(list(SPECS)), default="conformance", show_default=True)
@click.option("--focus", help="Which specs instead, as an expression.")
@click.option("--skip", help="Which of these not.")
@click.option("--procs", default=4, show_default=True, help="How many at once.")
def main(network: str, specs: str, focus: str | None, skip: str | None, procs: int) -> None:
    """Run Kubernetes' end-to-end tests of the network on the cluster that is up."""
    wanted = Specs(focus or SPECS[specs].focus, skip or SPECS[specs].skip)
    REPORTS.mkdir(parents=True, exist_ok=True)
    with lock.held():
        engine = way.current()
        cluster = Cluster(engine)
        _prepare(cluster, network)
        workers = len(cluster.nodes) - 1
        engine.run(*command(wanted, workers, "--dry-run"))
        chosen = outcome(REPORT.read_text()).ran
        say(f"{chosen} specs, {procs} at once")
        done = subprocess.run(
            [*engine.prefix, *command(wanted, workers, f"--procs={procs}")],
            env={**os.environ, **engine.environment},
            check=False,
        )
    if done.returncode:
        sys.exit(done.returncode)
    if lacking := outcome(REPORT.read_text()).lacking(chosen):
        sys.exit(f"e2e: {lacking}")


def _prepare(cluster: Cluster, network: str) -> None:
    match network:
        case "isthmus":
            cluster.load(isthmus.IMAGE)
            isthmus.Network(cluster).install()
        case "services":
            cluster.load(isthmus.IMAGE)
            reference.remove_kube_proxy(cluster)
            isthmus.Network(cluster).install(isthmus.Mode.AUTO, "--services")
            return
        case "reference":
            reference.install(cluster)
        case _:
            return
    reference.install_kube_proxy(cluster)


if __name__ == "__main__":
    main()
