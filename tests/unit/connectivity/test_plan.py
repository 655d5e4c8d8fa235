"""Who tries whom in a self-test, and what the outcomes say together."""

from ipaddress import ip_address

from connectivity.model import Outcome, Path, Server, Target, Trial
from connectivity.plan import OTHER_NODES, neighbours, summary, targets_of


def server(number: int, *, host_network: bool = False) -> Server:
    node = ip_address(f"172.18.0.{number}")
    pod = ip_address(f"10.244.{number}.9")
    return Server(
        node=f"n{number}",
        host_network=host_network,
        addresses=(node,) if host_network else (pod,),
        node_addresses=(node,),
    )


SERVERS = [server(n, host_network=host) for n in (1, 2) for host in (False, True)]


def paths(targets: tuple[Target, ...]) -> set[tuple[Path, str]]:
    return {(each.path, each.address) for each in targets}


def test_a_pod_tries_pods_nodes_and_host_ports_of_its_own_and_of_other_nodes() -> None:
    found = targets_of("n1", SERVERS, from_host=False, outside=("192.0.2.1", 443))

    assert paths(found) == {
        (Path.POD_SAME_NODE, "10.244.1.9"),
        (Path.POD_OTHER_NODE, "10.244.2.9"),
        (Path.POD_OWN_NODE, "172.18.0.1"),
        (Path.POD_FOREIGN_NODE, "172.18.0.2"),
        (Path.HOST_PORT_SAME_NODE, "172.18.0.1"),
        (Path.HOST_PORT_OTHER_NODE, "172.18.0.2"),
        (Path.OUTSIDE, "192.0.2.1"),
    }


def test_a_node_tries_pods_and_other_nodes_but_not_itself() -> None:
    found = targets_of("n1", SERVERS, from_host=True, outside=("192.0.2.1", 443))

    assert paths(found) == {
        (Path.NODE_OWN_POD, "10.244.1.9"),
        (Path.NODE_FOREIGN_POD, "10.244.2.9"),
        (Path.NODE_NODE, "172.18.0.2"),
        (Path.HOST_PORT_OTHER_NODE, "172.18.0.2"),
    }


def test_only_between_pods_is_the_source_address_looked_at() -> None:
    found = targets_of("n1", SERVERS, from_host=False, outside=None)

    looked_at = {each.path for each in found if Trial.SOURCE in each.trials}
    assert looked_at == {Path.POD_SAME_NODE, Path.POD_OTHER_NODE}


def test_in_a_large_cluster_each_node_tries_as_many_as_try_it() -> None:
    nodes = [f"n{number:03}" for number in range(100)]

    tried = [neighbours(node, nodes) - {node} for node in nodes]

    assert {len(each) for each in tried} == {OTHER_NODES}
    assert {sum(node in each for each in tried) for node in nodes} == {OTHER_NODES}


def outcome(address: str, failure: str = "", seconds: float = 0.1) -> Outcome:
    return Outcome(
        path=Path.POD_OTHER_NODE,
        trial=Trial.TCP,
        client_node="n1",
        node="n2",
        address=address,
        seconds=seconds,
        failure=failure,
    )


def test_a_row_counts_and_shows_a_failure_with_where_to_look() -> None:
    rows = summary([outcome("10.0.0.1"), outcome("10.0.0.2", "refused", 3.0), outcome("fd00::1")])

    assert [(row.family, row.tried, row.failed, row.slowest_s) for row in rows] == [
        ("IPv4", 2, 1, 3.0),
        ("IPv6", 1, 0, 0.1),
    ]
    assert rows[0].example == "n1 to n2 at 10.0.0.2: refused"
    assert "routes" in rows[0].advice
    assert rows[1].advice == ""
