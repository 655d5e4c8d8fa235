"""How much memory the agents have on a cluster, after what was done before."""

import re

from figures import Figure, Table

from tests.cluster.cluster import Cluster
from tests.cluster.isthmus import Network


def measure(table: Table, cluster: Cluster, rounds: int) -> None:
    """Ask the kernel once for each node's agent, with whatever load it has."""
    network = Network(cluster)
    found = []
    for node in cluster.nodes:
        status = cluster.on_node(node, "cat", f"/proc/{network.agent(node).pid}/status")
        found.append(int(re.findall(r"^VmRSS:\s*(\d+) kB", status, re.M)[0]) * 1024 / 1e6)
    table.add(
        "agent resident, on each node", "isthmus", Figure(tuple(found), "MB"), promise="80 MB"
    )
