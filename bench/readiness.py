"""How long a cluster takes from `kubectl apply` of the manifest to all nodes Ready."""

import time

from figures import Figure, Table

from tests.cluster import isthmus
from tests.cluster.cluster import Cluster


def measure(table: Table, cluster: Cluster, rounds: int) -> None:
    """Uninstall and install *rounds* times; pods with a network lose it, and are ended before."""
    network = isthmus.Network(cluster)
    text = isthmus.manifest(f"--families={network.families}")
    found = []
    for _ in range(rounds):
        network.uninstall()
        cluster.wait("condition=Ready=false", "nodes", "--all")
        began = time.monotonic()
        cluster.kubectl("apply", "--filename=-", stdin=text)
        cluster.wait("condition=Ready", "nodes", "--all", seconds=120)
        found.append(time.monotonic() - began)
    network.install()
    table.add("apply to all nodes Ready", "isthmus", Figure(tuple(found), "s"), promise="15 s")
