"""The cluster that tests run on: one at a time, brought up where it is not."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import isthmus, reference
from tests.cluster.cluster import Cluster
from tools.kind import lock, way


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, nobody else's while the tests run; it stays up for the next run."""
    config = Path(os.environ.get("ISTHMUS_KIND_CONFIG", way.DEFAULT_CONFIG))
    with lock.held():
        cluster = Cluster(way.bring_up(config.resolve()))
        # End-to-end tests leave the network where it is, and tests that were interrupted.
        if cluster.kubectl("get", "namespace", "--ignore-not-found", isthmus.NAMESPACE):
            isthmus.Network(cluster).uninstall()
        reference.remove_kube_proxy(cluster)
        yield cluster


@pytest.fixture(scope="module")
def reference_network(cluster: Cluster) -> Iterator[list[reference.Node]]:
    """The cluster with the reference's network and kube-proxy."""
    try:
        nodes = reference.install(cluster)
        reference.install_kube_proxy(cluster)
        yield nodes
    finally:
        reference.remove_kube_proxy(cluster)
        reference.remove(cluster)


@pytest.fixture(scope="session")
def isthmus_image(cluster: Cluster) -> None:
    """The image of `make image`, on every node."""
    cluster.load(isthmus.IMAGE)


@pytest.fixture(scope="module")
def isthmus_network(cluster: Cluster, isthmus_image: None) -> Iterator[isthmus.Network]:
    """The cluster with isthmus as its network, by routes where they can be."""
    network = isthmus.Network(cluster)
    network.install()
    yield network
    network.uninstall()


@pytest.fixture(autouse=True)
def _state_of_what_failed(request: pytest.FixtureRequest) -> Iterator[None]:
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed and "cluster" in request.fixturenames:
        cluster: Cluster = request.getfixturevalue("cluster")
        sys.stdout.write(cluster.kubectl("get", "nodes,pods", "--all-namespaces", "-owide"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests saw that passed: how much was lost, and where, is nothing to be hidden."""
    for report in terminalreporter.getreports("passed"):
        for heading, text in report.sections:
            if heading == "Captured stderr call":
                said = [line for line in text.splitlines() if line.startswith("==> ")]
                terminalreporter.write("".join(f"{line}\n" for line in said))
