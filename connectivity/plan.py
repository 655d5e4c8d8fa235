"""Which client tries which targets, and what the outcomes say together.  Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from connectivity.model import Outcome, Path, Server, Target, Trial

POD_PORT = 8080
# Outside the range of NodePorts, 30000 to 32767, and of ephemeral ports, from 32768.
NODE_PORT, HOST_PORT = 29476, 29477

OTHER_NODES = 4
"""How many other nodes each node's clients try: all pairs of a thousand nodes are a million."""

_POD_TRIALS = (Trial.TCP, Trial.UDP, Trial.SOURCE, Trial.BULK, Trial.WHOLE_MTU, Trial.MANY)
_NODE_TRIALS = (Trial.TCP, Trial.UDP, Trial.BULK)

_ADVICE = {
    Path.POD_SAME_NODE: "`isthmus doctor` on that node: the bridge or the pod's link",
    Path.POD_OTHER_NODE: "`isthmus status` on both nodes: routes; or a filter between the nodes",
    Path.POD_OWN_NODE: "a filter in the node's input chain",
    Path.POD_FOREIGN_NODE: "the node's input filter, or routes back to pods",
    Path.NODE_OWN_POD: "`isthmus doctor` on that node",
    Path.NODE_FOREIGN_POD: "routes; or a filter that drops the node's own address",
    Path.NODE_NODE: "the nodes' own network: not isthmus's",
    Path.HOST_PORT_SAME_NODE: "table inet isthmus-cni; `portMappings` in the network configuration",
    Path.HOST_PORT_OTHER_NODE: "table inet isthmus-cni; a filter in the node's forward chain",
    Path.OUTSIDE: "masquerading ([masquerade] in agent.toml), and the node's own way out",
}
_TRIAL_ADVICE = {
    Trial.SOURCE: "something masquerades between pods: see `nft list ruleset`",
    Trial.WHOLE_MTU: "the pods' MTU is larger than the path's: see `isthmus doctor`",
    Trial.BULK: "small packets pass and large ones do not: the MTU",
}


def targets_of(
    node: str, servers: Iterable[Server], *, from_host: bool, outside: tuple[str, int] | None
) -> tuple[Target, ...]:
    """What a client on *node*, in the host's network or in a pod, is to try."""
    servers = tuple(servers)
    near = neighbours(node, sorted({each.node for each in servers}))
    found: list[Target] = []
    for server in servers:
        if server.node not in near:
            continue
        same = server.node == node
        if server.host_network:
            found += _to_node(server, same, from_host)
        else:
            found += _to_pod(server, same, from_host)
    if outside is not None and not from_host:
        host, port = outside
        found.append(
            Target(path=Path.OUTSIDE, address=host, port=port, node="", trials=(Trial.TCP,))
        )
    return tuple(found)


def neighbours(node: str, nodes: Sequence[str]) -> frozenset[str]:
    """*node* and the next few in a ring, so that each node is tried as often as it tries."""
    start = nodes.index(node)
    ring = [*nodes[start:], *nodes[:start]]
    return frozenset(ring[: 1 + OTHER_NODES])


def _to_pod(server: Server, same: bool, from_host: bool) -> Iterable[Target]:
    if from_host:
        path = Path.NODE_OWN_POD if same else Path.NODE_FOREIGN_POD
    else:
        path = Path.POD_SAME_NODE if same else Path.POD_OTHER_NODE
    trials = _NODE_TRIALS if from_host else _POD_TRIALS
    for address in server.addresses:
        yield Target(
            path=path, address=str(address), port=POD_PORT, node=server.node, trials=trials
        )
    if from_host and same:
        return  # a node's own way to its host ports is the runtime's business, and often none
    for address in server.node_addresses:
        yield Target(
            path=Path.HOST_PORT_SAME_NODE if same else Path.HOST_PORT_OTHER_NODE,
            address=str(address),
            port=HOST_PORT,
            node=server.node,
            trials=(Trial.TCP,),
        )


def _to_node(server: Server, same: bool, from_host: bool) -> Iterable[Target]:
    if from_host and same:
        return
    from_pod = Path.POD_OWN_NODE if same else Path.POD_FOREIGN_NODE
    path = Path.NODE_NODE if from_host else from_pod
    for address in server.node_addresses:
        yield Target(
            path=path,
            address=str(address),
            port=NODE_PORT,
            node=server.node,
            trials=_NODE_TRIALS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All outcomes of one path, family and trial, in one line."""

    path: Path
    family: str
    trial: Trial
    tried: int
    failed: int
    slowest_s: float
    example: str
    advice: str


def summary(outcomes: Iterable[Outcome]) -> tuple[Row, ...]:
    """One row for each path, family and trial, in the order of `Path` and `Trial`."""
    groups: dict[tuple[Path, str, Trial], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.path, family_of(outcome.address), outcome.trial].append(outcome)
    order = {each: place for place, each in enumerate([*Path, *Trial])}
    keys = sorted(groups, key=lambda key: (order[key[0]], key[1], order[key[2]]))
    return tuple(_row(key, groups[key]) for key in keys)


def family_of(address: str) -> str:
    """ "IPv4", "IPv6", or "name" for what is no address."""
    try:
        return f"IPv{ip_address(address).version}"
    except ValueError:
        return "name"


def _row(key: tuple[Path, str, Trial], outcomes: Sequence[Outcome]) -> Row:
    path, family, trial = key
    failures = [each for each in outcomes if each.failure]
    example = ""
    if failures:
        first = failures[0]
        where = f"{first.node or 'outside'} at {first.address}"
        example = f"{first.client_node} to {where}: {first.failure}"
    return Row(
        path=path,
        family=family,
        trial=trial,
        tried=len(outcomes),
        failed=len(failures),
        slowest_s=max(each.seconds for each in outcomes),
        example=example,
        advice=_TRIAL_ADVICE.get(trial, _ADVICE[path]) if failures else "",
    )
